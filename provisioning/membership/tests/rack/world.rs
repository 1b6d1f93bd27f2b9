//! Hosts with disks, a store for rows, and the laws that every step must keep.
//!
//! The laws are judged from what the machine says and stores, not from what it remembers.

use std::collections::BTreeMap;

use base::{ClusterId, DeviceId, NodeId};
use membership::limits::ROWS_PER_STEP_MAX;
use membership::{
    DeviceFacts, DeviceIdentity, DeviceRow, Event, Input, Limits, Membership, NodeFacts, NodeReport, Output, Reason,
    Row, RowKey, Status,
};
use placement::groups::violations;
use placement::map::{ClusterMap, DeviceState, Level, NodeState, Policy};

pub(crate) const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
pub(crate) const TIB: u64 = 1 << 40;
/// Between two ticks; hosts report once in between.
pub(crate) const TICK_MS: u64 = 1_000;

pub(crate) fn node_id(n: usize) -> NodeId {
    NodeId((n as u128 + 1).to_be_bytes())
}

pub(crate) fn device_id(n: usize) -> DeviceId {
    DeviceId((n as u128 + 0x1000).to_be_bytes())
}

pub(crate) fn policy(k: u8, m: u8, level: Level, slots_per_domain: u8) -> Policy {
    Policy { data_shards: k, parity_shards: m, level, slots_per_domain }
}

pub(crate) fn disk(n: usize) -> DeviceFacts {
    DeviceFacts {
        device: device_id(n),
        cluster: CLUSTER,
        identity: DeviceIdentity { serial: format!("S{n}"), size_bytes: TIB, ..DeviceIdentity::default() },
        capacity_bytes: TIB,
        live_bytes: TIB / 10,
        available_bytes: TIB / 2,
        failed: false,
        slow: false,
        corrupt_found: 0,
        device_errors: 0,
        put_p50_us: 900,
        get_p50_us: 300,
    }
}

/// One machine with disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) node: NodeId,
    pub(crate) facts: NodeFacts,
    pub(crate) disks: Vec<DeviceFacts>,
    pub(crate) alive: bool,
    pub(crate) clock_ahead_ms: i64,
    pub(crate) protocol: u32,
    pub(crate) started_ms: u64,
}

impl Host {
    pub(crate) fn new(n: usize, disks: impl IntoIterator<Item = usize>, now: u64) -> Self {
        let facts = NodeFacts {
            name: format!("n{n}"),
            site: "s".into(),
            rack: format!("r{n}"),
            peer_addr: format!("10.0.0.{n}:7000"),
            ..NodeFacts::default()
        };
        let disks = disks.into_iter().map(disk).collect();
        Self { node: node_id(n), facts, disks, alive: true, clock_ahead_ms: 0, protocol: 1, started_ms: now }
    }

    pub(crate) fn report(&self, now: u64) -> NodeReport {
        NodeReport {
            node: self.node,
            facts: self.facts.clone(),
            devices: self.disks.clone(),
            clock_ms: now.saturating_add_signed(self.clock_ahead_ms),
            protocol: self.protocol,
            map_epoch: 0,
            load_permille: 100,
            memory_used_bytes: 1 << 30,
            uptime_s: now.saturating_sub(self.started_ms) / 1_000,
        }
    }

    pub(crate) fn disk(&mut self, device: DeviceId) -> &mut DeviceFacts {
        self.disks.iter_mut().find(|disk| disk.device == device).expect("the host has that disk")
    }
}

/// The machine, its store and its hosts.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) machine: Membership,
    pub(crate) store: BTreeMap<RowKey, Row>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) events: Vec<Event>,
}

