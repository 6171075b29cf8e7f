//! `dev/closed-loop.sh [SCENARIO...]`: loads and faults on a real cluster, each beside what `sluice simulate` says of the same load.
//! Writes `target/closed-loop/SCENARIO.json` and `docs/closed-loop.md`.

#![allow(dead_code, reason = "the demo's files are used in part")]

mod fault;
#[path = "../demo/observe.rs"]
mod observe;
mod row;
mod scenario;
#[path = "../demo/stage.rs"]
mod stage;
mod table;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice::cli::{Cli, runtime};

use observe::{Moment, Observer};
use row::{Row, Seen};
use scenario::{Fault, Scenario};
use stage::{NAMESPACE, Stage};
use watch::Watch;

/// The objective for the 99th percentile of the time from when a message was to be sent to its acknowledgement.
pub(crate) const OBJECTIVE: Duration = Duration::from_millis(250);

fn main() -> Result<()> {
    if std::env::args().nth(1).is_some_and(|first| first == "simulate") {
        let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
        return runtime::run(cli.command).map_err(|error| anyhow::anyhow!("{error}"));
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let all = Scenario::all(0.0);
    for name in &asked {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        ensure!(
            names.contains(&name.as_str()),
            "{name} is no scenario; there are: {}",
            names.join(" ")
        );
    }
    let image = std::env::var("SLUICE_IMAGE").context("SLUICE_IMAGE is not set: run dev/closed-loop.sh")?;
    let folder = row::folder();
    std::fs::create_dir_all(&folder)?;
    let rate = Stage::set(image.clone()).await?.saturate().await?;
    println!("one broker does {rate:.0}/s");
    let mut failed = Vec::new();
    for scenario in Scenario::all(rate) {
        if !asked.is_empty() && !asked.iter().any(|name| name == scenario.name) {
            continue;
        }
        println!("== {}: {}", scenario.name, scenario.schedule());
        // One that fails must not keep the others from being run; it is told at the end.
        match play(&image, &scenario, rate).await {
            Ok(row) => std::fs::write(
                folder.join(format!("{}.json", scenario.name)),
                format!("{:#}\n", json!(row)),
            )?,
            Err(error) => {
                eprintln!("{}: {error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    table::write(&folder)?;
    ensure!(failed.is_empty(), "these scenarios failed: {}", failed.join(" "));
    Ok(())
}

/// Runs one scenario from an empty namespace.
async fn play(image: &str, scenario: &Scenario, rate: f64) -> Result<Row> {
    let stage = Arc::new(Stage::set(image.to_owned()).await?);
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load_average = load_average.split(' ').next().unwrap_or_default().to_owned();
    let schedule = scenario.schedule();
    let load = ["--schedule", &schedule, "--producer-id=demo"];
    if matches!(scenario.fault, Some((Fault::ConsumersStop, _))) {
        let seconds = format!("{}s", scenario.seconds());
        stage
            .start_bench("consumers", &["--mode=subscribe", "--duration", &seconds])
            .await?;
        stage
            .start_load(&[&load[..], &["--mode=publish"]].concat())
            .await?;
    } else {
        stage
            .start_load(&[&load[..], &["--subscribers=2"]].concat())
            .await?;
    }
    let watch = Watch::start(&stage);
    let mut lines = stage.load_lines().await?;
    let mut observer = Observer::new(&stage);
    let mut moments: Vec<Moment> = Vec::new();
    let mut zero: Option<Instant> = None;
    println!("{}", Moment::HEADER);
    let limit = Duration::from_secs(scenario.seconds() + 120);
    let load = tokio::time::timeout(limit, async {
        let mut fault: Option<tokio::task::JoinHandle<Result<()>>> = None;
        while let Some(line) = lines.next().await? {
            if line["type"] == "summary" {
                if let Some(fault) = fault {
                    fault.await??;
                }
                return Ok(line);
            }
            let seconds = line["seconds"].as_f64().unwrap_or(0.0);
            // A line may come late, and never early.
            let now = Instant::now();
            let begun = now.checked_sub(Duration::from_secs_f64(seconds)).unwrap_or(now);
            zero = Some(zero.map_or(begun, |zero| zero.min(begun)));
            let moment = observer.moment(&line).await?;
            println!("{moment}");
            moments.push(moment);
            if let Some((what, at)) = scenario.fault
                && fault.is_none()
                && seconds >= at.as_secs_f64()
                && is_its_stage(what, &watch)
            {
                println!("-- {what:?}");
                let stage = Arc::clone(&stage);
                fault = Some(tokio::spawn(async move { fault::happen(&stage, what).await }));
            }
        }
        anyhow::bail!("the load ended without a summary; see: kubectl --namespace {NAMESPACE} logs load")
    });
    let load: Value = load.await.context("the load did not end in time")??;
    let looks = watch.looks();
    let seen = Seen {
        zero: zero.context("the load said nothing")?,
        looks: &looks,
        moments: &moments,
        scenario,
    };
    let answer = seen.answer();
    // Where no broker came, it plays no part in the prediction unless that adds some.
    let start_seconds = seen.start_seconds().unwrap_or(5.0);
    let spec = stage::MANIFEST.split("---").next().unwrap_or_default();
    let predicted = row::predict(&row::folder(), scenario, spec, rate, start_seconds)?;
    let status = stage.broker().await?.status.unwrap_or_default();
    let decisions = status.autoscaling.map(|it| it.decisions).unwrap_or_default();
    let count = |name: &str| load[name].as_u64();
    Ok(Row {
        name: scenario.name.to_owned(),
        rate_per_broker: rate,
        start_seconds,
        load_average,
        measured: seen.figures(),
        predicted,
        answer,
        messages: [
            count("acknowledged"),
            count("lost"),
            count("duplicated"),
            count("reordered"),
        ],
        decisions: decisions.into_iter().map(|decision| decision.message).collect(),
    })
}

/// Whether a fault that waits for a stage of a decision may come now.
fn is_its_stage(fault: Fault, watch: &Watch) -> bool {
    let Some(look) = watch.looks().last().copied() else {
        return false;
    };
    match fault {
        Fault::OperatorKilled(scenario::Stage::Patched) => look.replicas > 1 && look.ready < look.replicas,
        Fault::OperatorKilled(scenario::Stage::Ready) => look.replicas > 1 && look.ready >= look.replicas,
        _ => true,
    }
}
