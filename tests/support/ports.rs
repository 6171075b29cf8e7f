//! Ports for servers that are told where to listen.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the kernel gives to outgoing connections (32768 and up): one of these would be taken now and then between
/// the look and the server's start.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// An address of the loopback on which nobody listens. Each process looks elsewhere first, and nowhere twice.
///
/// # Errors
/// Every port is taken.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let look = LOOKS.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + std::process::id().wrapping_mul(97).wrapping_add(look) % COUNT;
        let port = u16::try_from(port).map_err(Error::other)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr();
        }
    }
    Err(Error::new(
        ErrorKind::AddrInUse,
        "every port from 12000 to 31999 is taken",
    ))
}
