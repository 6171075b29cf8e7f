//! A broker keeps to HTTP/2, as far as h2spec asks for it. Needs `SLUICE_H2SPEC`, the path of h2spec; `dev/test.sh http2`
//! builds it from `dev/h2spec`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;

use std::process::Stdio;

use broker::one_broker;
use tokio::process::Command;

/// What is asked of a server that this one is not, by section and name.
const NOT_ASKED: [(&str, &str); 6] = [
    // It wants a page with data, and a call that fails is answered with headers alone.
    (
        "generic/2",
        "Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    ),
    (
        "generic/2",
        "Sends a PRIORITY frame on half-closed (remote) stream",
    ),
    // It wants a header table after it was told that there is none (SETTINGS_HEADER_TABLE_SIZE is 0).
    ("generic/5", "Sends a dynamic table size update"),
    ("generic/5", "Sends multiple dynamic table size update"),
    (
        "http2/6.10",
        "Sends multiple CONTINUATION frames preceded by a HEADERS frame",
    ),
    // It wants calls that go on; these fail at once, so there are never too many.
    (
        "http2/5.1.2",
        "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    ),
];

/// A test case of the report: section, name, and whether it failed.
fn cases(report: &str) -> Vec<(String, String, bool)> {
    let mut cases: Vec<(String, String, bool)> = Vec::new();
    for line in report.lines().map(str::trim) {
        let attribute = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        if line.starts_with("<testcase") {
            let case = (
                attribute("package").unwrap(),
                attribute("classname").unwrap(),
                false,
            );
            cases.push(case);
        } else if line.starts_with("<failure") || line.starts_with("<error") {
            cases.last_mut().unwrap().2 = true;
        }
    }
    cases
}

#[tokio::test]
async fn a_broker_keeps_to_http_2_as_h2spec_reads_it() {
    let h2spec =
        std::env::var_os("SLUICE_H2SPEC").expect("SLUICE_H2SPEC is not set: run `dev/test.sh http2`");
    let broker = one_broker(1, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    // Some cases wait until nothing more comes: a second each.
    let status = Command::new(h2spec)
        .args([
            "--strict",
            "--timeout",
            "1",
            "--path",
            "/sluice.v1.Broker/Publish",
        ])
        .args(["--host", &broker.data.ip().to_string()])
        .args(["--port", &broker.data.port().to_string()])
        .arg("--junit-report")
        .arg(&report)
        .stdout(Stdio::null())
        .status()
        .await
        .unwrap();
    let cases = cases(&std::fs::read_to_string(&report).unwrap());
    assert!(cases.len() > 140, "{status}, {} cases", cases.len());
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, _, failed)| *failed)
        .map(|(section, name, _)| (section.as_str(), name.as_str()))
        .collect();
    for case in &failed {
        assert!(
            NOT_ASKED.contains(case),
            "{case:?} failed; all that failed: {failed:?}"
        );
    }
    for case in NOT_ASKED {
        let known = cases
            .iter()
            .any(|(section, name, _)| (section.as_str(), name.as_str()) == case);
        assert!(known, "h2spec has no case {case:?}");
    }
    println!("h2spec: {} cases, {} failed", cases.len(), failed.len());
}
