//! Waiting for what a session may not have now: that is never done.

use std::pin::Pin;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Sleep;
use tokio_util::sync::ReusableBoxFuture;

/// A future in a box that is used again.
pub(super) async fn done<T>(future: &mut Option<ReusableBoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.get_pin().await,
        None => std::future::pending().await,
    }
}

/// The next of several; `None` at once where there are none.
pub(super) async fn next<F: Future>(futures: &mut Option<FuturesUnordered<F>>) -> Option<F::Output> {
    match futures {
        Some(futures) => futures.next().await,
        None => None,
    }
}

/// A timer.
pub(super) async fn slept(sleep: &mut Option<Pin<Box<Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}
