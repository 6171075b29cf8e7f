//! Brokers that speak the control service on loopback addresses, and pods that point to them: a kubelet of sorts.
//!
//! They keep the rules that real ones keep, and note every breach: two open entries of one partition, a drop of what
//! is still placed, a generation that goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use sluice::pb;
use sluice::pb::control_server::{Control, ControlServer};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::apiserver::ApiServer;

type Key = (String, u32, u64);

#[derive(Clone, Default)]
struct Entry {
    topic: String,
    sealed: bool,
    positions: u64,
}

#[derive(Default)]
struct Disk {
    entries: BTreeMap<Key, Entry>,
    placed: BTreeSet<Key>,
    term: u64,
    generation: u64,
    accepted: u64,
    blocked: bool,
    rate: u64,
    wanted: Vec<String>,
}

/// All disks, which outlive their brokers.
#[derive(Clone, Default)]
pub struct World {
    disks: Arc<Mutex<BTreeMap<String, Disk>>>,
    breaches: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Puts messages into every open entry.
    pub fn publish(&self, count: u64) {
        for disk in self.disks.lock().values_mut() {
            for entry in disk.entries.values_mut().filter(|entry| !entry.sealed) {
                entry.positions += count;
            }
        }
    }

    /// Messages on all disks that some broker is to keep, each entry once.
    pub fn kept(&self) -> u64 {
        let disks = self.disks.lock();
        let mut entries = BTreeMap::new();
        for disk in disks.values() {
            for (key, entry) in &disk.entries {
                let most: &mut u64 = entries.entry(key.clone()).or_default();
                *most = (*most).max(entry.positions);
            }
        }
        entries.values().sum()
    }

    /// Entries on this broker's disk.
    pub fn held(&self, broker: &str) -> usize {
        self.disks.lock().get(broker).map_or(0, |disk| disk.entries.len())
    }

    /// Open entries on this broker's disk.
    pub fn open(&self, broker: &str) -> usize {
        let disks = self.disks.lock();
        disks.get(broker).map_or(0, |disk| {
            disk.entries.values().filter(|entry| !entry.sealed).count()
        })
    }

    /// What was done that must never be done.
    pub fn breaches(&self) -> Vec<String> {
        self.breaches.lock().clone()
    }

    /// What every broker reports from now on: messages a second, and whether publishers are held back.
    pub fn load(&self, brokers: impl IntoIterator<Item = String>, rate: u64, blocked: bool) {
        let mut disks = self.disks.lock();
        for broker in brokers {
            let disk = disks.entry(broker).or_default();
            (disk.rate, disk.blocked) = (rate, blocked);
        }
    }

    /// Clients of this broker ask for a topic that does not exist.
    pub fn want(&self, broker: &str, topic: &str) {
        let mut disks = self.disks.lock();
        disks.entry(broker.to_owned()).or_default().wanted = vec![topic.to_owned()];
    }

    fn breach(&self, what: String) {
        self.breaches.lock().push(what);
    }

