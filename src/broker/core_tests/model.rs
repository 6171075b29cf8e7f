//! The log against a naive model: random appends, restarts and cuts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::support::*;

#[derive(Debug, Clone)]
enum Step {
    /// Partition, producer, sequences.
    Append(usize, u8, Vec<u8>),
    Reopen,
    /// Killed, and so many bytes of the last records torn off: everything acknowledged before the last append stays.
    Tear(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..3, 0u8..3, prop::collection::vec(0u8..30, 1..5)).prop_map(|(p, q, s)| Step::Append(p, q, s)),
        1 => Just(Step::Reopen),
        1 => (1u16..300).prop_map(Step::Tear),
    ]
}

/// What should be stored: bodies by partition.
type Model = BTreeMap<usize, Vec<String>>;

async fn check(steps: Vec<Step>) {
    let mut directory = tempfile::tempdir().unwrap();
    let mut store = simple(directory.path(), 3);
    let mut model = Model::new();
    for step in steps {
        let before_last;
        match step {
            Step::Append(index, producer, sequences) => {
                before_last = model.clone();
                let name = if producer == 0 {
                    String::new()
                } else {
                    format!("p{producer}")
                };
                let body = |sequence: u8| format!("{name}/{sequence}");
                let batch = sequences
                    .iter()
                    .map(|s| message(u64::from(*s), &body(*s)))
                    .collect();
                let appended = append(&partition(&store, index), &name, batch).await.unwrap();
                let stored = model.entry(index).or_default();
                for (sequence, appended) in sequences.into_iter().zip(appended) {
                    let known = stored
                        .iter()
                        .position(|one| producer != 0 && *one == body(sequence));
                    assert_eq!(appended.duplicate, known.is_some());
                    let position = known.unwrap_or(stored.len());
                    assert_eq!(appended.offset.position(), position as u64);
                    if known.is_none() {
                        stored.push(body(sequence));
                    }
                }
            }
            Step::Reopen => {
                close(store).await;
                store = simple(directory.path(), 3);
                before_last = model.clone();
            }
            Step::Tear(bytes) => {
                let copy = snapshot(directory.path());
                close(store).await;
                directory = copy;
                tear(directory.path(), bytes);
                store = simple(directory.path(), 3);
                let found = contents(&store).await;
                // Tearing may cut more than the last append, which no crash does to what was synced; then the model
                // follows what is there, as long as it is a prefix.
                for (index, bodies) in &found {
                    assert_eq!(bodies[..], model[index][..bodies.len()]);
                }
                model = found;
                before_last = model.clone();
            }
        }
        let found = contents(&store).await;
        assert_eq!(found, model);
        assert!(
            before_last
                .iter()
                .all(|(index, bodies)| found[index].starts_with(bodies))
        );
    }
    close(store).await;
}

async fn contents(store: &crate::broker::store::Store) -> Model {
    let mut contents = Model::new();
    for index in 0..3 {
        let found = bodies(&read_all(store, &entry(index as u32, 1)).await.unwrap());
        if !found.is_empty() {
            contents.insert(index, found);
        }
    }
    contents
}

fn tear(directory: &std::path::Path, bytes: u16) {
    let newest = std::fs::read_dir(directory)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max();
    let Some(path) = newest else { return };
    let content = std::fs::read(&path).unwrap();
    let end = content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((end as u64).saturating_sub(u64::from(bytes)))
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_holds_what_a_list_holds(steps in prop::collection::vec(step(), 1..25)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(steps));
    }
}
