use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Where a message of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    New,
    At {
        member: u64,
        delivery: u64,
        deadline: Instant,
    },
    Again,
    Delayed(Instant),
    Dying,
    Done,
}

/// A naive group: one slot for each message.
#[derive(Debug)]
struct Model {
    places: Vec<(Place, u32)>,
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    /// Member, most; and how many of what is reserved are delivered, in percent.
    Deliver(u64, u64, u8),
    /// The nth outstanding one.
    Ack(u8),
    Nack(u8, bool),
    Extend(u8, u8),
    GiveUp(u8),
    Quit(u64),
    Wait(u8),
    /// Seal the open entry and begin another one.
    Roll,
    /// Start anew from what the journal was told.
    Restart,
}

const MOST: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(30);

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..6).prop_map(Step::Append),
        6 => (0u64..3, 1u64..6, 0u8..=100).prop_map(|(m, n, p)| Step::Deliver(m, n, p)),
        6 => any::<u8>().prop_map(Step::Ack),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(n, delay)| Step::Nack(n, delay)),
        1 => (any::<u8>(), 1u8..90).prop_map(|(n, s)| Step::Extend(n, s)),
        1 => any::<u8>().prop_map(Step::GiveUp),
        1 => (0u64..3).prop_map(Step::Quit),
        2 => (1u8..40).prop_map(Step::Wait),
        1 => Just(Step::Roll),
        1 => Just(Step::Restart),
    ]
}

/// The offsets of all messages, by their place in the model.
fn offsets(spans: &[Span]) -> Vec<u64> {
    spans.iter().flat_map(|span| span.start..span.end).collect()
}

impl Model {
    fn outstanding(&self) -> Vec<usize> {
        let at =
            |(index, (place, _)): (usize, &(Place, u32))| matches!(place, Place::At { .. }).then_some(index);
        self.places.iter().enumerate().filter_map(at).collect()
    }

    fn fail(&mut self, index: usize, not_before: Option<Instant>) {
        let (place, count) = &mut self.places[index];
        *place = match not_before {
            _ if *count >= MOST => Place::Dying,
            Some(at) => Place::Delayed(at),
            None => Place::Again,
        };
    }
}

