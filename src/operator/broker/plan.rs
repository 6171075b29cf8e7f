//! What may change now: the number of brokers, the drain, the next restart. Pure.
//!
//! This is the one place that makes the number of brokers smaller, and it does so only for a broker that said it
//! holds nothing for long enough.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::broker_status::DrainStatus;

/// The StatefulSet's number of brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// `spec.replicas` of the StatefulSet.
    pub replicas: u32,
    /// What the operator last set it to, by the StatefulSet's annotation.
    pub recorded: Option<u32>,
}

impl Live {
    /// How many brokers there are to reckon with. Whoever changed the number behind the operator's back took no
    /// broker's data along, so fewer count as a mistake; and more may hold something by now.
    pub fn size(self) -> u32 {
        self.replicas.max(self.recorded.unwrap_or(0))
    }
}

/// What is left of brokers beyond the StatefulSet's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// The ordinal.
    pub ordinal: u32,
    /// Its pod is not gone yet.
    pub pod: bool,
    /// Its claim is there.
    pub claim: bool,
    /// Its claim is being deleted.
    pub claim_ending: bool,
}

/// What the number of brokers is planned on.
#[derive(Clone, Debug)]
pub struct ScaleInput<'a> {
    /// The StatefulSet's number; `None`: there is no StatefulSet.
    pub live: Option<Live>,
    /// How many brokers there should be.
    pub wanted: u32,
    /// One more than the highest ordinal that any partition's chain names.
    pub referenced: u32,
    /// The drain that the status holds.
    pub drain: Option<&'a DrainStatus>,
    /// The ordinal that has held nothing for long enough.
    pub settled: Option<u32>,
    /// What is left of brokers beyond the StatefulSet's number.
    pub leftovers: &'a [Leftover],
    /// Claims of removed brokers are deleted.
    pub delete_claims: bool,
    /// Now, for a drain that begins.
    pub now: Time,
}

/// The number of brokers, and what leads there.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// `spec.replicas` of the StatefulSet.
    pub replicas: u32,
    /// Brokers with a lower ordinal are to stay.
    pub keep: u32,
    /// The broker that is being emptied.
    pub leaving: Option<u32>,
    /// The drain that the status is to hold: until the broker's claim is gone.
    pub drain: Option<DrainStatus>,
    /// The claim to delete.
    pub delete_claim: Option<u32>,
    /// What a scale-up waits for; empty: nothing.
    pub waiting: String,
}

impl Scale {
    fn stay(size: u32, wanted: u32) -> Self {
        Self {
            replicas: size,
            keep: wanted.min(size),
            leaving: None,
            drain: None,
            delete_claim: None,
            waiting: String::new(),
        }
    }
}

/// The number of brokers, and what leads there.
pub fn scale(input: &ScaleInput<'_>) -> Scale {
    let wanted = input.wanted.max(1);
    let Some(live) = input.live else {
        // Never fewer than hold messages: they leave through the drain.
        let size = wanted.max(input.referenced);
        return Scale {
            keep: wanted,
            ..Scale::stay(size, wanted)
        };
    };
    let size = live.size().max(1);
    if let Some(drain) = input.drain.filter(|drain| drain.ordinal >= size)
        && let Some(removing) = remove(input, drain, size)
    {
        return removing;
    }
    if wanted > size {
        return grow(input, size);
    }
    if wanted == size {
        return Scale::stay(size, wanted);
    }
    shrink(input, size)
}

/// The broker left the StatefulSet: its pod goes, then its claim. `None`: both are gone.
fn remove(input: &ScaleInput<'_>, drain: &DrainStatus, size: u32) -> Option<Scale> {
    let leftover = input.leftovers.iter().find(|one| one.ordinal == drain.ordinal)?;
    let claim_goes = input.delete_claims && leftover.claim;
    if !leftover.pod && !claim_goes {
        return None;
    }
    // An operator that has just started does not know yet what the topics refer to. Until it does, the claim stays,
    // and so does the drain that is to remove it.
    let known = input.referenced <= drain.ordinal;
    let delete = claim_goes && known && !leftover.pod && !leftover.claim_ending;
    Some(Scale {
        drain: Some(drain.clone()),
        delete_claim: delete.then_some(drain.ordinal),
        waiting: format!("broker {} to be gone with its volume", drain.ordinal),
        ..Scale::stay(size, input.wanted.max(1))
    })
}

/// More brokers, unless one of them would find what an earlier one is just leaving behind.
fn grow(input: &ScaleInput<'_>, size: u32) -> Scale {
    let ending = input
        .leftovers
        .iter()
        .find(|one| one.ordinal >= size && one.ordinal < input.wanted && (one.pod || one.claim_ending));
    match ending {
        Some(leftover) => Scale {
            waiting: format!("what is left of broker {} to be gone", leftover.ordinal),
            ..Scale::stay(size, size)
        },
        None => Scale::stay(input.wanted, input.wanted),
    }
}

/// One broker fewer, once it has held nothing for long enough. Until then it is emptied.
fn shrink(input: &ScaleInput<'_>, size: u32) -> Scale {
    let wanted = input.wanted.max(1);
    let ordinal = size - 1;
    let known = input.drain.filter(|drain| drain.ordinal == ordinal);
    let drain = known.cloned().unwrap_or_else(|| DrainStatus {
        ordinal,
        since: input.now.clone(),
        empty_since: None,
        holding: Default::default(),
        message: String::new(),
    });
    // The status must have said so before: an operator that starts now knows what is going on.
    let gone = known.is_some() && input.settled == Some(ordinal) && input.referenced <= ordinal;
    Scale {
        leaving: Some(ordinal),
        drain: Some(drain),
        replicas: if gone { size - 1 } else { size },
        ..Scale::stay(size, wanted)
    }
}

/// A broker, as far as restarting it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodView {
    /// Its ordinal.
    pub ordinal: u32,
    /// It runs with the newest template.
    pub updated: bool,
    /// It serves, to Kubernetes and to the operator.
    pub serving: bool,
    /// It does not serve and, by what is known, will not by itself.
    pub broken: bool,
    /// It is being deleted.
    pub ending: bool,
}

/// Which broker to restart now, so that it gets the newest template: the broken ones first, then one at a time, and
/// only while all others serve.
pub fn restart(pods: &[PodView], size: u32, draining: bool) -> Option<u32> {
    let outdated = |pod: &&PodView| !pod.updated && !pod.ending;
    let broken = pods.iter().filter(outdated).find(|pod| pod.broken);
    if let Some(pod) = broken {
        return Some(pod.ordinal);
    }
    let present = u32::try_from(pods.iter().filter(|pod| pod.ordinal < size).count()).unwrap_or(u32::MAX);
    let all_serve = present == size && pods.iter().all(|pod| pod.serving && !pod.ending);
    if !all_serve || draining {
        return None;
    }
    pods.iter().filter(outdated).map(|pod| pod.ordinal).max()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