    /// Gives every pod of the namespace a broker, until `stop`.
    pub fn serve(&self, server: &ApiServer, stop: &CancellationToken) {
        let pods = server.typed::<Pod>();
        let (world, stop) = (self.clone(), stop.clone());
        let net = (rand::random::<u8>().max(1), rand::random::<u8>());
        tokio::spawn(async move {
            let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
            while !stop.is_cancelled() {
                let found = pods.list(&ListParams::default()).await.expect("pods").items;
                let mut present = BTreeSet::new();
                for pod in found
                    .into_iter()
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                {
                    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
                    present.insert(uid.clone());
                    let ordinal: u8 = name
                        .rsplit('-')
                        .next()
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(0);
                    let ip = Ipv4Addr::new(127, net.0, net.1, ordinal + 1);
                    if !running.contains_key(&uid) {
                        let ended = stop.child_token();
                        if world.start(&name, ip, ended.clone()).await {
                            running.insert(uid.clone(), ended);
                        }
                    }
                    if pod
                        .status
                        .as_ref()
                        .and_then(|status| status.pod_ip.as_ref())
                        .is_none()
                    {
                        let now = k8s_openapi::jiff::Timestamp::now().to_string();
                        let status = json!({"status": {
                            "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}],
                            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                            "containerStatuses": [{
                                "name": "broker", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                                "state": {"running": {"startedAt": now}}
                            }]
                        }});
                        let _ = pods
                            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                            .await;
                    }
                }
                running.retain(|uid, ended| {
                    let stays = present.contains(uid);
                    if !stays {
                        ended.cancel();
                    }
                    stays
                });
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    async fn start(&self, name: &str, ip: Ipv4Addr, ended: CancellationToken) -> bool {
        let Ok(listener) = tokio::net::TcpListener::bind((ip, 7401)).await else {
            return false;
        };
        self.disks.lock().entry(name.to_owned()).or_default().generation = 0;
        let service = Broker {
            name: name.to_owned(),
            world: self.clone(),
        };
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(ControlServer::new(service))
                .serve_with_incoming(incoming);
            tokio::select! {
                served = served => served.expect("it serves"),
                () = ended.cancelled() => {}
            }
        });
        true
    }
}

struct Broker {
    name: String,
    world: World,
}

fn key(entry: Option<pb::EntryId>) -> Result<(Key, String), Status> {
    let entry = entry.ok_or_else(|| Status::invalid_argument("no entry"))?;
    Ok(((entry.topic_uid, entry.partition, entry.epoch), entry.topic))
}

impl Broker {
    fn disk<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(self.world.disks.lock().entry(self.name.clone()).or_default())
    }
}

#[tonic::async_trait]
impl Control for Broker {
    async fn configure(
        &self,
        request: Request<pb::Configuration>,
    ) -> Result<Response<pb::ConfigureResponse>, Status> {
        let new = request.into_inner();
        if new.broker != self.name {
            self.world
                .breach(format!("{} got the configuration of {}", self.name, new.broker));
        }
        let mut disks = self.world.disks.lock();
        let stale = disks.get(&self.name).is_some_and(|disk| {
            new.leader_term < disk.term || (new.leader_term == disk.term && new.generation < disk.generation)
        });
        if stale {
            return Err(Status::failed_precondition("stale"));
        }
        let mut placed = BTreeSet::new();
        for topic in &new.topics {
            for partition in &topic.partitions {
                for entry in partition
                    .chain
                    .iter()
                    .filter(|entry| entry.brokers.contains(&self.name))
                {
                    let key = (topic.uid.clone(), partition.index, entry.epoch);
                    placed.insert(key.clone());
                    if entry.sealed_at.is_some() {
                        continue;
                    }
                    let other = disks.iter().find(|(name, disk)| {
                        let newer = |one: &Key| one.0 == key.0 && one.1 == key.1;
                        **name != self.name
                            && disk
                                .entries
                                .iter()
                                .any(|(one, entry)| newer(one) && !entry.sealed)
                    });
                    if let Some((other, _)) = other {
                        self.world.breach(format!(
                            "{key:?} opened at {} while {other} has it open",
                            self.name
                        ));
                    }
                    let disk = disks.entry(self.name.clone()).or_default();
                    disk.entries.entry(key).or_insert_with(|| Entry {
                        topic: topic.name.clone(),
                        ..Entry::default()
                    });
                }
            }
        }
        let disk = disks.entry(self.name.clone()).or_default();
        (disk.placed, disk.term, disk.generation) = (placed, new.leader_term, new.generation);
        let known: Vec<String> = new.topics.iter().map(|topic| topic.name.clone()).collect();
        disk.wanted.retain(|wanted| !known.contains(wanted));
        Ok(Response::new(pb::ConfigureResponse {
            generation: new.generation,
            problems: Vec::new(),
        }))
    }

    type WatchPressureStream = Pin<Box<dyn Stream<Item = Result<pb::PressureReport, Status>> + Send>>;

