//! Programs that a measurement starts. Each ends with the value that stands for it, however the measurement ends.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::proc;

/// A server takes its time to start, a Java one most.
const START: Duration = Duration::from_secs(60);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) pid: u32,
    log: PathBuf,
    child: Child,
}

impl Server {
    /// Starts it, with its output in `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            pid: child.id().context("it ended at once")?,
            log: log.to_owned(),
            child,
        })
    }

    /// Waits until it takes connections.
    pub(crate) async fn ready(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > START {
                let log = std::fs::read_to_string(&self.log)?;
                bail!(
                    "{} does not serve {address} ({ended:?}); it said:\n{log}",
                    self.name
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        proc::cpu_seconds(self.pid)
    }

    pub(crate) fn rss(&self) -> anyhow::Result<u64> {
        proc::rss(self.pid)
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn terminate(mut self, at_most: Duration) -> anyhow::Result<()> {
        let mut kill = Command::new("kill");
        output(
            kill.arg("-TERM").arg(self.pid.to_string()),
            Duration::from_secs(5),
        )
        .await?;
        tokio::time::timeout(at_most, self.child.wait())
            .await
            .with_context(|| format!("{} did not end in {at_most:?}", self.name))??;
        Ok(())
    }

    /// Ends it at once, and waits until it is gone.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("ending {}", self.name))
    }
}

/// Starts a client; what is returned runs it to its end, and returns what it printed.
pub(crate) fn output(
    command: &mut Command,
    limit: Duration,
) -> impl Future<Output = anyhow::Result<String>> + use<> {
    let shown = shown(command);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    async move { printed(running, limit, shown).await }
}

async fn printed(
    running: impl Future<Output = std::io::Result<Output>>,
    limit: Duration,
    shown: String,
) -> anyhow::Result<String> {
    let output = tokio::time::timeout(limit, running)
        .await
        .with_context(|| format!("it took more than {limit:?}: {shown}"))?
        .with_context(|| format!("running {shown}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} from {shown}\n{}\n{}",
            output.status,
            end_of(&text),
            end_of(&errors)
        );
    }
    Ok(text)
}

/// What was said last: a thousand clients that fail say the same a thousand times.
fn end_of(text: &str) -> &str {
    const MOST: usize = 2000;
    let from = text.len().saturating_sub(MOST);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at));
    from.map_or("", |from| text.get(from..).unwrap_or_default())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let command = command.as_std();
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(name.to_string_lossy().into_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