proptest! {
    #[test]
    fn it_does_what_a_naive_group_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut now = Instant::now();
        let mut spans = vec![Span { start: 1 << 40, end: 1 << 40 }];
        let mut state = GroupState::new(Progress::default());
        let mut model = Model { places: Vec::new() };
        let mut journal = Progress::default();
        for step in steps {
            let all = offsets(&spans);
            match step {
                Step::Append(count) => {
                    spans.last_mut().unwrap().end += count;
                    model.places.extend((0..count).map(|_| (Place::New, 0)));
                }
                Step::Deliver(member, most, percent) => {
                    let Some(reserved) = state.reserve(most, &spans) else {
                        let free = model.places.iter().any(|(p, _)| matches!(p, Place::New | Place::Again));
                        prop_assert!(!free, "something could be delivered");
                        continue;
                    };
                    let range = reserved.offsets;
                    prop_assert!(!range.is_empty() && range.end - range.start <= most);
                    let take = (range.end - range.start) * u64::from(percent) / 100;
                    for offset in range.start..range.start + take {
                        let index = all.binary_search(&offset).unwrap();
                        let (place, count) = &mut model.places[index];
                        prop_assert!(matches!(place, Place::New | Place::Again), "{offset} is {place:?}");
                        let (delivery, delivered) = state.deliver(offset, member, now + DEADLINE);
                        *count += 1;
                        prop_assert_eq!(delivered, *count);
                        *place = Place::At { member, delivery, deadline: now + DEADLINE };
                    }
                    state.release(range.start + take..range.end);
                }
                Step::Ack(n) | Step::Nack(n, _) | Step::Extend(n, _) | Step::GiveUp(n) => {
                    let outstanding = model.outstanding();
                    if outstanding.is_empty() {
                        continue;
                    }
                    let index = outstanding[n as usize % outstanding.len()];
                    let offset = all[index];
                    let Place::At { member, delivery, .. } = model.places[index].0 else { unreachable!() };
                    prop_assert_eq!(state.find(offset, delivery).map(|o| o.member), Some(member));
                    prop_assert_eq!(state.find(offset, delivery + 1), None);
                    match step {
                        Step::Ack(_) => {
                            state.take(offset);
                            state.finish_range(offset..offset + 1, &spans);
                            model.places[index].0 = Place::Done;
                        }
                        Step::Nack(_, delay) => {
                            let not_before = delay.then(|| now + Duration::from_secs(10));
                            state.fail(offset, MOST, not_before);
                            model.fail(index, not_before);
                        }
                        Step::Extend(_, seconds) => {
                            let until = now + Duration::from_secs(u64::from(seconds));
                            state.extend(offset, until);
                            model.places[index].0 = Place::At { member, delivery, deadline: until };
                        }
                        _ => {
                            state.give_up(offset);
                            model.places[index].0 = Place::Dying;
                        }
                    }
                    if !matches!(step, Step::Extend(..)) {
                        prop_assert_eq!(state.find(offset, delivery), None, "the token is stale");
                    }
                }
                Step::Quit(member) => {
                    state.drop_member(member, MOST);
                    for index in model.outstanding() {
                        if matches!(model.places[index].0, Place::At { member: m, .. } if m == member) {
                            model.fail(index, None);
                        }
                    }
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(u64::from(seconds));
                    state.expire(now, MOST);
                    for index in 0..model.places.len() {
                        match model.places[index].0 {
                            Place::At { deadline, .. } if deadline <= now => model.fail(index, None),
                            Place::Delayed(at) if at <= now => model.places[index].0 = Place::Again,
                            _ => {}
                        }
                    }
                    // What is given up is buried.
                    for ((place, _), &offset) in model.places.iter_mut().zip(&all) {
                        if *place == Place::Dying {
                            prop_assert!(state.is_dying(offset));
                            state.finish_range(offset..offset + 1, &spans);
                            *place = Place::Done;
                        }
                    }
                }
                Step::Roll => {
                    let start = ((spans.last().unwrap().start >> 40) + 2) << 40;
                    spans.push(Span { start, end: start });
                }
                Step::Restart => {
                    state = GroupState::new(journal.clone());
                    for (place, count) in &mut model.places {
                        if *place != Place::Done {
                            *place = Place::New;
                            // Only what came back was told.
                            *count = 0;
                        }
                    }
                    for (&offset, &count) in &journal.counts {
                        model.places[all.binary_search(&offset).unwrap()].1 = count;
                    }
                }
            }
            if let Some(delta) = state.take_untold(journal.floor) {
                journal.apply(&delta);
            }
            let all = offsets(&spans);
            for (index, (place, _)) in model.places.iter().enumerate() {
                let told = all[index] < journal.floor || journal.done.contains(all[index]);
                prop_assert_eq!(told, *place == Place::Done, "{} is {:?}", all[index], place);
            }
            let free = model.places.iter().filter(|(p, _)| matches!(p, Place::New | Place::Again)).count();
            prop_assert_eq!(state.available(&spans), free as u64);
        }
    }
}

#[test]
fn out_of_order_acknowledgements_keep_the_floor_at_the_oldest_open_message() {
    let spans = [Span { start: 100, end: 110 }];
    let mut state = GroupState::new(Progress {
        floor: 100,
        ..Progress::default()
    });
    let now = Instant::now();
    let reserved = state.reserve(10, &spans).unwrap();
    for offset in reserved.offsets {
        state.deliver(offset, 1, now);
    }
    state.finish_range(103..105, &spans);
    state.finish_range(100..101, &spans);
    assert_eq!(state.floor(), 101);
    state.finish_range(101..103, &spans);
    assert_eq!(state.floor(), 105);
}
