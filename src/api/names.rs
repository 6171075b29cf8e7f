//! Names, labels and ports that both halves agree on.

/// The API group of both kinds.
pub const GROUP: &str = "sluice.dev";

/// Where a broker serves `sluice.v1.Broker`.
pub const BROKER_PORT: u16 = 7400;
/// Where a broker serves `sluice.v1.Control` and `sluice.v1.Peer`.
pub const CONTROL_PORT: u16 = 7401;
/// Where a broker serves `/healthz`, `/readyz` and `/metrics`.
pub const BROKER_HTTP_PORT: u16 = 7402;
/// Where the operator serves `/healthz`, `/readyz` and `/metrics`.
pub const OPERATOR_HTTP_PORT: u16 = 7410;

/// The field manager of every server-side apply of the operator.
pub const FIELD_MANAGER: &str = "sluice-operator";

/// `app.kubernetes.io/name` of every child of a `MessageBroker`.
pub const APP_NAME: &str = "sluice-broker";

/// The headless Service that gives each broker a stable DNS name.
pub fn headless_service(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// The name of one broker, which is the name of its pod.
pub fn broker(cluster: &str, ordinal: u32) -> String {
    format!("{cluster}-{ordinal}")
}

/// The ordinal in a broker's name, compared as a number and never as text; `None` if `name` is not a broker of
/// this cluster.
pub fn ordinal(cluster: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(cluster)?.strip_prefix('-')?;
    let ordinal: u32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

/// The DNS name of one broker inside the Kubernetes cluster.
pub fn broker_host(namespace: &str, cluster: &str, ordinal: u32) -> String {
    format!(
        "{}.{}.{namespace}.svc",
        broker(cluster, ordinal),
        headless_service(cluster)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_numbers_and_only_of_their_own_cluster() {
        assert_eq!(ordinal("orders", "orders-10"), Some(10));
        assert_eq!(ordinal("orders", "orders-010"), None);
        assert_eq!(ordinal("orders", "orders-brokers-1"), None);
        assert_eq!(ordinal("orders", "other-1"), None);
    }
}
