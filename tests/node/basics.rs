//! A cluster of brokers comes up and carries messages, for our client and for any other.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, eventually};
use crate::{assert_exactly_once, small};

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_become_ready_and_carry_messages_by_service_name() {
    let sandbox = Cluster::shared().await.sandbox("basics").await;
    let start = Instant::now();
    sandbox
        .apply_broker("orders", &small(3, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 3).await;
    println!(
        "apply to three brokers Ready: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    sandbox.apply_topic("events", "orders", 12).await;
    sandbox.assigned("events").await;
    let led = sandbox.led("events").await;
    assert_eq!(led.values().copied().collect::<Vec<_>>(), [4, 4, 4], "{led:?}");

    let load = [
        "bench",
        "--address",
        "orders.basics:7400",
        "--topic",
        "events",
        "--rate",
        "500",
        "--duration",
        "10s",
    ];
    let more = [
        "--publishers",
        "3",
        "--subscribers",
        "2",
        "--producer-id",
        "basics",
        "--output",
        "json",
    ];
    let job = sandbox.start("load", &[&load[..], &more[..]].concat()).await;
    let summary = job.summary(Duration::from_secs(60)).await;
    assert_exactly_once(&summary);
    assert_eq!(summary["acknowledged"], summary["delivered"], "{summary}");
    sandbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_only_the_proto_files_and_one_address_publishes_and_subscribes() {
    let sandbox = Cluster::shared().await.sandbox("plain-grpc").await;
    sandbox
        .apply_broker("orders", &small(3, &sandbox.cluster.image))
        .await;
    sandbox.ready("orders", 3).await;
    sandbox.apply_topic("events", "orders", 6).await;
    sandbox.assigned("events").await;

    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let grpcurl = format!("grpcurl -import-path {protos} -proto sluice/v1/broker.proto -plaintext -max-time");
    // One message to each of the partitions, whoever of the three brokers leads it. A broker that does not know the
    // others yet answers UNAVAILABLE, which says: try again.
    for partition in 0..6 {
        let data =
            format!(r#"{{"topic":"events","payloads":[{{"body":"aGVsbG8=","partition":{partition}}}]}}"#);
        let send =
            format!("{grpcurl} 10 -d '{data}' orders.plain-grpc:7400 sluice.v1.Broker/Send 2>&1 || true");
        eventually(
            Duration::from_secs(20),
            &format!("partition {partition} to take a message"),
            || async {
                let answer = sandbox.cluster.inside("node-1", &["bash", "-c", &send]);
                assert!(
                    answer.contains("DURABILITY_FSYNC") || answer.contains("Unavailable"),
                    "{answer}"
                );
                answer.contains("DURABILITY_FSYNC").then_some(())
            },
        )
        .await;
    }
    // A subscription ends with its requests, so they are kept open for some seconds; where that was too short, another
    // group starts again at the beginning.
    let mut attempt = 0;
    eventually(
        Duration::from_secs(90),
        "every message to be delivered",
        || {
            attempt += 1;
            let open = format!(r#"{{"open":{{"topic":"events","group":"plain-{attempt}","start":{{"earliest":true}}}}}}"#);
            let credit = r#"{"credit":{"messages":"100","bytes":"1000000"}}"#;
            let command = format!(
                "(echo '{open} {credit}'; sleep 5) | {grpcurl} 20 -d @ orders.plain-grpc:7400 sluice.v1.Broker/Subscribe 2>&1 || true"
            );
            let output = sandbox.cluster.inside("node-1", &["bash", "-c", &command]);
            async move {
                let delivered = output.matches("aGVsbG8=").count();
                assert!(delivered <= 6, "{output}");
                println!("{output}");
                (delivered == 6).then_some(())
            }
        },
    )
    .await;
    sandbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_everything_in_it_ends() {
    let sandbox = Cluster::shared().await.sandbox("leaving").await;
    sandbox
        .apply_broker("orders", &small(2, &sandbox.cluster.image))
        .await;
    sandbox.apply_topic("events", "orders", 4).await;
    sandbox.ready("orders", 2).await;
    sandbox.assigned("events").await;
    // Panics when it is not gone in 90 seconds.
    sandbox.remove().await;
}