impl World {
    /// No cluster yet.
    pub(crate) fn empty() -> Self {
        let (machine, now) = (Membership::new(), 1_700_000_000_000);
        Self { now, machine, store: BTreeMap::new(), hosts: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn created(policy: Policy, limits: Limits) -> Self {
        let mut world = Self::empty();
        let outputs = world.step(Input::ClusterCreated { cluster: CLUSTER, policy, limits });
        assert_eq!(refusals(&outputs), []);
        world
    }

    /// So many hosts with so many disks each; formed.
    pub(crate) fn formed(policy: Policy, hosts: usize, disks: usize) -> Self {
        let mut world = Self::created(policy, Limits::default());
        (0..hosts).for_each(|n| world.join(n, n * disks..(n + 1) * disks));
        world.run_s(8);
        assert!(!world.map().groups.is_empty(), "{:?}", world.status().doing);
        world
    }

    pub(crate) fn join(&mut self, n: usize, disks: impl IntoIterator<Item = usize>) {
        let host = Host::new(n, disks, self.now);
        let (node, facts, protocol) = (host.node, host.facts.clone(), host.protocol);
        let outputs = self.step(Input::NodeJoined { node, facts, clock_ms: self.now, protocol });
        assert_eq!(refusals(&outputs), []);
        self.hosts.push(host);
    }

    pub(crate) fn map(&self) -> &ClusterMap {
        self.machine.map().expect("there is a cluster")
    }

    pub(crate) fn status(&self) -> Status {
        self.machine.status(self.now)
    }

    pub(crate) fn risks(&self) -> Vec<String> {
        self.status().risks.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn doing(&self) -> Vec<String> {
        self.status().doing.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn node_state(&self, n: usize) -> NodeState {
        self.map().node(node_id(n)).expect("the node joined").1.state
    }

    pub(crate) fn device(&self, n: usize) -> DeviceRow {
        let rows = self.machine.rows();
        let found = rows.into_iter().find_map(|row| match row {
            Row::Device(row) if row.id == device_id(n) => Some(row),
            _ => None,
        });
        found.expect("the device is in")
    }

    pub(crate) fn device_state(&self, n: usize) -> DeviceState {
        self.device(n).state()
    }

    /// How often an event of a kind came.
    pub(crate) fn heard(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event.kind == kind).count()
    }

    /// Time passes second by second: living hosts report, then comes a tick.
    pub(crate) fn run_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += TICK_MS;
            self.report_all();
            self.step(Input::Tick);
        }
    }

    pub(crate) fn report_all(&mut self) {
        for host in self.hosts.clone() {
            if host.alive {
                self.step(Input::NodeReported(host.report(self.now)));
            }
        }
    }

    /// One step under all laws.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Output> {
        let before = self.machine.clone();
        let outputs = self.machine.step(self.now, input.clone());
        self.keep(&outputs);
        check_map(&before, &self.machine, &outputs);
        check_verb(&before, &self.machine, &input, &outputs);
        if matches!(input, Input::NodeReported(_)) {
            assert_eq!(before.map(), self.machine.map(), "reports change the map at a tick only");
            let mut again = self.machine.clone();
            again.step(self.now, input);
            assert_eq!(again, self.machine, "a report said twice is a report");
        }
        self.events.extend(outputs.iter().filter_map(|output| match output {
            Output::Event(event) => Some(event.clone()),
            _ => None,
        }));
        outputs
    }

    /// Another controller leads from here on.
    pub(crate) fn change_leader(&mut self) {
        let machine = Membership::load(self.store.values().cloned(), self.now).expect("the stored rows are a state");
        assert_eq!(machine.map(), self.machine.map());
        self.machine = machine;
    }

    /// Stores what changed, by compare-and-set, and compares with what the machine has.
    fn keep(&mut self, outputs: &[Output]) {
        let said: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::RowsChanged { .. })).collect();
        assert!(said.len() <= 1);
        if let Some(Output::RowsChanged { base, rows }) = said.first() {
            assert!(matches!(outputs[0], Output::RowsChanged { .. }), "rows go first");
            assert!(rows.len() <= ROWS_PER_STEP_MAX);
            let revision = match self.store.get(&RowKey::Cluster) {
                Some(Row::Cluster(row)) => row.revision,
                _ => 0,
            };
            assert_eq!(*base, revision);
            self.store.extend(rows.iter().map(|row| (row.key(), row.clone())));
        }
        assert!(self.store.values().eq(&self.machine.rows()), "the rows stored so far are the state");
    }
}

