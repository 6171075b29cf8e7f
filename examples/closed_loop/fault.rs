//! Makes things go wrong, on the node that all of it runs on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams};

use crate::scenario::Fault;
use crate::stage::{BROKER, Stage};

/// Does it, and takes it back after its time.
pub(crate) async fn happen(stage: &Stage, fault: Fault) -> Result<()> {
    match fault {
        Fault::ConsumersStop => {
            stage.pods().delete("consumers", &at_once()).await?;
        }
        Fault::BrokerKilled => run("kill", &["-KILL", &broker(stage).await?.to_string()])?,
        Fault::BrokerSlowed => {
            let pid = broker(stage).await?.to_string();
            for _ in 0..150 {
                run("kill", &["-STOP", &pid])?;
                tokio::time::sleep(Duration::from_millis(150)).await;
                run("kill", &["-CONT", &pid])?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Fault::OperatorKilled(_) => {
            let pods: Api<Pod> = Api::namespaced(stage.client.clone(), "sluice-system");
            let named = ListParams::default().labels("app.kubernetes.io/name=sluice-operator");
            let found = pods.list(&named).await?.items;
            ensure!(
                !found.is_empty(),
                "no pod of the operator was found in sluice-system"
            );
            for pod in found {
                pods.delete(&pod.name_any(), &at_once()).await?;
            }
        }
        Fault::MetricsCut => {
            let pid = broker(stage).await?.to_string();
            let port = sluice::api::names::CONTROL_PORT;
            let rules = format!(
                "add table inet cut; add chain inet cut in {{ type filter hook input priority 0; }}; \
                 add rule inet cut in tcp dport {port} reject with tcp reset"
            );
            run("nsenter", &["--target", &pid, "--net", "nft", &rules])?;
            tokio::time::sleep(Duration::from_secs(20)).await;
            run(
                "nsenter",
                &["--target", &pid, "--net", "nft", "delete table inet cut"],
            )?;
        }
    }
    Ok(())
}

fn at_once() -> DeleteParams {
    DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    ensure!(status.success(), "{program} {arguments:?} failed: {status}");
    Ok(())
}

/// The process of the first broker on this machine, by its pod's uid, which no other cluster has.
async fn broker(stage: &Stage) -> Result<u32> {
    let pod = stage.pods().get(&format!("{BROKER}-0")).await?;
    let uid = pod.uid().context("the pod has no uid")?;
    let is_its = |pid: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("cgroup").contains(&uid) && read("cmdline").split('\0').any(|word| word == "broker")
    };
    let pids = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_its).with_context(|| {
        format!("no process of {BROKER}-0 is on this machine: the faults need a cluster built here")
    })
}
