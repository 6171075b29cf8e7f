//! The Rust client: publishes to and subscribes from the brokers that own the partitions, and follows them as
//! they move.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sluice::client::{Client, Message};
//!
//! let client = Client::connect(["orders-0.orders-brokers.default.svc:7400"]).await?;
//! let publisher = client.publisher("payments").producer_id("checkout-7").open();
//! let receipt = publisher.publish(Message::new("paid").key("customer-42")).await?;
//! let stored = receipt.await?;
//! println!("partition {} offset {}", stored.partition, stored.offset);
//! publisher.close().await?;
//!
//! let mut subscriber = client.subscriber("payments", "mailer").open().await?;
//! let delivery = subscriber.next().await?;
//! println!("{}", String::from_utf8_lossy(&delivery.body));
//! delivery.ack();
//! subscriber.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Tasks belong to the value that started them: dropping a [`Client`], [`Publisher`] or [`Subscriber`] ends its
//! tasks. Every queue is bounded: by the publisher's buffer, and by the credit that a subscriber grants.

mod backoff;
mod connection;
mod error;
mod message;
mod pool;
mod publisher;
mod subscriber;
mod topology;

pub use connection::{Client, ClientOptions};
pub use error::{ConnectError, PublishError, SubscribeError};
pub use message::{Message, Start};
pub use publisher::{
    OnSettled, Publisher, PublisherBuilder, PublisherStats, Receipt, Settled, Stored, Tagged,
};
pub use subscriber::{Delivery, Subscriber, SubscriberBuilder, SubscriberStats};
pub use topology::{ClusterView, Owner};
