//! What the machine itself can do, without any broker.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Bench;
use crate::processors::{Share, on};
use crate::report::{Section, Table, spread};

const CHUNKS: [usize; 4] = [4 << 10, 16 << 10, 128 << 10, 1 << 20];
const FILE: u64 = 128 << 20;
/// From one round trip to the next.
const GAPS: [Duration; 3] = [
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
];

/// How long a thread must be stopped for that to be counted.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug, Serialize)]
struct Synced {
    chunk: usize,
    micros: Vec<f64>,
    bytes_a_second: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Trips {
    gap: Duration,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Section> {
    let folder = bench.folder()?;
    let time = Duration::from_millis(bench.either(300, 600));
    let mut synced: Vec<Synced> = CHUNKS
        .map(|chunk| Synced {
            chunk,
            micros: Vec::new(),
            bytes_a_second: Vec::new(),
        })
        .into();
    let (mut memory, mut loopback, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    let mut trips: Vec<Trips> = GAPS
        .map(|gap| Trips {
            gap,
            p50: Vec::new(),
            p99: Vec::new(),
        })
        .into();
    for _ in bench.rounds() {
        for one in &mut synced {
            let (count, seconds) = sync_loop(&folder.path().join("file"), one.chunk, time)?;
            one.micros.push(seconds * 1e6 / count as f64);
            one.bytes_a_second.push(count as f64 * one.chunk as f64 / seconds);
        }
        memory.push(copy_loop(time));
        loopback.push(loopback_loop(time).await?);
        stopped.push(pauses(2 * time) / (2 * time).as_secs_f64());
        for one in &mut trips {
            let times = round_trips(one.gap, time)?;
            one.p50.push(times.value_at_quantile(0.5) as f64 / 1e3);
            one.p99.push(times.value_at_quantile(0.99) as f64 / 1e3);
        }
    }
    let mut table = Table::new(&[
        "write + fdatasync into a preallocated file",
        "µs",
        "MB/s",
        "messages/s of 256 B",
    ]);
    for one in &synced {
        table.row(&[
            format!("{} KB", one.chunk >> 10),
            spread(one.micros.iter().copied()),
            spread(one.bytes_a_second.iter().map(|rate| rate / 1e6)),
            spread(one.bytes_a_second.iter().map(|rate| rate / 256.0)),
        ]);
    }
    let mut round_trip = Table::new(&["a round trip every", "p50 µs", "p99 µs"]);
    for one in &trips {
        round_trip.row(&[
            format!("{:?}", one.gap),
            spread(one.p50.iter().copied()),
            spread(one.p99.iter().copied()),
        ]);
    }
    let text = format!(
        "### The machine's own limits\n\n{}\n256 bytes to a thread that waits in `read` and answers with 40, over loopback TCP, from one that polls; each has its own \
         processors, as a server and the load generator have below. Mostly it is what waking a thread costs:\n\n{}\nmemcpy {} GB/s · loopback TCP, one connection, \
         64 KB writes {} GB/s\n\nA thread that does nothing but look at the clock is stopped for more than {:?} {} times a second.\n",
        table.text(),
        round_trip.text(),
        spread(memory.iter().map(|rate| rate / 1e9)),
        spread(loopback.iter().map(|rate| rate / 1e9)),
        PAUSE,
        spread(stopped.iter().copied())
    );
    Section::new(text).figures(&(synced, memory, loopback, trips, stopped))
}

/// Writes and syncs for some time; how often, in how many seconds.
fn sync_loop(path: &std::path::Path, chunk: usize, time: Duration) -> anyhow::Result<(u64, f64)> {
    let mut file = File::create(path)?;
    let zeroes = vec![0; 1 << 20];
    for _ in 0..FILE >> 20 {
        file.write_all(&zeroes)?;
    }
    file.sync_all()?;
    let data = vec![0x5a; chunk];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        file.write_all_at(&data, count * chunk as u64 % FILE)?;
        file.sync_data()?;
        count += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok((count, seconds))
}

/// Bytes a second of copying more than the caches hold.
fn copy_loop(time: Duration) -> f64 {
    let from = vec![0x5a_u8; 128 << 20];
    let mut to = vec![0_u8; from.len()];
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < time {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        bytes += from.len();
    }
    bytes as f64 / start.elapsed().as_secs_f64()
}

/// How often this thread, which does nothing else, does not get to look at the clock.
fn pauses(time: Duration) -> f64 {
    let start = Instant::now();
    let (mut last, mut count) = (start, 0.0);
    while last - start < time {
        let now = Instant::now();
        count += f64::from(u8::from(now - last > PAUSE));
        last = now;
    }
    count
}

/// Bytes a second through one connection.
async fn loopback_loop(time: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let writing = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await?;
        let data = vec![0x5a; 64 << 10];
        let start = Instant::now();
        while start.elapsed() < time {
            stream.write_all(&data).await?;
        }
        stream.shutdown().await
    });
    let (mut stream, _) = listener.accept().await?;
    let mut buffer = vec![0; 256 << 10];
    let (start, mut bytes) = (Instant::now(), 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => bytes += count,
        }
    }
    writing.await??;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Nanoseconds of round trips that begin one `gap` after the other, to a thread that sleeps in between.
fn round_trips(gap: Duration, time: Duration) -> anyhow::Result<Histogram<u64>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answering = on(Share::Server, || {
        Ok(std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut asked = [0; 256];
            loop {
                match stream.read_exact(&mut asked) {
                    Ok(()) => stream.write_all(&[0; 40])?,
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }))
    })?;
    let asking = on(Share::Load, || {
        Ok(std::thread::spawn(move || -> anyhow::Result<Histogram<u64>> {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut times = Histogram::new(3)?;
            let start = Instant::now();
            let mut due = start;
            while start.elapsed() < time {
                due += gap;
                while Instant::now() < due {}
                let asked = Instant::now();
                stream.write_all(&[0; 256])?;
                let mut left = 40;
                while left > 0 {
                    match stream.read(&mut [0; 40]) {
                        Ok(0) => anyhow::bail!("the connection ended"),
                        Ok(count) => left -= count,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                times.record(asked.elapsed().as_nanos() as u64)?;
            }
            Ok(times)
        }))
    })?;
    let times = asking.join().map_err(|_| anyhow::anyhow!("the client failed"))?;
    answering
        .join()
        .map_err(|_| anyhow::anyhow!("the server failed"))??;
    times
}
