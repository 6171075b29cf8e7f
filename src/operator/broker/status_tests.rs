use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::super::build::tests::broker;
use super::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("valid"))
}

fn scale(replicas: u32) -> Scale {
    Scale {
        replicas,
        keep: replicas,
        leaving: None,
        drain: None,
        delete_claim: None,
        waiting: String::new(),
    }
}

fn members(ready: u32) -> Vec<Member> {
    (0..ready)
        .map(|ordinal| Member {
            name: format!("orders-{ordinal}"),
            ordinal,
            ready: true,
            ..Member::default()
        })
        .collect()
}

struct Case {
    broker: MessageBroker,
    scale: Scale,
    members: Vec<Member>,
    updated: Vec<String>,
    sync: Vec<Problem>,
    health: Vec<Problem>,
    conflict: Option<Problem>,
    facts: Facts,
    figures: Figures,
}

impl Case {
    fn new(ready: u32) -> Self {
        let members = members(ready);
        let mut facts = Facts {
            generation: 1,
            ..Facts::default()
        };
        for member in &members {
            let link = crate::operator::cluster::LinkFacts {
                connected: true,
                current: true,
                error: String::new(),
            };
            facts.links.insert(member.name.clone(), link);
        }
        Self {
            broker: broker(json!({})),
            scale: scale(3),
            updated: members.iter().map(|member| member.name.clone()).collect(),
            members,
            sync: Vec::new(),
            health: Vec::new(),
            conflict: None,
            facts,
            figures: Figures {
                reason: "Off",
                brokers_reporting: ready,
                ..Figures::default()
            },
        }
    }

    fn status(&self, second: i64) -> MessageBrokerStatus {
        status(&StatusInput {
            broker: &self.broker,
            wanted: 3,
            scale: &self.scale,
            members: &self.members,
            updated: &self.updated,
            image: "sluice:1".to_owned(),
            sync_problems: &self.sync,
            health_problems: &self.health,
            conflict: self.conflict.as_ref(),
            facts: &self.facts,
            autoscaling: AutoscalingStatus::default(),
            figures: &self.figures,
            channel_capacity: 128,
            settling: false,
            drain_timeout: Duration::from_secs(600),
            now: at(second),
        })
    }
}

fn condition(status: &MessageBrokerStatus, type_: &str) -> (String, String, String) {
    let found = conditions::find(&status.conditions, type_).expect(type_);
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn every_condition_is_there_with_the_generation_that_it_speaks_of() {
    let status = Case::new(3).status(10);
    for type_ in [
        conditions::READY,
        conditions::RESOURCES_SYNCED,
        conditions::BROKERS_AVAILABLE,
        conditions::CONFIGURATION_APPLIED,
        conditions::METRICS_FRESH,
        conditions::SCALING_ACTIVE,
        conditions::SCALING_LIMITED,
        conditions::DRAINING,
        conditions::PAUSED,
    ] {
        let found = conditions::find(&status.conditions, type_).expect(type_);
        assert_eq!(found.observed_generation, Some(4), "{type_}");
    }
    assert!(conditions::is_true(&status.conditions, conditions::READY));
    assert_eq!(status.summary.expect("there").brokers, "3/3");
}

#[test]
fn the_same_again_is_the_same_status() {
    let mut case = Case::new(3);
    let first = case.status(10);
    case.broker.status = Some(first.clone());
    assert_eq!(case.status(500), first);
}

#[test]
fn what_is_wrong_is_said_by_the_field_to_look_at() {
    let mut case = Case::new(2);
    case.health = vec![Problem::new(
        "ImageUnavailable",
        "image \"x\" cannot be pulled; look at spec.image",
    )];
    let status = case.status(10);
    let (ready, reason, message) = condition(&status, conditions::READY);
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "ImageUnavailable"));
    assert!(
        message.contains("spec.image") && message.contains("2 of 3"),
        "{message}"
    );
}

#[test]
fn another_autoscaler_is_named_where_one_looks_for_what_scales() {
    let mut case = Case::new(3);
    case.conflict = Some(Problem::new("AnotherAutoscaler", "HorizontalPodAutoscaler web …"));
    let (_, reason, message) = condition(&case.status(10), conditions::SCALING_ACTIVE);
    assert_eq!(reason, "AnotherAutoscaler");
    assert!(message.contains("web"), "{message}");
}

#[test]
fn a_drain_says_what_it_waits_for_and_when_it_is_stuck() {
    let mut case = Case::new(3);
    case.scale.leaving = Some(2);
    case.scale.drain = Some(DrainStatus {
        ordinal: 2,
        since: at(0),
        empty_since: None,
        holding: HoldingCounts::default(),
        message: String::new(),
    });
    case.facts.leaving = Some(2);
    case.facts.holding = HoldingCounts {
        partitions: 2,
        entries: 3,
        bytes: 1000,
    };
    case.facts.waiting_for = "t/0: no other broker is ready to take it".to_owned();
    let (holds, reason, message) = condition(&case.status(10), conditions::DRAINING);
    assert_eq!((holds.as_str(), reason.as_str()), ("True", "Emptying"));
    assert!(
        message.contains("orders-2 still holds 2 partitions") && message.contains("t/0"),
        "{message}"
    );
    assert_eq!(condition(&case.status(601), conditions::DRAINING).1, "DrainStuck");
    case.facts.empty = true;
    let status = case.status(700);
    assert_eq!(condition(&status, conditions::DRAINING).1, "Emptying");
    let drain = status.drain.expect("there");
    assert_eq!(drain.empty_since, Some(at(700)));

    // An operator that was started again and has not asked the broker yet writes nothing of it.
    case.scale.drain = Some(drain.clone());
    case.facts.empty = false;
    case.facts.holding = HoldingCounts::default();
    case.facts.waiting_for = "orders-2 does not say what it holds".to_owned();
    assert_eq!(case.status(701).drain.expect("there"), drain);
}

#[test]
fn a_broker_that_cannot_be_reached_is_named() {
    let mut case = Case::new(3);
    case.facts.links.remove("orders-1");
    let (applied, reason, message) = condition(&case.status(10), conditions::CONFIGURATION_APPLIED);
    assert_eq!(
        (applied.as_str(), reason.as_str()),
        ("False", "BrokerUnreachable")
    );
    assert!(message.contains("orders-1"));
}
