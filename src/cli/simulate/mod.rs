//! `sluice simulate`: what the autoscaler would do with a load, before the fact, and what the usual formulas would.

mod arguments;
mod canvas;
mod chart;
mod png;
mod recording;
mod report;
mod spec;
mod svg;
mod table;
mod work;

use std::path::Path;

pub use arguments::Arguments;
use arguments::CpuByArgument;

use super::Failure;
use crate::scaling::Policy;
use crate::scaling::simulation::{BrokerModel, Load, Scenario, Trace};

/// Simulates, writes the files and prints the table.
///
/// # Errors
/// The arguments, the trace or the spec make no sense, or a file cannot be read or written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(path) = &arguments.recording {
        return run_recording(arguments, path);
    }
    let policies = arguments.policies();
    let loads = loads(arguments)?;
    let several = loads.len() > 1;
    for load in loads {
        let scenario = scenario(arguments, load)?;
        let results = work::run_all(&scenario, &policies, arguments.seeds);
        let directory = if several {
            arguments.out.join(scenario.load.name())
        } else {
            arguments.out.clone()
        };
        report::write(&directory, &scenario, arguments.seeds, &results)?;
        print!("{}", table::table(&scenario, arguments.seeds, &results));
        println!("written to {}", directory.display());
    }
    Ok(())
}

/// What the autoscaler would have done with what was recorded.
fn run_recording(arguments: &Arguments, path: &Path) -> Result<(), Failure> {
    let (policy, _) = policy(arguments)?;
    let lines = recording::read(&read(path)?)
        .map_err(|error| Failure::Usage(format!("--recording {}: {error}", path.display())))?;
    let replayed = recording::replay(&policy, arguments.start_time, &lines);
    let out = &arguments.out;
    std::fs::create_dir_all(out).map_err(|error| Failure::of(&format!("making {}", out.display()), error))?;
    write(&out.join("decisions.csv"), recording::decisions(&replayed))?;
    write(&out.join("timeline.csv"), &replayed.timeline)?;
    println!("{} reports over {} s", lines.len(), replayed.seconds);
    for (second, decision) in &replayed.proposals {
        println!("{second:>6} s  {decision}");
    }
    if replayed.proposals.is_empty() {
        println!("nothing would have been changed");
    }
    println!("written to {}", out.display());
    Ok(())
}

/// The policy of `--spec` with its `spec.replicas`, or the defaults.
fn policy(arguments: &Arguments) -> Result<(Policy, Option<u32>), Failure> {
    let Some(path) = &arguments.spec else {
        return Ok((spec::default_policy(), None));
    };
    let (policy, replicas) = spec::read(&read(path)?)
        .map_err(|error| Failure::Usage(format!("--spec {}: {error}", path.display())))?;
    Ok((policy, Some(replicas)))
}

fn loads(arguments: &Arguments) -> Result<Vec<Load>, Failure> {
    let Some(path) = &arguments.trace else {
        let loads = arguments.loads().into_iter();
        return Ok(loads
            .map(|load| Load::Builtin(load, arguments.rate_per_broker))
            .collect());
    };
    let text = read(path)?;
    let trace = Trace::parse(&text)
        .map_err(|error| Failure::Usage(format!("--trace {}: {error}", path.display())))?;
    Ok(vec![Load::Trace(trace)])
}

fn scenario(arguments: &Arguments, load: Load) -> Result<Scenario, Failure> {
    let (policy, spec_replicas) = policy(arguments)?;
    let broker = BrokerModel {
        publishers: arguments.publishers.model(),
        ..BrokerModel::new(arguments.rate_per_broker)
    };
    let broker = match arguments.cpu_by {
        CpuByArgument::Messages => broker,
        CpuByArgument::Requests => broker.by_requests(policy.channel.capacity),
    };
    let mut scenario = Scenario {
        load,
        policy,
        broker,
        replicas: 1,
        start_seconds: arguments.start_time.as_secs_f64(),
        drain_seconds: arguments.drain_time.as_secs_f64(),
        objective: arguments.objective.as_secs_f64(),
        noise: arguments.noise,
    };
    let wanted = arguments.replicas.or(spec_replicas);
    scenario.replicas = match wanted {
        Some(replicas) => scenario.policy.autoscaling.within_bounds(replicas),
        None => scenario.ideal(scenario.load.at(0.0), 1.0),
    };
    Ok(scenario)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::of(&format!("reading {}", path.display()), error))
}

/// A file that is written, and what the system says if it cannot be.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(|error| Failure::of(&format!("writing {}", path.display()), error))
}
