//! What a message costs the broker in instructions and allocations: figures that hardly vary, so that a change can be
//! compared with them. Two loads of different length under valgrind; the difference is the messages'.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::process::Command;

use super::Bench;
use crate::ports;
use crate::process::Server;
use crate::report::{Section, Table, spread};

#[derive(Debug, Serialize)]
struct Cost {
    batch: u32,
    instructions: f64,
    allocations: f64,
    allocated_bytes: f64,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Section> {
    let mut costs = Vec::new();
    for batch in [1, 512] {
        let (few, many) = if batch == 1 { (500, 2500) } else { (10_000, 60_000) };
        let messages = f64::from(many - few);
        let instructions = [
            callgrind(bench, batch, few).await?,
            callgrind(bench, batch, many).await?,
        ];
        let heap = [heap(bench, batch, few).await?, heap(bench, batch, many).await?];
        costs.push(Cost {
            batch,
            instructions: (instructions[1] - instructions[0]) / messages,
            allocations: (heap[1].0 - heap[0].0) / messages,
            allocated_bytes: (heap[1].1 - heap[0].1) / messages,
        });
    }
    let mut table = Table::new(&[
        "messages of a batch",
        "instructions a message",
        "allocations a message",
        "bytes allocated a message",
    ]);
    for cost in &costs {
        table.row(&[
            cost.batch.to_string(),
            spread([cost.instructions]),
            spread([cost.allocations]),
            spread([cost.allocated_bytes]),
        ]);
    }
    let text = format!(
        "### What a message costs the broker\n\nDurable, 256 B, one publisher, 16 partitions, in user mode (callgrind, memcheck's count of the heap); \
         the difference of two loads, divided by the difference of their messages.\n\n{}",
        table.text()
    );
    Section::new(text).figures(&costs)
}

async fn callgrind(bench: &Bench, batch: u32, messages: u32) -> anyhow::Result<f64> {
    let log = run(
        bench,
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
        batch,
        messages,
    )
    .await?;
    // `==1== Collected : 123456`
    let line = log.lines().find_map(|line| line.split_once("Collected :"));
    Ok(line
        .context("callgrind counted nothing")?
        .1
        .trim()
        .replace(',', "")
        .parse()?)
}

async fn heap(bench: &Bench, batch: u32, messages: u32) -> anyhow::Result<(f64, f64)> {
    let tool = ["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"];
    let log = run(bench, &tool, batch, messages).await?;
    // `==1==   total heap usage: 1,234 allocs, 1,200 frees, 56,789 bytes allocated`
    let line = log.lines().find_map(|line| line.split_once("total heap usage:"));
    let figures: Vec<f64> = line
        .with_context(|| format!("memcheck counted nothing:\n{log}"))?
        .1
        .split(", ")
        .filter_map(|part| part.split_whitespace().next()?.replace(',', "").parse().ok())
        .collect();
    match figures[..] {
        [allocations, _, bytes] => Ok((allocations, bytes)),
        _ => anyhow::bail!("memcheck's count reads differently: {line:?}"),
    }
}

/// A broker under valgrind, a load, and its end; what valgrind said.
async fn run(bench: &Bench, tool: &[&str], batch: u32, messages: u32) -> anyhow::Result<String> {
    let folder = bench.folder()?;
    let log = folder.path().join("log");
    let (address, control, http) = (
        ports::free_address()?,
        ports::free_address()?,
        ports::free_address()?,
    );
    let mut command = Command::new("valgrind");
    command
        .args(tool)
        .arg(&bench.programs.sluice)
        .args([
            "broker",
            "--standalone",
            "--channel-capacity=32768",
            "--topic=bench:16",
            "--threads=2",
        ])
        .arg(format!("--listen={address}"))
        .arg(format!("--control-listen={control}"))
        .arg(format!("--http-listen={http}"))
        .arg("--data-dir")
        .arg(folder.path().join("data"));
    let mut server = Server::start("valgrind", &mut command, &log)?;
    server.ready(address).await?;
    let arguments = [
        "--mode=publish".to_owned(),
        "--rate=0".to_owned(),
        "--duration=60s".to_owned(),
        format!("--messages={messages}"),
        format!("--batch={batch}"),
        format!("--window={}", batch * 4),
    ];
    let limit = Duration::from_secs(120);
    let summary = crate::peers::sluice::bench(&bench.programs, address, &arguments, limit).await?;
    anyhow::ensure!(
        summary.acknowledged == u64::from(messages),
        "only {} of {messages} messages were acknowledged",
        summary.acknowledged
    );
    server.terminate(Duration::from_secs(60)).await?;
    Ok(std::fs::read_to_string(&log)?)
}