pub(crate) fn refusals(outputs: &[Output]) -> Vec<Reason> {
    let reasons = outputs.iter().filter_map(|output| match output {
        Output::Refused(reason) => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

/// The map changes exactly when its epoch does, and what may never change did not.
fn check_map(before: &Membership, after: &Membership, outputs: &[Output]) {
    let Some(new) = after.map() else { return };
    new.check().expect("a valid map");
    let epochs: Vec<u64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::MapChanged(epoch) => Some(*epoch),
            _ => None,
        })
        .collect();
    let Some(old) = before.map() else {
        assert_eq!((new.epoch, epochs), (1, vec![1]));
        return;
    };
    let same = ClusterMap { epoch: old.epoch, ..new.clone() } == *old;
    if same {
        assert_eq!((new.epoch, epochs), (old.epoch, vec![]), "no change, no epoch");
    } else {
        assert_eq!((new.epoch, epochs), (old.epoch + 1, vec![old.epoch + 1]), "a change, one epoch");
    }
    assert_eq!(new.groups[..old.groups.len()], old.groups, "groups stay until someone moves data");
    assert_eq!(new.partitions[..old.partitions.len()], old.partitions, "a chain of one stays");
    for (old, new) in old.nodes.iter().zip(&new.nodes) {
        assert_eq!(old.id, new.id, "places are for ever");
        assert!(old.state != NodeState::Removed || new.state == NodeState::Removed);
    }
    for (old, new) in old.devices.iter().zip(&new.devices) {
        assert_eq!(old.id, new.id, "places are for ever");
        assert!(old.state != DeviceState::Removed || new.state == DeviceState::Removed);
    }
    if new.groups.len() > old.groups.len() {
        let broken = violations(new);
        assert!(broken.iter().all(|broken| (broken.group as usize) < old.groups.len()), "{broken:?}");
    }
    assert!(new.groups.is_empty() || !new.partitions.is_empty());
}

/// Slots of each group that cannot be read, and that take no writes, judged from the rows.
fn counts(machine: &Membership) -> Vec<(usize, usize)> {
    let rows: Vec<DeviceRow> = machine
        .rows()
        .into_iter()
        .filter_map(|row| match row {
            Row::Device(row) => Some(row),
            _ => None,
        })
        .collect();
    let Some(map) = machine.map() else { return Vec::new() };
    let draining: BTreeMap<NodeId, bool> = machine
        .rows()
        .into_iter()
        .filter_map(|row| match row {
            Row::Node(row) => Some((row.id, row.draining)),
            _ => None,
        })
        .collect();
    let slot = |slot: &u32| {
        let (row, device) = (&rows[*slot as usize], &map.devices[*slot as usize]);
        let node = &map.nodes[device.node as usize];
        let away = matches!(node.state, NodeState::Down | NodeState::Removed)
            || device.state == DeviceState::Removed
            || row.suspicion.is_some_and(|suspicion| suspicion.cause.endangers_reads());
        (away, away || device.state == DeviceState::Draining || draining[&node.id])
    };
    let count = |slots: &[u32]| {
        slots.iter().map(slot).fold((0, 0), |(unread, unwritten), (away, closed)| {
            (unread + usize::from(away), unwritten + usize::from(closed))
        })
    };
    map.groups.iter().map(|group| count(&group.slots)).collect()
}

/// What operators ask never costs readable data, and drains no more than is tolerated.
fn check_verb(before: &Membership, after: &Membership, input: &Input, outputs: &[Output]) {
    let drains = matches!(input, Input::DrainNode(_) | Input::DrainDevice(_));
    let removes = matches!(input, Input::RemoveNode { .. } | Input::RemoveDevice { .. });
    if !drains && !removes {
        return;
    }
    if !refusals(outputs).is_empty() {
        assert_eq!(before.rows(), after.rows(), "what is refused changes nothing");
        return;
    }
    let (Some(map), forced) =
        (after.map(), matches!(input, Input::RemoveNode { force: true, .. } | Input::RemoveDevice { force: true, .. }))
    else {
        return;
    };
    let tolerated = usize::from(map.policy.parity_shards);
    for (group, (old, new)) in counts(before).into_iter().zip(counts(after)).enumerate() {
        assert!(new.0 <= old.0 || new.0 <= tolerated, "group {group} is below k by {input:?}");
        assert!(!drains || new.1 <= old.1 || new.1 <= tolerated, "group {group} drains too much by {input:?}");
        assert!(!removes || forced || new.0 == old.0, "group {group} loses a slot by {input:?}");
    }
}
