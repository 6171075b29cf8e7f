//! A recording of real brokers' reports: what would the autoscaler have done?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::record::Line;
use crate::scaling::{Decision, Mode, Observed, ObservedBroker, Policy, Report, State, Time, decide};

/// How old a broker's last report may be for the broker to count as serving.
const SERVING: Duration = Duration::from_secs(5);

/// What came of a recording.
#[derive(Debug)]
pub(super) struct Replayed {
    /// Seconds from the first to the last report.
    pub(super) seconds: u64,
    /// The decisions that would have changed something, each when it was first made, by second.
    pub(super) proposals: Vec<(u64, Decision)>,
    /// Every second, as CSV.
    pub(super) timeline: String,
}

/// Reads a recording: the reports in the order of when they came.
///
/// # Errors
/// A line that is none of a recording's, or no line at all.
pub(super) fn read(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(text)
            .map_err(|error| format!("line {}: {error}; expected a line of sluice record", index + 1))?;
        lines.push(line);
    }
    if lines.is_empty() {
        return Err("no reports; expected a file that sluice record has written".to_owned());
    }
    lines.sort_by_key(|line| line.report.received);
    Ok(lines)
}

/// Decides once a second on what had come by then. The brokers are those that reported lately: the decisions were not
/// acted on, so each is made as if it were the first.
pub(super) fn replay(policy: &Policy, start_time: Duration, lines: &[Line]) -> Replayed {
    let mut policy = policy.clone();
    policy.autoscaling.mode = Mode::Recommend;
    let at = |line: Option<&Line>| line.map_or(Time::default(), |line| line.report.received);
    let (first, last) = (at(lines.first()), at(lines.last()));
    let mut replayed = Replayed {
        seconds: last.since(first).as_secs() + 1,
        proposals: Vec::new(),
        timeline: "second,brokers,accepted_per_second,demand_per_second,capacity_per_broker,blocked_percent,\
                   proposed,reason\n"
            .to_owned(),
    };
    let mut state = State::new(first);
    let mut newest: BTreeMap<&str, Report> = BTreeMap::new();
    let mut coming = lines.iter().peekable();
    let mut proposed = None;
    for second in 0..replayed.seconds {
        let now = first + Duration::from_secs(second + 1);
        while let Some(line) = coming.next_if(|line| line.report.received <= now) {
            newest.insert(&line.broker, line.report);
        }
        let serves = |report: &Report| now.since(report.received) <= SERVING;
        newest.retain(|_, report| {
            now.since(report.received) <= policy.autoscaling.metrics_staleness.max(SERVING)
        });
        let brokers: Vec<ObservedBroker> = newest
            .iter()
            .map(|(name, report)| ObservedBroker {
                name: (*name).to_owned(),
                ready: serves(report),
                report: Some(*report),
                ..ObservedBroker::default()
            })
            .collect();
        let count = brokers.iter().filter(|broker| broker.ready).count() as u32;
        let observed = Observed {
            spec_replicas: count,
            current_replicas: count,
            brokers,
            start_time,
            ..Observed::default()
        };
        let decision = decide(&policy, &observed, &mut state, now);
        let inputs = &decision.inputs;
        let _ = writeln!(
            replayed.timeline,
            "{second},{count},{},{},{},{},{},{}",
            inputs.accepted_per_second,
            inputs.demand_per_second,
            inputs.capacity_per_broker.unwrap_or(0),
            inputs.blocked_percent,
            decision.proposed_replicas,
            decision.reason,
        );
        let wanted = (decision.from, decision.proposed_replicas);
        if wanted.0 != wanted.1 && proposed != Some(wanted) {
            replayed.proposals.push((second, decision));
        }
        proposed = Some(wanted);
    }
    replayed
}

/// The decisions as CSV.
pub(super) fn decisions(replayed: &Replayed) -> String {
    let mut text = "second,from,to,reason,message\n".to_owned();
    for (second, decision) in &replayed.proposals {
        let _ = writeln!(
            text,
            "{second},{},{},{},\"{}\"",
            decision.from,
            decision.proposed_replicas,
            decision.reason,
            decision.to_string().replace('"', "\"\"")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::spec::default_policy;
    use crate::scaling::simulation::{BrokerModel, Builtin, Cluster, Load};

    /// A recording of two brokers under a five-fold step.
    fn recorded() -> String {
        let load = Load::Builtin(Builtin::Step, 1_000.0);
        let mut cluster = Cluster::new(BrokerModel::new(1_000.0), 2);
        let mut text = String::new();
        for second in 0..330 {
            cluster.serve(|at| load.at(at), &load.event(f64::from(second)));
            for broker in cluster.observed().brokers {
                let line = Line {
                    broker: broker.name,
                    report: broker.report.unwrap(),
                };
                text.push_str(&serde_json::to_string(&line).unwrap());
                text.push('\n');
            }
        }
        text
    }

    #[test]
    fn a_recording_of_a_step_tells_what_would_have_been_decided() {
        let lines = read(&recorded()).unwrap();
        assert_eq!(lines.len(), 660);
        let replayed = replay(&default_policy(), Duration::from_secs(15), &lines);
        assert_eq!(replayed.seconds, 330);
        let (second, decision) = &replayed.proposals[0];
        assert!((300..=304).contains(second), "{second} {decision}");
        assert_eq!((decision.from, decision.proposed_replicas), (2, 10), "{decision}");
        assert_eq!(replayed.timeline.lines().count(), 331);
        assert!(decisions(&replayed).lines().nth(1).unwrap().contains("Saturated"));
    }

    #[test]
    fn what_is_no_recording_is_refused_with_the_line() {
        let mut text = recorded();
        text.push_str("{}\n");
        assert!(
            read(&text)
                .unwrap_err()
                .starts_with("line 661: missing field `broker`")
        );
        assert!(read("\n").unwrap_err().starts_with("no reports"));
    }
}
