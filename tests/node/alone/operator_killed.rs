//! The operator dies after each of its writes, and finishes all the same.
//!
//! It runs outside the cluster here, with `--exit-after`: it makes one write to the Kubernetes API (or seals, copies or
//! drops one entry) and is gone, as by kill -9, before it could make anything of the answer. Then it is started again.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::Cluster;
use crate::sandbox::Sandbox;
use crate::{assert_exactly_once, small};

/// Lets the operator die after every write until `done`, every third life after a seal, copy or drop as well; the
/// number of its lives. (Not every life: one that dies after each seal would never get to the write that follows.)
async fn one_write_a_life<F, Fut>(sandbox: &Sandbox, what: &str, done: F) -> usize
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    let mut lives = 0;
    while !done().await {
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "{what}: not done after {lives} lives"
        );
        let fault = if lives % 3 == 2 {
            "Write,Seal,Copy,Drop"
        } else {
            "Write"
        };
        let mut operator =
            sandbox
                .cluster
                .operator_outside(&["--exit-after", fault, "--lease-duration", "3"]);
        let mut waited = Duration::ZERO;
        // A life that has nothing to write, but something to wait for, ends when that is there.
        while operator.try_wait().expect("its state").is_none()
            && !(done().await)
            && waited < Duration::from_secs(15)
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
            waited += Duration::from_millis(100);
        }
        operator.kill().expect("killing it");
        operator.wait().expect("its end");
        lives += 1;
    }
    println!(
        "{what}: {lives} lives of the operator, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    lives
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_every_single_write_finishes_a_scale_up_and_a_scale_down() {
    let sandbox = Cluster::alone().await.sandbox("operator-killed").await;
    let image = sandbox.cluster.image.clone();
    let spec = |replicas| {
        let mut spec = small(replicas, &image);
        spec["autoscaling"] = json!({"drain": {"settle": "1s"}});
        spec
    };
    sandbox.apply_broker("orders", &spec(1)).await;
    sandbox.apply_topic("events", "orders", 4).await;
    sandbox.ready("orders", 1).await;
    sandbox.assigned("events").await;
    sandbox.cluster.kubectl(&[
        "--namespace",
        "sluice-system",
        "scale",
        "deployment",
        "sluice",
        "--replicas=0",
    ]);
    let address = "orders.operator-killed:7400";
    let load = [
        "bench",
        "--address",
        address,
        "--topic",
        "events",
        "--rate",
        "200",
        "--duration",
        "600s",
    ];
    let more = [
        "--producer-id",
        "killed",
        "--drain-timeout",
        "120s",
        "--output",
        "json",
    ];
    let job = sandbox.start("load", &[&load[..], &more[..]].concat()).await;

    sandbox.apply_broker("orders", &spec(3)).await;
    let spread = || async {
        let status = sandbox.broker("orders").await.status.unwrap_or_default();
        status.ready_replicas == 3 && sandbox.led("events").await.len() == 3
    };
    let up = one_write_a_life(&sandbox, "scale-up", spread).await;
    sandbox.apply_broker("orders", &spec(1)).await;
    let alone = || async {
        let replicas = sandbox.stateful_set_replicas("orders").await;
        replicas == 1
            && sandbox.led("events").await.keys().eq(["orders-0"])
            && sandbox.claims().await.len() == 1
    };
    let down = one_write_a_life(&sandbox, "scale-down", alone).await;
    assert!(
        up > 3 && down > 3,
        "it died {up} and {down} times: the writes were not counted"
    );

    sandbox.cluster.install_operator(&[]);
    sandbox.ready("orders", 1).await;
    job.finish().await;
    assert_exactly_once(&job.summary(Duration::from_secs(180)).await);
    sandbox.remove().await;
}

impl Cluster {
    /// Starts the operator as a process of this machine, with access to the cluster and its pods.
    fn operator_outside(&self, more: &[&str]) -> std::process::Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/cluster/cluster");
        let run = [
            "run",
            "--name",
            self.name(),
            "--node",
            "node-1",
            "--",
            env!("CARGO_BIN_EXE_sluice"),
            "operator",
        ];
        let place = [
            ("POD_NAME", "outside"),
            ("POD_NAMESPACE", "sluice-system"),
            ("SLUICE_LEASE_NAME", "sluice"),
        ];
        Command::new(script)
            .args(run)
            .args(more)
            .envs(place)
            .envs([
                ("SLUICE_HTTP_LISTEN", "127.0.0.1:0"),
                ("SLUICE_BROKER_IMAGE", &self.image),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starting the operator")
    }
}
