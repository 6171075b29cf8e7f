//! docs/closed-loop.md, from all rows that there are.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::OBJECTIVE;
use crate::row::Row;
use crate::scenario::Scenario;

/// Writes it, in the order of the scenarios.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for scenario in Scenario::all(0.0) {
        let path = folder.join(format!("{}.json", scenario.name));
        if path.exists() {
            rows.push(serde_json::from_str(&std::fs::read_to_string(path)?)?);
        }
    }
    let text = text(&rows);
    println!("{text}");
    std::fs::write("docs/closed-loop.md", text)?;
    Ok(())
}

fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "# The closed loop on a real node, beside what the simulator says\n\n\
         Written by `dev/closed-loop.sh`. One node, brokers of 200m with a channel of 512 to begin with, from 1 to 4 of them, durability Fsync, six publishers in an open \
         loop; the objective is a publish p99 of {} ms. Each cell is *measured / predicted*: predicted is `sluice simulate` with the \
         same load, the rate of one broker and the start time that were measured. The simulator knows of no fault: in rows with one, \
         it shows what the load alone would have done.\n\n\
         | scenario | broker's messages/s | start s | actions | reversals | decision s | most brokers | s over objective | replica-seconds | load average |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        OBJECTIVE.as_millis()
    );
    let both = |measured: f64, predicted: f64| format!("{measured:.0} / {predicted:.1}");
    for row in rows {
        let (m, p) = (&row.measured, &row.predicted);
        let decision = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.1}"));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.1} | {} | {} | {} / {} | {} | {} | {} | {} |",
            row.name,
            row.rate_per_broker,
            row.start_seconds,
            both(m.actions, p.actions),
            both(m.reversals, p.reversals),
            decision(m.decision),
            decision(p.decision),
            both(m.most, p.most),
            both(m.over_objective, p.over_objective),
            both(m.replica_seconds, p.replica_seconds),
            row.load_average,
        );
    }
    text.push_str(
        "\n## How fast a rise is answered\n\nSeconds. Bars: patched 3 s after pressure is seen (counted here from the rise itself), the new \
         brokers' share 5 s after Ready, p99 under the objective 10 s after that.\n\n\
         | scenario | rise to patched | patched to Ready | Ready to even share | Ready to p99 under the objective |\n|---|---|---|---|---|\n",
    );
    let seconds = |value: Option<f64>| value.map_or("not seen".to_owned(), |value| format!("{value:.1}"));
    for row in rows.iter().filter(|row| row.answer.rise_to_patched.is_some()) {
        let a = &row.answer;
        let cells = [
            a.rise_to_patched,
            a.patched_to_ready,
            a.ready_to_share,
            a.ready_to_objective,
        ]
        .map(seconds);
        let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
    }
    text.push_str("\n## Messages, and why\n\n");
    for row in rows {
        let count = |value: Option<u64>| value.map_or("not checked".to_owned(), |value| value.to_string());
        let [acked, lost, duplicated, reordered] = row.messages.map(count);
        let _ = writeln!(
            text,
            "**{}**: {acked} acknowledged, lost {lost}, duplicated {duplicated}, reordered {reordered}.\n",
            row.name
        );
        for decision in &row.decisions {
            let _ = writeln!(text, "- {decision}");
        }
        text.push('\n');
    }
    text
}
