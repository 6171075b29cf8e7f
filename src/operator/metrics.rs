//! The operator's own figures. Every label comes from a closed set.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::scaling::gauges::ScalingGauges;

/// Which loop, and how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// `MessageBroker` or `MessageTopic`.
    pub kind: &'static str,
    /// `ok`, or the step that failed.
    pub outcome: &'static str,
}

/// A request that changes something.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteLabels {
    /// The kind of the object.
    pub kind: String,
    /// The verb.
    pub verb: &'static str,
}

/// A call of a broker's control service.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// The method.
    pub method: &'static str,
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

/// The operator's own figures.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles, by kind and outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// How long reconciles took.
    pub reconcile_seconds: Histogram,
    /// Writes to the API server.
    pub writes: Family<WriteLabels, Counter>,
    /// Calls of brokers.
    pub calls: Family<CallLabels, Counter>,
    /// 1 while this operator leads.
    pub leading: Gauge,
    /// MessageBrokers under management.
    pub clusters: Gauge,
    /// Partitions that were moved.
    pub moves: Counter,
    /// Seconds from the last decision to scale up to the patch of the StatefulSet.
    pub decision_to_patch_seconds: Gauge<f64, AtomicU64>,
    /// What each MessageBroker's number of brokers was decided on.
    pub scaling: ScalingGauges,
}

impl Metrics {
    /// All at zero, and the registry that shows them.
    pub fn new() -> (Self, Registry) {
        let mut registry = Registry::with_prefix("sluice_operator");
        let buckets = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let reconciles = Family::default();
        let reconcile_seconds = Histogram::new(buckets);
        let writes = Family::default();
        let calls = Family::default();
        let (leading, clusters, moves) = (Gauge::default(), Gauge::default(), Counter::default());
        let decision_to_patch_seconds = Gauge::default();
        registry.register(
            "reconciles",
            "Reconciles, by kind and outcome",
            reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciles took",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        registry.register("api_writes", "Writes to the Kubernetes API", writes.clone());
        registry.register("broker_calls", "Calls of brokers' control service", calls.clone());
        registry.register("leading", "1 while this operator leads", leading.clone());
        registry.register("clusters", "MessageBrokers under management", clusters.clone());
        registry.register("partition_moves", "Partitions that were moved", moves.clone());
        registry.register_with_unit(
            "decision_to_patch",
            "From the last scaling decision to the patch of the StatefulSet",
            Unit::Seconds,
            decision_to_patch_seconds.clone(),
        );
        let scaling = ScalingGauges::register(&mut registry);
        let metrics = Self {
            scaling,
            reconciles,
            reconcile_seconds,
            writes,
            calls,
            leading,
            clusters,
            moves,
            decision_to_patch_seconds,
        };
        (metrics, registry)
    }

    /// Notes the end of a reconcile.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { kind, outcome })
            .inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Notes a write.
    pub fn wrote(&self, kind: &str, verb: &'static str) {
        self.writes
            .get_or_create(&WriteLabels {
                kind: kind.to_owned(),
                verb,
            })
            .inc();
    }

    /// Notes a call of a broker.
    pub fn called(&self, method: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.calls.get_or_create(&CallLabels { method, outcome }).inc();
    }
}
