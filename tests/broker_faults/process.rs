//! The real executable, in a directory and on ports that it finds again.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::Rng as _;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A standalone broker that is started and killed again and again.
pub struct Process {
    child: Option<Child>,
    /// What runs it: `sluice`, or a command that runs `sluice`.
    command: Vec<String>,
    stderr: PathBuf,
    pub data: SocketAddr,
    http: SocketAddr,
}

/// A port that nobody has, and that no client gets by chance while the broker is away.
fn port() -> SocketAddr {
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

impl Process {
    /// A broker with the topic `load`, which is not started yet. `runner` runs the executable; empty: nobody.
    pub fn new(runner: &[&str], directory: &Path, partitions: u32, flags: &[&str]) -> Self {
        let (data, control, http) = (port(), port(), port());
        let mut command: Vec<String> = runner.iter().copied().map(str::to_owned).collect();
        command.extend([SLUICE, "broker", "--standalone", "--name", "load-0"].map(str::to_owned));
        command.extend(["--data-dir".to_owned(), directory.to_str().unwrap().to_owned()]);
        command.extend(["--topic".to_owned(), format!("load:{partitions}")]);
        let listen = [
            ("--listen", data),
            ("--control-listen", control),
            ("--http-listen", http),
        ];
        command.extend(
            listen
                .iter()
                .flat_map(|(flag, at)| [(*flag).to_owned(), at.to_string()]),
        );
        command.extend(flags.iter().copied().map(str::to_owned));
        let stderr =
            std::env::temp_dir().join(format!("sluice-faults-{}-{}", std::process::id(), data.port()));
        Self {
            child: None,
            command,
            stderr,
            data,
            http,
        }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.stderr)
            .unwrap();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(stderr.try_clone().unwrap())
            .stderr(stderr)
            .spawn();
        self.child = Some(child.expect("the broker starts"));
    }

    /// Starts it and waits until it is ready.
    pub async fn start_ready(&mut self) {
        self.start();
        self.ready().await;
    }

    pub async fn ready(&mut self) {
        let began = Instant::now();
        while !self.is_ready() {
            self.check_runs();
            assert!(began.elapsed() < PATIENCE, "never ready: {}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.http, Duration::from_secs(1)) else {
            return false;
        };
        _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let request = "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.split(' ').nth(1) == Some("200")
    }

    /// Panics if it ended by itself.
    pub fn check_runs(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the broker ended by itself ({status}): {}", self.said());
        }
    }

    /// Kill −9, at this very moment.
    pub fn kill(&mut self) {
        self.check_runs();
        let mut child = self.child.take().expect("it was started");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.check_runs();
        let pid = self.child.as_ref().map(Child::id).expect("it was started");
        let status = Command::new("kill").arg(pid.to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until it has ended, for at most so long. `None`: it still runs.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            if began.elapsed() >= within {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The end of what it said on stderr.
    pub fn said(&self) -> String {
        let mut text = String::new();
        _ = File::open(&self.stderr).and_then(|mut file| file.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
        _ = std::fs::remove_file(&self.stderr);
    }
}
