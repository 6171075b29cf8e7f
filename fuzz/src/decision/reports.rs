//! Reports that no broker would send, of brokers that come and go by themselves.

use std::time::Duration;

use super::checked::Checked;
use super::policies::edit;
use crate::input::Input;
use crate::scaling::{
    BrokerCounters, BrokerGauges, HotPartition, Observed, ObservedBroker, Policy, Report, Time,
};

/// The most brokers that report.
const BROKERS: u64 = 6;
/// What the custom resource admits.
const MOST_REPLICAS: u32 = 1_000;
/// Long enough for every path, and short enough for thousands of inputs a second.
const STEPS: u32 = 120;

/// Any reports at any time.
pub(super) fn run(input: &mut Input<'_>) {
    let mut policy = Policy::default();
    edit(&mut policy, MOST_REPLICAS, input);
    let mut now = 1_000_000_000_000_u64;
    let mut checked = Checked::new(policy, Time::from_millis(now));
    let mut observed = Observed {
        spec_replicas: 3,
        current_replicas: 3,
        start_time: Duration::from_secs(15),
        ..Observed::default()
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            return;
        }
        now = match input.byte() % 16 {
            0 => now.saturating_sub(input.between(0, 100_000_000)),
            1 => now.saturating_add(input.between(0, 100_000_000)),
            2 => input.number(),
            3 => now,
            quick => now.saturating_add(250 * u64::from(quick)),
        };
        match input.byte() % 16 {
            0 => edit(&mut checked.policy, MOST_REPLICAS, input),
            1 => checked.restart(Time::from_millis(now)),
            2 => observed.spec_replicas = input.between32(0, MOST_REPLICAS),
            3 => observed.current_replicas = input.between32(0, 2 * MOST_REPLICAS),
            4 => observed.rolling_out = input.flag(),
            5 => observed.draining = input.flag(),
            6 => observed.start_time = Duration::from_millis(input.number()),
            7 => observed.channel_capacity = input.between32(0, u32::MAX),
            8 => come_and_go(&mut observed, input),
            _ => {}
        }
        if observed.brokers.is_empty() {
            come_and_go(&mut observed, input);
        }
        for broker in &mut observed.brokers {
            report(broker, now, input);
        }
        let (decision, channel) = checked.step(&observed, Time::from_millis(now));
        // Now and then what was decided is not acted on.
        if !input.byte().is_multiple_of(8) {
            observed.current_replicas = decision.desired_replicas;
            observed.channel_capacity = channel.capacity;
        }
    }
}

fn come_and_go(observed: &mut Observed, input: &mut Input<'_>) {
    let count = input.between(0, BROKERS) as usize;
    observed.brokers.truncate(count);
    while observed.brokers.len() < count {
        observed.brokers.push(ObservedBroker {
            name: format!("orders-{}", observed.brokers.len()),
            ready: true,
            ..ObservedBroker::default()
        });
    }
}

/// What one broker reports, or does not.
fn report(broker: &mut ObservedBroker, now: u64, input: &mut Input<'_>) {
    let what = input.byte();
    if what % 16 == 15 {
        broker.ready = input.flag();
    }
    if what % 16 == 14 {
        broker.report = None;
        return;
    }
    if what % 16 == 13 {
        // The same report again.
        return;
    }
    if what % 16 == 12 {
        broker.hottest = input.flag().then(|| HotPartition {
            topic: "orders".to_owned(),
            partition: input.between32(0, u32::MAX),
            per_second: input.number(),
        });
    }
    let mut report = broker.report.unwrap_or_default();
    report.received = Time::from_millis(match what % 16 {
        11 => now.saturating_sub(input.between(0, 1_000_000)),
        10 => now.saturating_add(input.between(0, 1_000_000)),
        _ => now,
    });
    let counters = counters(&mut report.counters);
    match what % 16 {
        // Its process started anew.
        9 => {
            counters.into_iter().for_each(|counter| *counter = 0);
            report.counters.boot_id = report.counters.boot_id.wrapping_add(1);
        }
        // Some are anything.
        8 => {
            let which = input.short();
            for (at, counter) in counters.into_iter().enumerate() {
                if which & (1 << at) != 0 {
                    *counter = input.number();
                }
            }
        }
        7 => {
            let at = usize::from(input.byte()) % counters.len();
            let counter = counters.into_iter().nth(at).expect("it is one of them");
            *counter /= 2;
        }
        6 => gauges(&mut report.gauges)
            .into_iter()
            .for_each(|gauge| *gauge = input.number()),
        // A second of load, of which publishers are held back for a part.
        _ => work(&mut report, input),
    }
    broker.report = Some(report);
}

/// A second of a broker that works.
fn work(report: &mut Report, input: &mut Input<'_>) {
    const SECOND: u64 = 1_000_000_000;
    let accepted = u64::from(input.byte()) * 40;
    let acked = accepted * u64::from(input.byte()) / 255;
    let blocked = u64::from(input.byte()) * SECOND / 255;
    let cpu = u64::from(input.byte()) * SECOND / 255;
    let counters = &mut report.counters;
    let add = |counter: &mut u64, more: u64| *counter = counter.saturating_add(more);
    add(&mut counters.uptime_nanos, SECOND);
    add(&mut counters.accepted_messages, accepted);
    add(&mut counters.offered_messages, accepted);
    add(&mut counters.acked_messages, acked);
    add(&mut counters.acked_bytes, acked * 256);
    add(&mut counters.requests, accepted.div_ceil(16));
    add(&mut counters.commits, acked.div_ceil(64));
    add(&mut counters.commit_nanos, acked.div_ceil(64) * 1_000_000);
    add(&mut counters.append_nanos, acked * 2_000);
    add(&mut counters.cpu_nanos, cpu);
    add(&mut counters.publisher_active_nanos, SECOND);
    add(&mut counters.publisher_blocked_nanos, blocked);
    report.gauges.cpu_quota_nanos = SECOND;
}

fn counters(counters: &mut BrokerCounters) -> [&mut u64; 16] {
    let BrokerCounters {
        boot_id,
        uptime_nanos,
        accepted_messages,
        acked_messages,
        acked_bytes,
        requests,
        delivered_messages,
        commits,
        commit_nanos,
        append_nanos,
        cpu_nanos,
        publisher_blocked_nanos,
        publisher_active_nanos,
        consumer_starved_nanos,
        offered_messages,
        untold_messages,
    } = counters;
    [
        boot_id,
        uptime_nanos,
        accepted_messages,
        acked_messages,
        acked_bytes,
        requests,
        delivered_messages,
        commits,
        commit_nanos,
        append_nanos,
        cpu_nanos,
        publisher_blocked_nanos,
        publisher_active_nanos,
        consumer_starved_nanos,
        offered_messages,
        untold_messages,
    ]
}

fn gauges(gauges: &mut BrokerGauges) -> [&mut u64; 7] {
    let BrokerGauges {
        cpu_quota_nanos,
        channel_messages,
        channel_capacity,
        sojourn_min_nanos,
        sojourn_p99_nanos,
        unconsumed_messages,
        publish_streams,
    } = gauges;
    [
        cpu_quota_nanos,
        channel_messages,
        channel_capacity,
        sojourn_min_nanos,
        sojourn_p99_nanos,
        unconsumed_messages,
        publish_streams,
    ]
}
