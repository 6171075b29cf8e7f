//! What the command line says, and what it ends with.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

mod client_support;

use std::process::{Output, Stdio};
use std::time::Duration;

use client_support::{Cluster, TOPIC};
use tokio::io::AsyncWriteExt as _;

async fn sluice(arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .env_remove("SLUICE_LOG")
        .env("COLUMNS", "110")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .await
        .unwrap();
    let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn help_teaches_each_command_with_examples() {
    for command in ["pub", "sub", "bench", "simulate", "record"] {
        let (code, stdout, _) = sluice(&[command, "--help"], "").await;
        assert_eq!(code, 0);
        assert!(
            stdout.contains("Examples:") && stdout.contains("Exit codes:"),
            "{stdout}"
        );
        insta::assert_snapshot!(format!("help_{command}"), stdout);
    }
}

#[tokio::test]
async fn every_flag_of_these_commands_has_an_environment_variable() {
    use clap::CommandFactory as _;
    let command = sluice::cli::Cli::command();
    for name in ["pub", "sub", "bench", "simulate", "record"] {
        for argument in command.find_subcommand(name).unwrap().get_arguments() {
            if argument.is_positional() || argument.get_id() == "help" {
                continue;
            }
            let variable = argument
                .get_env()
                .map(|variable| variable.to_string_lossy().into_owned());
            assert!(
                variable.is_some_and(|v| v.starts_with("SLUICE_")),
                "{name} {}",
                argument.get_id()
            );
        }
    }
}

#[test]
fn called_as_a_kubectl_plugin_it_says_so() {
    let arguments = ["/usr/bin/kubectl-sluice", "pub", "--help"].map(Into::into);
    let help = sluice::cli::Cli::read(arguments).unwrap_err().to_string();
    assert!(help.contains("Usage: kubectl sluice pub"), "{help}");
}

#[tokio::test]
async fn arguments_that_make_no_sense_end_with_2() {
    for arguments in [
        &["pub"][..],
        &["sub", "--topic", "t", "--group", "g", "--from", "yesterday"],
        &["bench", "--topic", "t", "--size", "10"],
        &["bench", "--topic", "t", "--schedule", "10"],
        &["bench", "--topic", "t", "--duration", "0s"],
        &["nothing"],
    ] {
        let (code, _, stderr) = sluice(arguments, "").await;
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

#[tokio::test]
async fn a_broker_that_does_not_answer_ends_with_1_and_is_named() {
    let address = ["--address", "127.0.0.1:1", "--connect-timeout", "300ms"];
    let (code, _, stderr) = sluice(&[&["pub", "--topic", "t", "x"], &address[..]].concat(), "").await;
    assert_eq!(code, 1);
    assert!(
        stderr.contains("no broker answered") && stderr.contains("127.0.0.1:1"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pub_publishes_sub_prints() {
    let cluster = Cluster::start(2, 4).await;
    let to = ["--topic", TOPIC, "--address", &cluster.addresses()[0]].map(str::to_owned);
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let (code, stdout, stderr) =
        sluice(&[&["pub", "--key", "k"], &to[..]].concat(), "one\r\ntwo\n\nlast").await;
    assert_eq!((code, stdout.lines().count()), (0, 4), "{stderr}");
    let (code, stdout, _) = sluice(&[&["pub", "--output", "json"], &to[..], &["a", "b"]].concat(), "").await;
    assert_eq!((code, stdout.lines().count()), (0, 2));
    assert!(stdout.contains(r#""durability":"Memory""#), "{stdout}");

    let sub = [&["sub", "--group", "g", "--timeout", "5s"], &to[..]].concat();
    let (code, stdout, stderr) = sluice(&[&sub[..], &["--max", "6"]].concat(), "").await;
    let mut lines: Vec<&str> = stdout.lines().collect();
    let of_key: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !["a", "b"].contains(line))
        .collect();
    assert_eq!((code, of_key), (0, vec!["one", "two", "", "last"]), "{stderr}");
    lines.sort_unstable();
    assert_eq!(lines, ["", "a", "b", "last", "one", "two"]);

    let none = [&["sub", "--group", "g", "--timeout", "300ms"], &to[..]].concat();
    assert_eq!(sluice(&none, "").await.0, 0);
    let (code, _, stderr) = sluice(&[&none[..], &["--max", "1"]].concat(), "").await;
    assert_eq!(code, 1);
    assert!(stderr.contains("0 of 1 messages"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_ends_with_1_and_the_others_are_published() {
    let cluster = Cluster::start(1, 1).await;
    cluster.set(|faults| faults.reject = Some("bad".into()));
    let to = ["pub", "--topic", TOPIC, "--address", &cluster.addresses()[0]].map(str::to_owned);
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let (code, stdout, stderr) = sluice(&[&to[..], &["one", "bad", "two"]].concat(), "").await;
    assert_eq!((code, stdout.lines().count(), cluster.stored()), (1, 2, 2));
    assert!(
        stderr.contains("this body is bad") && stderr.contains("1 of 3 messages"),
        "{stderr}"
    );
}
