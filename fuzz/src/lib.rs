//! The bodies of the fuzz targets, and a measurement. They take in the source of what they are about itself, so that private parts can
//! be reached and a build takes a minute.

#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../src/broker"]
mod broker {
    pub mod channel;
    pub mod clock;
    pub mod counters;
    pub mod http2;
    pub mod log;
    pub mod refusals;

    #[cfg(fuzzing)]
    #[path = "../../fuzz/src/connection.rs"]
    pub mod connection;

    pub mod group {
        pub(crate) mod state;
    }

    pub mod partition {
        pub(crate) mod progress;
        mod ranges;

        pub(crate) use ranges::Ranges;

        /// As in the module that this one stands for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct Span {
            pub(crate) start: u64,
            pub(crate) end: u64,
        }
    }

    pub mod store {
        mod types;

        pub use types::{AppendError, Appended, NewMessage, NotAppended, Offset};

        pub use crate::stand_in::{AppendTicket, Line, Partition, TopicView};
    }

    pub mod service {
        use std::sync::Arc;

        use tokio_util::task::AbortOnDropHandle;

        use super::http2::Beside;

        pub mod clock;
        pub mod credit;
        mod fence;
        mod forward;
        mod intake;
        mod optional;
        pub mod outbox;
        mod payload;
        mod publish;
        pub mod publish_out;
        mod rounds;
        pub mod signals;
        mod ways;

        pub mod shared {
            pub use crate::stand_in::Shared;
        }

        /// A publish stream's answer, and its session.
        pub type Served = (
            outbox::OutboxStream<publish_out::PublishOut>,
            AbortOnDropHandle<()>,
        );

        /// Serves a publish stream.
        pub fn publish(
            shared: &Arc<shared::Shared>,
            requests: tonic::Streaming<crate::pb::PublishRequest>,
        ) -> Served {
            let mut response = publish::serve(shared, requests);
            let beside = response.extensions_mut().remove::<Beside>();
            let session = beside
                .and_then(|beside| beside.take())
                .expect("a session runs beside");
            let session = AbortOnDropHandle::new(tokio::spawn(session));
            (response.into_inner(), session)
        }
    }
}

#[allow(dead_code)]
#[path = "../../src/api"]
mod api {
    pub mod partitioner;
}

#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../src/scaling/mod.rs"]
mod scaling;

/// The wire.
#[allow(missing_docs, clippy::all)]
#[allow(dead_code)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/sluice.v1.rs"));
}

mod input;
mod stand_in;

#[cfg(fuzzing)]
pub use broker::connection;
#[cfg(fuzzing)]
pub mod decision;
#[cfg(fuzzing)]
pub mod frames;
pub mod measure;
#[cfg(fuzzing)]
pub mod recovery;
#[cfg(fuzzing)]
pub mod service;
