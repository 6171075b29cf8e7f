//! `/healthz`, `/readyz` and `/metrics`, for brokers and the operator alike.

use std::fmt::Display;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a check answers: nothing, or what is wrong.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks and metrics of one process.
pub struct Probes {
    /// Whether the process works; a failure makes Kubernetes start it anew.
    pub healthy: Check,
    /// Whether it serves; a failure takes it out of its Service.
    pub ready: Check,
    /// What `/metrics` shows.
    pub metrics: Mutex<Registry>,
}

/// Serves until `shutdown`; then answers what was asked and ends.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    probes: Arc<Probes>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route(
            "/healthz",
            get(|State(probes): State<Arc<Probes>>| async move { answer(&(probes.healthy)()) }),
        )
        .route(
            "/readyz",
            get(|State(probes): State<Arc<Probes>>| async move { answer(&(probes.ready)()) }),
        )
        .route("/metrics", get(metrics))
        .with_state(probes);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

fn answer(check: &Result<(), impl Display>) -> Response {
    match check {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(wrong) => (StatusCode::SERVICE_UNAVAILABLE, format!("{wrong}\n")).into_response(),
    }
}

async fn metrics(State(probes): State<Arc<Probes>>) -> Response {
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, &probes.metrics.lock());
    match encoded {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
