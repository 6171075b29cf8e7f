//! Between gRPC and the core: every call of `Broker`, `Control` and `Peer`.

mod broker;
pub mod clock;
pub mod control;
pub mod credit;
mod delivery;
mod fence;
mod forward;
mod intake;
mod optional;
pub mod outbox;
mod owners;
mod payload;
mod peer;
pub mod peer_client;
mod peer_reader;
mod publish;
mod publish_out;
mod remote;
mod revoke;
mod rounds;
mod send;
mod settle;
pub mod shared;
pub mod signals;
mod subscribe;
mod subscribe_out;
mod token;
mod topology;
mod ways;

pub use broker::BrokerService;
pub use control::ControlService;
pub use credit::{Inflight, Limits, Reserved};
pub use peer::PeerService;
pub use peer_client::Peers;
pub(crate) use peer_reader::DeadLetterSender;
pub use shared::{Parts, Shared};
