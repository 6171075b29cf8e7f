//! `/healthz`, `/readyz` and `/metrics` of the operator.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Whether the operator does its work, or why not yet.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready for this reason.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Some(reason.into()))))
    }

    /// Sets why it is not ready; `None`: it is.
    pub fn set(&self, reason: Option<String>) {
        *self.0.lock() = reason;
    }
}

#[derive(Clone)]
struct Served {
    readiness: Readiness,
    metrics: Metrics,
}

/// Serves until `stop` is done. `/healthz` answers as long as the process does.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Served { readiness, metrics });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn ready(State(served): State<Served>) -> impl IntoResponse {
    match served.readiness.0.lock().clone() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn scrape(State(served): State<Served>) -> impl IntoResponse {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], served.metrics.encode())
}
