//! Dead letters: when, what they say, and that each is stored once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::support::*;
use crate::broker::group::{Answer, Delivered, Member, Start};
use crate::broker::peer::{DeadLetters, PeerFuture};
use crate::broker::store::{NewMessage, Offset, Store, partition_of};
use crate::pb;

fn with_dead_letters(max: u32, target: &str) -> Vec<pb::TopicConfiguration> {
    let mut orders = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    orders.max_deliveries = max;
    orders.dead_letter_topic = target.to_owned();
    vec![orders, topic("dead", vec![vec![chain_entry(1, "a", None)]])]
}

#[tokio::test]
async fn a_message_delivered_too_often_goes_to_the_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 2).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(2, "dead")))
        .unwrap();
    let mut member = join(&store);
    let mut dead = Member::join(&store, "dead", "g", Start::Earliest).unwrap();
    let first = take(&mut member, 2).await;
    ack(&member, &first[1..]).await;
    member
        .settle(vec![(first[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    let second = take(&mut member, 1).await;
    assert_eq!(second[0].count, 2);
    member
        .settle(vec![(second[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    let letter = take(&mut dead, 1).await;
    assert_eq!(texts(&letter), ["m0"]);
    let header = |name: &str| {
        let found = letter[0]
            .message
            .headers
            .iter()
            .find(|(header, _)| header == name);
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    };
    assert_eq!(header("sluice-dead-letter-topic"), "orders");
    assert_eq!(header("sluice-dead-letter-partition"), "0");
    assert_eq!(
        header("sluice-dead-letter-offset"),
        Offset::new(1, 0).0.to_string()
    );
    assert!(header("sluice-dead-letter-reason").contains("delivered"));
    until("the original is done", async || {
        store.counters.dead_lettered_messages.get() == 1
    })
    .await;
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn a_message_given_up_is_done_when_its_dead_letter_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(5, "dead")))
        .unwrap();
    let mut member = join(&store);
    let first = take(&mut member, 1).await;
    assert_eq!(
        member
            .settle(vec![(first[0].token.clone(), Answer::GiveUp)])
            .await,
        [Ok(())]
    );
    let mut dead = Member::join(&store, "dead", "g", Start::Earliest).unwrap();
    assert_eq!(texts(&take(&mut dead, 1).await), ["m0"]);
    assert!(nothing_comes(&mut member).await);
}

#[tokio::test]
async fn without_dead_letters_a_message_is_done_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(directory.path(), 1).await;
    store
        .configure(&configuration("a", 2, with_dead_letters(1, "")))
        .unwrap();
    let mut member = join(&store);
    let first = take(&mut member, 1).await;
    member
        .settle(vec![(first[0].token.clone(), Answer::Nack(Duration::ZERO))])
        .await;
    until("it is counted", async || {
        store.counters.given_up_messages.get() == 1
    })
    .await;
    until("it is done", async || store.unconsumed().0 == 0).await;
    assert!(nothing_comes(&mut member).await);
}

fn header(letter: &Delivered, name: &str) -> String {
    let mut headers = letter.message.headers.iter();
    let found = headers.find(|(header, _)| *header == format!("sluice-dead-letter-{name}"));
    found
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default()
}

async fn nack(member: &Member, delivered: &[Delivered]) {
    let answers = delivered
        .iter()
        .map(|one| (one.token.clone(), Answer::Nack(Duration::ZERO)));
    let results = member.settle(answers.collect()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Puts letters into the topic "dead" of another store, and copies the sender's disk as a kill right after would
/// leave it.
#[derive(Debug)]
struct Sink {
    store: Arc<Store>,
    sender: PathBuf,
    kills: Mutex<Vec<tempfile::TempDir>>,
    duplicates: Mutex<usize>,
}

impl DeadLetters for Sink {
    fn publish<'a>(&'a self, topic: &'a str, producer: &'a str, message: NewMessage) -> PeerFuture<'a, ()> {
        Box::pin(async move {
            let partitions = self.store.topic(topic).ok_or("no such topic")?.partitions;
            let index = partition_of(&message.key, producer, partitions.len() as u32);
            let ticket = partitions[index as usize]
                .append_with(vec![message], producer, None, None)
                .map_err(|refused| refused.error.to_string())?;
            let appended = ticket.done().await.map_err(|error| error.to_string())?;
            *self.duplicates.lock() += usize::from(appended[0].duplicate);
            self.kills.lock().push(snapshot(&self.sender));
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_letter_is_stored_once_though_the_broker_is_killed_before_its_message_is_done() {
    let graveyard = tempfile::tempdir().unwrap();
    let dead = open(graveyard.path(), "b");
    let chains = vec![vec![chain_entry(1, "b", None)]; 3];
    let configured = dead.configure(&configuration("b", 1, vec![topic("dead", chains)]));
    assert_eq!(configured.unwrap(), []);
    let mut directory = tempfile::tempdir().unwrap();
    let mut orders = topic("orders", vec![vec![chain_entry(1, "a", None)]]);
    orders.max_deliveries = 2;
    orders.dead_letter_topic = "dead".to_owned();
    let elsewhere = topic("dead", vec![vec![chain_entry(1, "b", None)]; 3]);
    let wanted = configuration("a", 2, vec![orders, elsewhere]);
    let mut duplicates = 0;
    // Each round is a kill right after the letter; the last one goes on to the end.
    for round in 0..4 {
        let store = open(directory.path(), "a");
        let sink = Arc::new(Sink {
            store: Arc::clone(&dead),
            sender: directory.path().to_owned(),
            kills: Mutex::default(),
            duplicates: Mutex::default(),
        });
        store.set_dead_letters(sink.clone());
        store.configure(&wanted).unwrap();
        let mut member = join(&store);
        if round == 0 {
            let batch = vec![message(1, "poison"), message(2, "fine")];
            append(&partition(&store, 0), "p", batch).await.unwrap();
            let first = take(&mut member, 2).await;
            ack(&member, &first[1..]).await;
            nack(&member, &first[..1]).await;
            let second = take(&mut member, 1).await;
            nack(&member, &second).await;
        } else {
            // It was delivered as often as it may be: no member sees it again.
            assert!(nothing_comes(&mut member).await);
        }
        until("the message is done", async || store.unconsumed().0 == 0).await;
        assert_eq!(sink.kills.lock().len(), 1);
        duplicates += *sink.duplicates.lock();
        let kill = sink.kills.lock().remove(0);
        drop(member);
        close(store).await;
        directory = kill;
    }
    assert_eq!(duplicates, 3, "it was sent again after each kill");
    let mut reader = Member::join(&dead, "dead", "g", Start::Earliest).unwrap();
    let letters = take(&mut reader, 1).await;
    assert_eq!(texts(&letters), ["poison"]);
    let expected = [
        ("topic", "orders"),
        ("partition", "0"),
        ("group", "g"),
        ("deliveries", "2"),
        ("producer", "p"),
        ("sequence", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&letters[0], name), value, "{name}");
    }
    assert!(nothing_comes(&mut reader).await, "stored once");
}

#[tokio::test]
async fn letters_for_a_topic_that_is_not_there_wait_and_hold_up_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "a");
    let here = || vec![vec![chain_entry(1, "a", None)]];
    let with = |name: &str, target: &str| {
        let mut topic = topic(name, here());
        topic.max_deliveries = 1;
        topic.dead_letter_topic = target.to_owned();
        topic
    };
    let mut topics = vec![
        with("orders", "missing"),
        with("others", "dead"),
        topic("dead", here()),
    ];
    store.configure(&configuration("a", 1, topics.clone())).unwrap();
    let batch = |name: &'static str| (0..200).map(move |n| message(n, name)).collect();
    append(&partition(&store, 0), "", batch("order")).await.unwrap();
    let others = store.topic("others").unwrap().partitions[0].clone();
    append(&others, "", batch("other")).await.unwrap();
    let mut member = join(&store);
    let got = take(&mut member, 200).await;
    nack(&member, &got).await;
    until("they wait", async || {
        store.counters.waiting_dead_letters.get() == 200
    })
    .await;
    let mut other = Member::join(&store, "others", "g", Start::Earliest).unwrap();
    let got = take(&mut other, 200).await;
    nack(&other, &got).await;
    until("the others pass", async || {
        store.counters.dead_lettered_messages.get() == 200
    })
    .await;
    assert_eq!(store.counters.waiting_dead_letters.get(), 200);
    assert_eq!(store.unconsumed().0, 200, "nothing is lost");
    topics.push(topic("missing", here()));
    store.configure(&configuration("a", 2, topics)).unwrap();
    let mut reader = Member::join(&store, "missing", "g", Start::Earliest).unwrap();
    let letters = take(&mut reader, 200).await;
    let mut offsets: Vec<u64> = letters
        .iter()
        .map(|letter| header(letter, "offset").parse().unwrap())
        .collect();
    offsets.sort_unstable();
    let all: Vec<u64> = (0..200).map(|n| Offset::new(1, n).0).collect();
    assert_eq!(offsets, all);
    ack(&reader, &letters).await;
    until("all are done", async || {
        store.unconsumed().0 == 0 && store.counters.waiting_dead_letters.get() == 0
    })
    .await;
}