    async fn watch_pressure(
        &self,
        request: Request<pb::WatchPressureRequest>,
    ) -> Result<Response<Self::WatchPressureStream>, Status> {
        let interval = request
            .into_inner()
            .interval
            .and_then(|one| Duration::try_from(one).ok());
        let interval = interval.unwrap_or(Duration::from_secs(1));
        let (name, world) = (self.name.clone(), self.world.clone());
        let start = std::time::Instant::now();
        let boot_id = rand::random();
        let mut blocked_nanos = 0;
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(interval));
        let reports = futures::StreamExt::map(ticks, move |_| {
            let mut disks = world.disks.lock();
            let disk = disks.entry(name.clone()).or_default();
            let step = interval.as_nanos() as u64;
            disk.accepted += disk.rate * step / 1_000_000_000;
            if disk.blocked {
                blocked_nanos += step * 9 / 10;
            }
            let uptime = start.elapsed().as_nanos() as u64;
            Ok(pb::PressureReport {
                broker: name.clone(),
                boot_id,
                uptime_nanos: uptime.max(1),
                accepted_messages: disk.accepted,
                acked_messages: disk.accepted,
                acked_bytes: disk.accepted * 100,
                commits: disk.accepted / 10,
                commit_nanos: disk.accepted * 10_000,
                append_nanos: disk.accepted * 1_000,
                cpu_nanos: disk.accepted * 1_000_000,
                cpu_quota_nanos: 1_000_000_000,
                publisher_blocked_nanos: blocked_nanos,
                publisher_active_nanos: if disk.rate > 0 { uptime } else { 0 },
                sojourn_min_nanos: if disk.blocked { 50_000_000 } else { 0 },
                channel_capacity: 128,
                channel_messages: if disk.blocked { 128 } else { 0 },
                configuration_generation: disk.generation,
                appends_confirmed: true,
                wanted_topics: disk.wanted.clone(),
                ..pb::PressureReport::default()
            })
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn seal(&self, request: Request<pb::SealRequest>) -> Result<Response<pb::SealResponse>, Status> {
        let (key, _) = key(request.into_inner().entry)?;
        self.disk(|disk| match disk.entries.get_mut(&key) {
            None => Err(Status::failed_precondition("not here")),
            Some(entry) => {
                entry.sealed = true;
                Ok(Response::new(pb::SealResponse {
                    sealed_at: entry.positions,
                }))
            }
        })
    }

    async fn copy(&self, request: Request<pb::CopyRequest>) -> Result<Response<pb::CopyResponse>, Status> {
        let request = request.into_inner();
        let (key, topic) = key(request.entry)?;
        let mut disks = self.world.disks.lock();
        let source = disks
            .get(&request.from_broker)
            .and_then(|disk| disk.entries.get(&key))
            .cloned();
        let Some(source) = source.filter(|source| source.sealed && source.positions == request.sealed_at)
        else {
            return Err(Status::failed_precondition("the source does not have it so"));
        };
        let positions = source.positions;
        let copy = Entry {
            topic,
            sealed: true,
            positions,
        };
        disks
            .entry(self.name.clone())
            .or_default()
            .entries
            .insert(key, copy);
        Ok(Response::new(pb::CopyResponse {
            done: true,
            copied_positions: positions,
            ..pb::CopyResponse::default()
        }))
    }

    async fn drop(&self, request: Request<pb::DropRequest>) -> Result<Response<pb::DropResponse>, Status> {
        let (key, _) = key(request.into_inner().entry)?;
        self.disk(|disk| {
            if disk.placed.contains(&key) {
                return Err(Status::failed_precondition("still placed here"));
            }
            if disk.entries.get(&key).is_some_and(|entry| !entry.sealed) {
                return Err(Status::failed_precondition("open"));
            }
            disk.entries.remove(&key);
            Ok(Response::new(pb::DropResponse {}))
        })
    }

    async fn drain(&self, _: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        let held = self.disk(|disk| {
            let entries = disk.entries.iter().map(|(key, entry)| pb::HeldEntry {
                entry: Some(pb::EntryId {
                    topic: entry.topic.clone(),
                    topic_uid: key.0.clone(),
                    partition: key.1,
                    epoch: key.2,
                }),
                sealed: entry.sealed,
                positions: entry.positions,
                bytes: entry.positions * 100,
                start: 0,
            });
            entries.collect()
        });
        Ok(Response::new(pb::DrainResponse { held }))
    }
}
