use k8s_openapi::jiff::Timestamp;

use super::*;

fn now() -> Time {
    Time(Timestamp::from_second(1000).expect("valid"))
}

fn drain(ordinal: u32) -> DrainStatus {
    DrainStatus {
        ordinal,
        since: now(),
        empty_since: None,
        holding: Default::default(),
        message: String::new(),
    }
}

fn input(replicas: u32, wanted: u32) -> ScaleInput<'static> {
    ScaleInput {
        live: Some(Live {
            replicas,
            recorded: Some(replicas),
        }),
        wanted,
        referenced: 0,
        drain: None,
        settled: None,
        leftovers: &[],
        delete_claims: true,
        now: now(),
    }
}

#[test]
fn every_path_that_shrinks_passes_the_gate() {
    // Whatever asks for fewer: the autoscaler, kubectl scale and an edit all arrive here as `wanted`, and somebody
    // who scales the StatefulSet itself as `replicas`.
    let (two, one) = (drain(2), drain(1));
    for replicas in 0..=3 {
        for wanted in 0..=3 {
            for status in [None, Some(&one), Some(&two)] {
                for settled in [None, Some(0), Some(1), Some(2)] {
                    for referenced in [0, 3] {
                        let input = ScaleInput {
                            live: Some(Live {
                                replicas,
                                recorded: Some(3),
                            }),
                            drain: status,
                            settled,
                            referenced,
                            ..input(3, wanted)
                        };
                        let scale = scale(&input);
                        let drained =
                            wanted < 3 && status == Some(&two) && settled == Some(2) && referenced < 3;
                        assert_eq!(scale.replicas, if drained { 2 } else { 3 }, "{input:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_drain_begins_with_the_highest_ordinal_and_cordons_all_that_will_go() {
    let scale = scale(&input(5, 2));
    assert_eq!((scale.leaving, scale.keep, scale.replicas), (Some(4), 2, 5));
    assert_eq!(scale.drain, Some(drain(4)));
}

#[test]
fn a_drain_is_called_off_when_the_broker_is_wanted_again() {
    let two = drain(2);
    let scale = scale(&ScaleInput {
        drain: Some(&two),
        settled: Some(2),
        ..input(3, 3)
    });
    assert_eq!((scale.leaving, scale.drain, scale.replicas), (None, None, 3));
}

#[test]
fn what_somebody_scaled_behind_the_operator_is_put_back_or_drained() {
    let live = |replicas| ScaleInput {
        live: Some(Live {
            replicas,
            recorded: Some(3),
        }),
        ..input(3, 3)
    };
    assert_eq!(scale(&live(1)).replicas, 3);
    let more = scale(&live(5));
    assert_eq!((more.replicas, more.leaving), (5, Some(4)));
}

#[test]
fn a_claim_goes_after_its_pod_and_only_if_nothing_is_there() {
    let two = drain(2);
    let with = |leftovers: &'static [Leftover], referenced, delete_claims| {
        scale(&ScaleInput {
            drain: Some(&two),
            leftovers,
            referenced,
            delete_claims,
            ..input(2, 2)
        })
    };
    let pod = &[Leftover {
        ordinal: 2,
        pod: true,
        claim: true,
        claim_ending: false,
    }];
    let claim = &[Leftover {
        ordinal: 2,
        pod: false,
        claim: true,
        claim_ending: false,
    }];
    assert_eq!(with(pod, 0, true).delete_claim, None);
    assert_eq!(with(claim, 0, true).delete_claim, Some(2));
    assert_eq!(with(claim, 3, true).delete_claim, None, "a chain names it");
    // As right after a start of the operator, when it is not known what the topics refer to.
    let unknown = with(claim, u32::MAX, true);
    assert_eq!((unknown.delete_claim, unknown.drain.as_ref()), (None, Some(&two)));
    let kept = with(claim, 0, false);
    assert_eq!((kept.delete_claim, kept.drain), (None, None));
    assert_eq!(with(&[], 0, true).drain, None, "all gone");
}

#[test]
fn a_new_broker_never_finds_what_an_earlier_one_is_leaving_behind() {
    let two = drain(2);
    let ending = &[Leftover {
        ordinal: 2,
        pod: false,
        claim: true,
        claim_ending: true,
    }];
    for drain in [None, Some(&two)] {
        let scale = scale(&ScaleInput {
            drain,
            leftovers: ending,
            ..input(2, 4)
        });
        assert_eq!(scale.replicas, 2);
        assert!(!scale.waiting.is_empty());
    }
    let scale = scale(&input(2, 4));
    assert_eq!((scale.replicas, scale.keep), (4, 4));
}

#[test]
fn a_lost_stateful_set_comes_back_with_every_broker_that_holds_messages() {
    let scale = scale(&ScaleInput {
        live: None,
        referenced: 5,
        ..input(0, 3)
    });
    assert_eq!((scale.replicas, scale.keep), (5, 3));
}

fn pod(ordinal: u32, updated: bool, serving: bool) -> PodView {
    PodView {
        ordinal,
        updated,
        serving,
        broken: !serving,
        ending: false,
    }
}

#[test]
fn one_broker_restarts_at_a_time_and_only_while_all_others_serve() {
    let mut pods = [pod(0, false, true), pod(1, false, true), pod(10, false, true)];
    pods[2].ordinal = 2;
    assert_eq!(restart(&pods, 3, false), Some(2));
    assert_eq!(restart(&pods, 3, true), None);
    assert_eq!(restart(&pods[..2], 3, false), None, "one is missing");
    pods[2] = pod(2, true, false);
    assert_eq!(
        restart(&pods, 3, false),
        None,
        "the restarted one does not serve yet"
    );
    pods[2] = pod(2, true, true);
    assert_eq!(restart(&pods, 3, false), Some(1));
}

#[test]
fn a_broken_broker_is_recovered_first_wherever_it_is() {
    let pods = [pod(0, false, false), pod(1, false, true), pod(2, false, true)];
    assert_eq!(restart(&pods, 3, false), Some(0));
    assert_eq!(restart(&pods, 3, true), Some(0));
    let mut starting = pods;
    starting[0].broken = false;
    assert_eq!(restart(&starting, 3, false), None, "it may serve in a moment");
    let mut ending = pods;
    ending[0].ending = true;
    assert_eq!(restart(&ending, 3, false), None);
}
