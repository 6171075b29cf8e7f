//! A broker's start, stop and death; what it leaves behind.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

#[path = "support/broker.rs"]
mod broker;
#[path = "support/ports.rs"]
mod ports;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker::{Publisher, Subscriber, TestBroker, Wanted, connect, one_broker, payload};
use sluice::pb;
use sluice::pb::broker_client::BrokerClient;
use sluice::pb::publish_response::Response;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test]
async fn a_graceful_stop_loses_nothing_that_was_acknowledged_and_says_that_it_stops() {
    let mut broker = one_broker(2, &[]).await;
    let directory = broker.directory.clone();
    let mut publisher = Publisher::orders(&broker).await;
    publisher.send((1..=100).map(|sequence| payload(sequence, b"hello")).collect());
    broker.shutdown.cancel();
    let mut acked = 0;
    let mut was_told = false;
    while let Ok(Some(response)) = publisher.next().await {
        match response {
            Response::Ack(ack) => acked = ack.sequence,
            Response::GoAway(_) => was_told = true,
            _ => {}
        }
    }
    assert!(was_told);
    broker.stop().await;
    let again = TestBroker::start_in("orders-0", directory, &[]).await;
    let mut wanted = Wanted::spread(&[&again], 2);
    wanted.configuration.generation = 7;
    wanted.apply(&[&again]).await;
    if acked > 0 {
        let mut subscriber = Subscriber::orders(&again, "all").await;
        subscriber.credit(1000);
        let found = subscriber.take(usize::try_from(acked).unwrap()).await;
        let mut sequences: Vec<u64> = found.iter().map(|one| one.sequence).collect();
        sequences.sort_unstable();
        assert_eq!(
            sequences[..usize::try_from(acked).unwrap()],
            (1..=acked).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn idle_connections_and_watches_do_not_hold_up_a_stop() {
    let mut broker = one_broker(1, &["--shutdown-grace", "20s"]).await;
    let _idle = broker.channel().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(broker.channel().await);
    let request = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let request = pb::WatchPressureRequest { interval: None };
    let mut reports = broker
        .operator()
        .await
        .watch_pressure(request)
        .await
        .unwrap()
        .into_inner();
    reports.message().await.unwrap().unwrap();
    let mut subscriber = Subscriber::orders(&broker, "all").await;
    let began = std::time::Instant::now();
    broker.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    loop {
        match subscriber.next().await {
            Ok(Some(sluice::pb::subscribe_response::Response::GoAway(_))) => break,
            Ok(Some(_)) => {}
            other => panic!("no GoAway but {other:?}"),
        }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn standalone(directory: &std::path::Path, port: u16) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args([
            "broker",
            "--standalone",
            "--name",
            "orders-0",
            "--topic",
            "orders:4",
        ])
        .args([
            "--listen",
            &listen,
            "--control-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(directory)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_nine() {
    let directory = tempfile::tempdir().unwrap();
    let port = ports::free_address().unwrap().port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut acked = Vec::new();
    for round in 0..3 {
        let process = standalone(directory.path(), port);
        let mut client = BrokerClient::new(connect(address).await);
        let open = pb::PublishOpen {
            topic: "orders".to_owned(),
            ..pb::PublishOpen::default()
        };
        let mut publisher = Publisher::open_on(&mut client, open).await.unwrap();
        for sequence in 1..=100 {
            publisher.send(vec![payload(round * 1000 + sequence, b"hello")]);
        }
        // Killed in the middle: what was acknowledged until then counts.
        let mut count = 0;
        while count < 30 {
            if let Some(Response::Ack(ack)) = publisher.next().await.unwrap() {
                count = ack.payloads;
            }
        }
        drop(process);
        acked.extend((1..=count).map(|sequence| round * 1000 + sequence));
    }
    let _process = standalone(directory.path(), port);
    let mut client = BrokerClient::new(connect(address).await);
    let open = pb::SubscribeOpen {
        topic: "orders".to_owned(),
        group: "all".to_owned(),
        ..pb::SubscribeOpen::default()
    };
    let requests = vec![
        pb::SubscribeRequest {
            request: Some(pb::subscribe_request::Request::Open(open)),
        },
        pb::SubscribeRequest {
            request: Some(pb::subscribe_request::Request::Credit(pb::ConsumerCredit {
                messages: 1000,
                bytes: 1 << 20,
            })),
        },
    ];
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let mut responses = client.subscribe(requests).await.unwrap().into_inner();
    let mut found = std::collections::BTreeSet::new();
    while !acked.iter().all(|sequence| found.contains(sequence)) {
        let response = tokio::time::timeout(Duration::from_secs(10), responses.message()).await;
        let Ok(Ok(Some(response))) = response else {
            panic!("{} found: {found:?}", found.len())
        };
        if let Some(pb::subscribe_response::Response::Deliveries(batch)) = response.response {
            found.extend(batch.deliveries.iter().map(|one| one.sequence));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_cut_at_any_point_leave_nothing_behind() {
    let broker = one_broker(2, &[]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    broker.pressure().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let tasks_before = tasks();
    for round in 0..60u64 {
        let mut publisher = Publisher::orders(&broker).await;
        let subscriber = Subscriber::orders(&broker, "all").await;
        for step in 0..round % 6 {
            match step {
                0 => publisher.send((1..=8).map(|sequence| payload(sequence, &[1; 64])).collect()),
                1 => subscriber.credit(round % 5),
                2 => drop(publisher.next().await),
                3 => subscriber.settle(pb::Settle {
                    ack: vec![bytes::Bytes::from_static(b"no token")],
                    ..pb::Settle::default()
                }),
                _ => publisher.send(vec![payload(100, &[1; 64])]),
            }
        }
        if round % 2 == 0 {
            drop(publisher);
            drop(subscriber);
        } else {
            drop(subscriber);
            drop(publisher);
        }
    }
    broker
        .pressure_becomes("everything is given back", |report| {
            // This very watch is on a connection.
            report.streams == 0
                && report.connections == 1
                && report.publish_streams == 0
                && report.channel_messages == 0
                && report.channel_bytes == 0
        })
        .await;
    let (_, metrics) = broker.page("/metrics").await;
    assert!(metrics.contains("sluice_broker_inflight_bytes 0\n"), "{metrics}");
    let gone = async {
        while tasks() > tasks_before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(5), gone).await;
    assert!(
        in_time.is_ok(),
        "{} tasks before, {} after",
        tasks_before,
        tasks()
    );
}

#[tokio::test]
async fn reflection_lists_the_services_and_health_answers_on_both_ports() {
    let broker = one_broker(1, &[]).await;
    let mut reflection = ServerReflectionClient::new(broker.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"sluice.v1.Broker".to_owned()), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    for address in [broker.data, broker.control] {
        let mut health = tonic_health::pb::health_client::HealthClient::new(connect(address).await);
        let request = tonic_health::pb::HealthCheckRequest {
            service: String::new(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(
            status,
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );
    }
}

#[tokio::test]
async fn a_configuration_for_another_broker_or_an_older_one_is_refused() {
    let broker = one_broker(1, &[]).await;
    let wanted = Wanted::spread(&[&broker], 1).configuration;
    let other = pb::Configuration {
        broker: "orders-9".to_owned(),
        generation: 9,
        ..wanted.clone()
    };
    assert!(broker.operator().await.configure(other).await.is_err());
    let older = pb::Configuration {
        broker: "orders-0".to_owned(),
        generation: 1,
        ..wanted
    };
    assert!(broker.operator().await.configure(older).await.is_err());
}

#[tokio::test]
async fn more_connections_than_the_limit_are_refused_and_counted() {
    let broker = one_broker(1, &["--max-connections", "2"]).await;
    let _first = broker.channel().await;
    let second = broker.channel().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", broker.data)).unwrap();
    let mut third = BrokerClient::new(endpoint.connect_lazy());
    let send = pb::SendRequest {
        topic: "orders".to_owned(),
        payloads: vec![payload(1, b"x")],
        ..pb::SendRequest::default()
    };
    assert!(third.send(send.clone()).await.is_err());
    BrokerClient::new(second).send(send).await.unwrap();
    let (_, metrics) = broker.page("/metrics").await;
    let line = metrics
        .lines()
        .find(|line| line.contains("reason=\"limit\""))
        .unwrap();
    assert!(!line.ends_with(" 0"), "{line}");
}
