//! The simulator's brokers, which do what is decided, and what befalls them.

use super::checked::Checked;
use super::policies::{MODES, edit};
use crate::input::Input;
use crate::scaling::simulation::{BrokerModel, Builtin, Cluster, Event, Load, Publishers, Work};
use crate::scaling::{Policy, Time};

/// The most brokers.
const BROKERS: u32 = 12;
/// What a broker can do, messages a second.
const RATE: f64 = 1_000.0;
/// The most seconds of one input.
const SECONDS: u64 = 900;

/// The loops in closed loop with a cluster.
pub(super) fn run(input: &mut Input<'_>) {
    let mut policy = Policy::default();
    policy.autoscaling.mode = MODES[0];
    policy.autoscaling.max_replicas = BROKERS;
    edit(&mut policy, BROKERS, input);
    let publishers = [Publishers::Queue, Publishers::QueueSilently, Publishers::GiveUp];
    let model = BrokerModel {
        publishers: input.one_of(publishers),
        ..BrokerModel::new(RATE)
    };
    let model = match input.byte() % 3 {
        0 => model,
        1 => BrokerModel {
            work: Work::Frames,
            ..model
        },
        _ => model.by_requests(policy.channel.capacity),
    };
    let mut cluster = Cluster::new(model, input.between32(1, BROKERS));
    let mut event = Load::Builtin(Builtin::Flat, RATE).event(0.0);
    // Far from the ends, so that the clock can step either way.
    let mut skew = 1_000_000_000_i64;
    let now =
        |cluster: &Cluster, skew: i64| Time::from_millis(cluster.now().as_millis() + skew.max(0) as u64);
    let mut checked = Checked::new(policy, now(&cluster, skew));
    let mut rate = 0.0;
    while cluster.second < SECONDS && !input.is_empty() {
        match input.byte() % 16 {
            0 => edit(&mut checked.policy, BROKERS, input),
            1 => checked.restart(now(&cluster, skew)),
            2 => cluster.spec_replicas = input.between32(1, BROKERS),
            3 => cluster.rolling_out = input.flag(),
            4 => skew += i64::from(input.short() as i16) * 1_000,
            5 => break_broker(&mut cluster, input),
            6 => break_all(&mut event, input),
            7 => cluster.start_seconds = f64::from(input.byte()) * 4.0,
            8 => cluster.drain_seconds = f64::from(input.byte()),
            _ => rate = f64::from(input.byte()) / 255.0 * RATE * 1.5 * f64::from(BROKERS),
        }
        for _ in 0..input.between(1, 60) {
            cluster.serve(|_| rate, &event);
            let mut observed = cluster.observed();
            let shift = |at: Time| Time::from_millis(at.as_millis() + skew.max(0) as u64);
            for report in observed
                .brokers
                .iter_mut()
                .filter_map(|broker| broker.report.as_mut())
            {
                report.received = shift(report.received);
            }
            let (decision, channel) = checked.step(&observed, now(&cluster, skew));
            cluster.desired = decision.desired_replicas;
            cluster.channel_capacity = channel.capacity;
            cluster.follow();
        }
    }
}

/// Something happens to one broker.
fn break_broker(cluster: &mut Cluster, input: &mut Input<'_>) {
    let count = cluster.brokers.len().max(1);
    let Some(broker) = cluster.brokers.get_mut(usize::from(input.byte()) % count) else {
        return;
    };
    match input.byte() % 4 {
        0 => broker.mute = !broker.mute,
        1 => broker.restart(),
        2 => broker.counters.acked_messages /= 2,
        _ => {
            broker.counters.publisher_blocked_nanos = 0;
            broker.counters.offered_messages = 0;
        }
    }
}

/// Something happens to all of them, or to the load.
fn break_all(event: &mut Event, input: &mut Input<'_>) {
    let ordinal = |input: &mut Input<'_>| usize::from(input.byte()) % BROKERS as usize;
    match input.byte() % 6 {
        0 => event.lost = Some(ordinal(input)),
        1 => event.lost = None,
        2 => event.slow_commit = Some((ordinal(input), f64::from(input.byte()) / 100.0)),
        3 => event.health = f64::from(input.byte()) / 128.0,
        4 => event.hot = f64::from(input.byte()) / 255.0,
        _ => event.consumed = f64::from(input.byte()) / 255.0,
    }
}
