//! A volume that is full: publishes are refused, reading goes on, and it heals.
//!
//! The volume is a small tmpfs in a mount namespace of the test's own, which needs root; otherwise the test says that
//! it was skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::consumer::Member;
use crate::harness::{FEW, Load, PARTITIONS};
use crate::history::{History, Id, WITHOUT_ID};
use crate::process::{PATIENCE, Process};
use crate::producer::{Producer, connect, id};
use crate::seeded;

/// A small volume, which is there as long as this lives.
struct Volume {
    /// Keeps the namespace.
    holder: Child,
    directory: tempfile::TempDir,
}

impl Volume {
    /// `None` where namespaces cannot be made.
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=\"$1\" sluice-test \"$2\" && echo mounted && exec sleep 600";
        let mut holder = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
                size,
            ])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let volume = Self { holder, directory };
        (line == "mounted\n").then_some(volume)
    }

    fn inside(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        ["nsenter", "--mount", "--target", &target, "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// A path on it, as this process sees it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.directory.path().strip_prefix("/").unwrap();
        root.join(inside).join(name)
    }

    fn resize(&self, size: &str) {
        let command = self.inside();
        let status = Command::new(&command[0])
            .args(&command[1..])
            .args(["mount", "-o", &format!("remount,size={size}")])
            .arg(self.directory.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        _ = self.holder.kill();
        _ = self.holder.wait();
    }
}

/// Publishes as fast as it can.
struct Filler {
    producer: Producer,
    number: u64,
    acked: Vec<Id>,
}

impl Filler {
    /// One batch, once.
    async fn fill(&mut self) -> Result<(), Status> {
        let partition = (self.number % u64::from(PARTITIONS)) as u32;
        let ids: Vec<Id> = (0..50).map(|n| (self.producer.number, self.number + n)).collect();
        self.number += 50;
        let history = &self.producer.history;
        let indexes: Vec<usize> = ids
            .iter()
            .map(|id| history.append_begins(*id, partition))
            .collect();
        let request = self.producer.request(partition, &ids);
        let mut client = connect(self.producer.address);
        let call = tokio::time::timeout(PATIENCE, client.send(request)).await;
        let response = call.expect("an answer")?.into_inner();
        for (index, offset) in indexes.iter().zip(response.offsets) {
            history.append_acked(*index, Some(offset.offset), None);
        }
        self.acked.extend(ids);
        Ok(())
    }

    /// Until the volume is full. Returns what it was told then.
    async fn fill_up(&mut self) -> Status {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "it is never full");
            match self.fill().await {
                Ok(()) => {}
                Err(status) => return status,
            }
        }
    }

    /// Until there is room.
    async fn until_it_works(&mut self) {
        let began = Instant::now();
        while let Err(status) = self.fill().await {
            assert_full(&status);
            assert!(began.elapsed() < PATIENCE, "it never healed: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn assert_full(status: &Status) {
    assert!(
        matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
        "{status:?}"
    );
    assert!(status.message().contains("the disk is full"), "{status:?}");
}

/// A group that nobody has heard of gets all of these.
async fn read_all(filler: &Filler, group: &str) {
    let history = Arc::new(History::default());
    let mut member = Member::join(filler.producer.address, group, &history)
        .await
        .unwrap();
    let mut missing: std::collections::HashSet<Id> = filler.acked.iter().copied().collect();
    let began = Instant::now();
    while !missing.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are not delivered", missing.len());
        member.grant(1000).unwrap();
        for (_, delivery) in member.take(Duration::from_millis(50)).await.unwrap() {
            missing.remove(&id(&delivery.body));
        }
    }
}

async fn broker_on(volume: &Volume) -> Process {
    let inside = volume.inside();
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    let data: &Path = &volume.directory.path().join("data");
    let mut process = Process::new(&inside, data, PARTITIONS, &["--segment-bytes", "256Ki"]);
    process.start_ready().await;
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_publishes_serves_readers_and_heals() {
    let Some(volume) = Volume::mount("3m") else {
        // Around the capture of output: whoever runs the tests is to see it.
        let skipped = b"SKIPPED a test of a full disk: it needs root and namespaces\n";
        std::io::stderr().write_all(skipped).unwrap();
        return;
    };
    let (seed, _) = seeded("disk full");
    let ballast = volume.path("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let mut process = broker_on(&volume).await;
    let load = Load::start(process.data, seed, &FEW);
    let mut filler = Filler {
        producer: Producer {
            number: WITHOUT_ID + 500,
            address: process.data,
            partitions: PARTITIONS,
            history: Arc::clone(&load.history),
            seed,
            pause: Duration::ZERO,
        },
        number: 0,
        acked: Vec::new(),
    };

    let refused = filler.fill_up().await;
    assert_full(&refused);
    let before = filler.acked.len();
    assert!(before > 1000, "only {before} were stored");
    read_all(&filler, "while-full").await;

    // Killed while it is full: it comes up, serves what it has, and takes no more.
    process.kill();
    process.start_ready().await;
    read_all(&filler, "after-a-kill").await;
    let refused = filler.fill_up().await;
    assert_full(&refused);

    std::fs::remove_file(&ballast).unwrap();
    filler.until_it_works().await;
    let refused = filler.fill_up().await;
    assert_full(&refused);

    volume.resize("64m");
    filler.until_it_works().await;
    println!("refused with: {refused:?}; {before} messages before it was full");
    load.finish(&mut process).await;
}
