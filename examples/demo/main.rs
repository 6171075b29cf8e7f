//! `make demo`: one broker, a load, five times the load, and the first one again, on the cluster that `KUBECONFIG`
//! points at with the operator installed. What is a small load, it finds out first. Prints a line a second, then a table; writes `target/demo/summary.json`.

mod observe;
mod stage;
mod summary;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use observe::{Moment, Observer};
use stage::{SMALL_PERCENT, Stage};
use summary::Summary;

const BEFORE: Duration = Duration::from_secs(20);
const DURING: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_secs(120);
/// The objective for the 99th percentile of the time from when a message was to be sent to its acknowledgement.
pub(crate) const OBJECTIVE: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() -> Result<()> {
    let image =
        std::env::var("SLUICE_IMAGE").context("SLUICE_IMAGE is not set: run this with `make demo`")?;
    println!("finding out what one broker does here");
    let most = Stage::set(image.clone()).await?.saturate().await?;
    let small = (most as u64 * SMALL_PERCENT / 100).max(1);
    let large = 5 * small;
    println!("{most:.0} messages a second; starting again with a new one");
    let stage = Stage::set(image).await?;
    let (before, during, after) = (BEFORE.as_secs(), DURING.as_secs(), AFTER.as_secs());
    println!(
        "one broker is Ready. The load: {small}/s for {before} s, {large}/s for {during} s, {small}/s for {after} s\n"
    );
    let schedule = format!("{small}:{before}s,{large}:{during}s,{small}:{after}s");
    stage
        .start_load(&["--schedule", &schedule, "--subscribers=2", "--producer-id=demo"])
        .await?;
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
    let summary = Summary::new(&moments, &load, &stage.broker().await?, BEFORE, small);
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
