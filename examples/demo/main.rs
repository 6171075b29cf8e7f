//! `make demo`: one broker, a load, five times the load, and the first one again, on the cluster that `KUBECONFIG`
//! points at with the operator installed. Prints a line a second, then a table; writes `target/demo/summary.json`.

mod observe;
mod stage;
mod summary;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use observe::{Moment, Observer};
use stage::Stage;
use summary::Summary;

/// What the load offers at first and at the end: messages a second.
pub(crate) const SMALL: u64 = 4_000;
/// Five times the small load.
pub(crate) const LARGE: u64 = 5 * SMALL;
const BEFORE: Duration = Duration::from_secs(20);
const DURING: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(120);
/// The objective for the 99th percentile of the time from when a message was to be sent to its acknowledgement.
pub(crate) const OBJECTIVE: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() -> Result<()> {
    let image =
        std::env::var("SLUICE_IMAGE").context("SLUICE_IMAGE is not set: run this with `make demo`")?;
    let stage = Stage::set(image).await?;
    let (before, during, after) = (BEFORE.as_secs(), DURING.as_secs(), AFTER.as_secs());
    println!(
        "one broker is Ready. The load: {SMALL}/s for {before} s, {LARGE}/s for {during} s, {SMALL}/s for {after} s\n"
    );
    let schedule = format!("{SMALL}:{before}s,{LARGE}:{during}s,{SMALL}:{after}s");
    stage.start_load(&schedule).await?;
    let mut lines = stage.load_lines().await?;
    let mut observer = Observer::new(&stage);
    let mut moments: Vec<Moment> = Vec::new();
    println!("{}", Moment::HEADER);
    let limit = BEFORE + DURING + AFTER + Duration::from_secs(120);
    let load = tokio::time::timeout(limit, async {
        while let Some(line) = lines.next().await? {
            if line["type"] == "summary" {
                return Ok(line);
            }
            let moment = observer.moment(&line).await?;
            println!("{moment}");
            moments.push(moment);
        }
        anyhow::bail!(
            "the load ended without a summary; see: kubectl --namespace {} logs load",
            stage::NAMESPACE
        )
    })
    .await
    .context("the load did not end in time")??;
    let summary = Summary::new(&moments, &load, &stage.broker().await?, BEFORE);
    println!("\n{summary}\n{}", stage::LOOK_AROUND);
    summary.write()?;
    ensure!(
        summary.lost == 0,
        "{} acknowledged messages were lost",
        summary.lost
    );
    ensure!(summary.scale_ups > 0, "the brokers were not scaled up");
    Ok(())
}
