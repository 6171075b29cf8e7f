//! The files that a simulation leaves.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, json};

use super::chart;
use super::work::PolicyResult;
use crate::cli::Failure;
use crate::scaling::simulation::Scenario;

/// Writes all of them into a directory, which is made if it is not there.
pub(super) fn write(
    directory: &Path,
    scenario: &Scenario,
    seeds: u32,
    results: &[PolicyResult],
) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::of(&format!("making {}", directory.display()), error))?;
    super::write(
        &directory.join("summary.json"),
        summary(scenario, seeds, results)?,
    )?;
    super::write(&directory.join("decisions.csv"), decisions(results))?;
    super::write(&directory.join("timeline.csv"), timeline(results))?;
    let (svg, png) = chart::draw(scenario, results).map_err(Failure::Failed)?;
    super::write(&directory.join("plot.svg"), svg)?;
    super::write(&directory.join("plot.png"), png)
}

fn summary(scenario: &Scenario, seeds: u32, results: &[PolicyResult]) -> Result<String, Failure> {
    let failed = |error| Failure::of("writing summary.json", error);
    let mut policies = Map::new();
    for result in results {
        let figures = serde_json::to_value(&result.figures).map_err(failed)?;
        policies.insert(result.kind.name().to_owned(), figures);
    }
    let summary = json!({
        "load": scenario.load.name(),
        "seconds": scenario.load.seconds(),
        "seeds": seeds,
        "noise": scenario.noise,
        "rate_per_broker": scenario.broker.rate,
        "start_time_seconds": scenario.start_seconds,
        "drain_time_seconds": scenario.drain_seconds,
        "objective_seconds": scenario.objective,
        "replicas": scenario.replicas,
        "policies": policies,
    });
    serde_json::to_string_pretty(&summary)
        .map(|text| text + "\n")
        .map_err(failed)
}

fn decisions(results: &[PolicyResult]) -> String {
    let mut text = "policy,seed,second,from,to,reason,message\n".to_owned();
    for result in results {
        for (seed, acts) in result.acts.iter().enumerate() {
            for act in acts {
                let _ = writeln!(
                    text,
                    "{},{seed},{},{},{},{},\"{}\"",
                    result.kind.name(),
                    act.second,
                    act.from,
                    act.to,
                    act.reason,
                    act.message.replace('"', "\"\"")
                );
            }
        }
    }
    text
}

fn timeline(results: &[PolicyResult]) -> String {
    let mut text =
        "policy,second,offered_per_second,supply_per_second,demand_per_second,desired,ready,existing,\
                    ideal,channel_capacity,backlog,delay_seconds\n"
            .to_owned();
    for result in results {
        for (second, moment) in result.timeline.iter().enumerate() {
            let demand = moment
                .demand
                .map_or(String::new(), |demand| format!("{demand:.0}"));
            let _ = writeln!(
                text,
                "{},{second},{:.0},{:.0},{demand},{},{},{},{},{},{:.0},{:.3}",
                result.kind.name(),
                moment.offered,
                moment.supply,
                moment.desired,
                moment.ready,
                moment.existing,
                moment.ideal,
                moment.channel_capacity,
                moment.backlog,
                moment.delay,
            );
        }
    }
    text
}
