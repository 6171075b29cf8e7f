//! `sluice simulate` and `sluice record`, as they are typed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use std::path::Path;
use std::time::Duration;

use broker::one_broker;
use serde_json::Value;

/// Runs the executable; returns its exit code, stdout and stderr.
async fn sluice(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output)
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn file(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[tokio::test]
async fn a_trace_leaves_figures_decisions_seconds_and_a_plot() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("load.csv");
    std::fs::write(&trace, "second,messages_per_second\n0,1400\n120,7000\n300,7000\n").unwrap();
    let out = directory.path().join("out");
    let arguments = [
        "simulate",
        "--trace",
        trace.to_str().unwrap(),
        "--policy",
        "all",
        "--seeds",
        "2",
        "--out",
        out.to_str().unwrap(),
    ];
    let (code, stdout, stderr) = sluice(&arguments).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for policy in ["sluice", "hpa", "keda", "kaap", "ds2"] {
        assert!(stdout.lines().any(|line| line.starts_with(policy)), "{stdout}");
    }
    let summary: Value = serde_json::from_str(&file(&out, "summary.json")).unwrap();
    for policy in ["sluice", "hpa", "keda", "kaap", "ds2"] {
        for key in [
            "actions",
            "reversals",
            "first_decision_seconds",
            "max_replicas",
            "seconds_over_objective",
            "replica_seconds",
            "ideal_replica_seconds",
            "under_accuracy",
            "over_accuracy",
            "under_share",
            "over_share",
            "dropped",
        ] {
            let value = &summary["policies"][policy][key];
            let missing = value.is_null() && key != "first_decision_seconds";
            assert!(!missing, "{policy} {key} in {summary}");
        }
    }
    let first = summary["policies"]["sluice"]["first_decision_seconds"]
        .as_f64()
        .unwrap();
    assert!(first <= 5.0, "{first}");
    assert!(
        file(&out, "decisions.csv")
            .lines()
            .any(|line| line.starts_with("sluice,0,12") && line.contains(",2,10,Saturated,")),
        "{}",
        file(&out, "decisions.csv")
    );
    assert_eq!(file(&out, "timeline.csv").lines().count(), 1 + 5 * 301);
    assert!(file(&out, "plot.svg").starts_with("<svg ") && file(&out, "plot.svg").ends_with("</svg>\n"));
    let png = std::fs::read(out.join("plot.png")).unwrap();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
}

#[tokio::test]
async fn what_makes_no_sense_ends_with_2_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad");
    for (flag, content, error) in [
        (
            "--trace",
            "0,1\n1,x\n",
            "line 2: messages_per_second must be a number, found \"x\"",
        ),
        (
            "--spec",
            "kind: MessageBroker\napiVersion: sluice.dev/v1alpha1\nmetadata: {name: a}\nspec: {autoscaling: {maxReplica: 3}}\n",
            "spec.autoscaling.maxReplica is unknown",
        ),
        ("--recording", "{}\n", "line 1: missing field `broker`"),
    ] {
        std::fs::write(&bad, content).unwrap();
        let (code, _, stderr) = sluice(&["simulate", flag, bad.to_str().unwrap()]).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(flag) && stderr.contains(error), "{stderr}");
    }
}

#[tokio::test]
async fn what_a_broker_reports_is_recorded_and_replayed() {
    let broker = one_broker(2, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("recording.jsonl");
    let address = broker.control.to_string();
    let (code, stdout, stderr) = sluice(&[
        "record",
        "--brokers",
        &address,
        "--duration",
        "3s",
        "--interval",
        "200ms",
        "--out",
        recording.to_str().unwrap(),
    ])
    .await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("reports written to"), "{stdout}");
    let lines = file(directory.path(), "recording.jsonl");
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["broker"], broker.name.as_str());
    assert!(
        first["report"]["counters"]["uptime_nanos"].as_u64().unwrap() > 0,
        "{first}"
    );

    let out = directory.path().join("out");
    let (code, stdout, stderr) = sluice(&[
        "simulate",
        "--recording",
        recording.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ])
    .await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains(&format!("{} reports over", lines.lines().count())),
        "{stdout}"
    );
    assert!(file(&out, "timeline.csv").lines().count() > 1);
}

#[tokio::test]
async fn a_recording_of_nobody_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("recording.jsonl");
    let (code, _, stderr) = sluice(&[
        "record",
        "--brokers",
        "127.0.0.1:1",
        "--duration",
        "1s",
        "--out",
        recording.to_str().unwrap(),
    ])
    .await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("no broker of 127.0.0.1:1 reported anything"),
        "{stderr}"
    );
}
