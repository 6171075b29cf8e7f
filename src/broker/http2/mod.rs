//! The broker's side of HTTP/2, made for very many connections that live long and say little at a time
//! (`docs/decisions/0025`). One task serves a connection and all its streams; nothing is kept for a connection that
//! is quiet but its state. Above it is tonic, which is given requests and gives answers as with any transport.
//!
//! `frame`, `headers` and `huffman` know the wire, `window` flow control, `state` what frames do to a connection and its
//! streams, `stream` how one is run, `body` how a request is read, `connection` the socket and the clock.

mod body;
mod connection;
mod control;
mod fault;
mod frame;
mod headers;
mod huffman;
mod pieces;
mod ready;
mod state;
mod stream;
mod window;

#[cfg(test)]
mod tests;

pub(in crate::broker) use body::RequestBody;
pub use connection::Patience;
pub(in crate::broker) use connection::{Connection, Ended};
pub(in crate::broker) use state::Dispatch;
pub(in crate::broker) use stream::Beside;
