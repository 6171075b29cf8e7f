//! A broker with a CPU quota keeps within it by itself, so that the kernel need not stop it. Needs root, for a cgroup.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/ports.rs"]
mod ports;
#[path = "../examples/real/quota.rs"]
mod quota;

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quota::Quota;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_sluice");
/// Thousandths of a core.
const LIMIT: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped; then its cgroup is empty and can go.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A standalone broker with this quota.
fn start(quota: &Quota, directory: &std::path::Path) -> (Running, SocketAddr) {
    let port = || ports::free_address().unwrap();
    let address = port();
    let child = quota
        .command(EXECUTABLE)
        .args(["broker", "--standalone", "--name", "broker-0"])
        .args(["--topic", "orders:4", "--channel-capacity", "1024"])
        .arg(format!("--listen={address}"))
        .arg(format!("--control-listen={}", port()))
        .arg(format!("--http-listen={}", port()))
        .arg("--data-dir")
        .arg(directory)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(began.elapsed() < PATIENCE, "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, address)
}

#[test]
fn a_broker_that_small_requests_keep_busy_is_seldom_stopped_by_the_kernel() {
    let quota = Quota::of_millicores(LIMIT).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (_broker, address) = start(&quota, directory.path());
    let before = quota.periods().unwrap();
    // Far less than it can do, but each request on its own would take more than the quota allows.
    let load = Command::new(EXECUTABLE)
        .args(["bench", "--mode=publish", "--topic=orders", "--output=json"])
        .args(["--publishers=6", "--rate=5000", "--duration=5s"])
        .arg(format!("--address={address}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let after = quota.periods().unwrap();
    let errors = String::from_utf8_lossy(&load.stderr);
    assert!(load.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&load.stdout);
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["acknowledged"], 25_000, "{summary}");
    let (periods, stopped) = (after.0 - before.0, after.1 - before.1);
    assert!(periods >= 25, "it had something to do in {periods} periods only");
    assert!(2 * stopped < periods, "stopped in {stopped} of {periods} periods");
}
