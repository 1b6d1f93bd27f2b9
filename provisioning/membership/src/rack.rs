//! The state and how it is changed: every change of a row goes through one of the `edit_` functions, which keep the
//! map, the indexes and the list of changed rows in step.

use std::collections::{BTreeMap, BTreeSet};

use base::{ClusterId, DeviceId, NodeId, PartitionId};
use placement::map::{ClusterMap, Group, MapPartition, Policy};

use crate::input::Input;
use crate::limits::{GROUPS_PER_ROW, Limits, ROWS_PER_STEP_MAX, check_policy};
use crate::output::{Output, Reason, Severity};
use crate::rows::{ClusterRow, DeviceRow, GroupsRow, LoadError, NodeRow, PartitionRow, PlannedMove, Row, RowKey};
use crate::seen::{NodeSeen, Seen, Watch};
use crate::step::Step;

/// Two readings of one clock by two tasks may come in the wrong order; by more than this it was set back.
const CLOCK_JITTER_MS: u64 = 500;

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rack {
    pub(crate) limits: Limits,
    pub(crate) created_ms: u64,
    pub(crate) revision: u64,
    pub(crate) map: ClusterMap,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) devices: Vec<DeviceRow>,
    /// (group, slot) -> the device that is to have it.
    pub(crate) moves: BTreeMap<(u32, u32), u32>,

    // What follows from the rows.
    pub(crate) node_at: BTreeMap<NodeId, u32>,
    pub(crate) device_at: BTreeMap<DeviceId, u32>,
    /// By node: its devices that are not removed.
    pub(crate) devices_of: Vec<BTreeSet<u32>>,
    /// By device: the groups that have a slot on it.
    pub(crate) groups_of: Vec<Vec<u32>>,

    pub(crate) seen: Seen,
}

impl Rack {
    pub(crate) fn create(cluster: ClusterId, policy: Policy, limits: Limits, step: &mut Step) -> Result<Self, Reason> {
        check_policy(&policy)?;
        limits.check()?;
        let map = ClusterMap {
            epoch: 0,
            cluster,
            policy,
            nodes: Vec::new(),
            devices: Vec::new(),
            groups: Vec::new(),
            partitions: Vec::new(),
        };
        step.map_changed = true;
        let text = format!("cluster {cluster} with {}+{}", policy.data_shards, policy.parity_shards);
        step.event(Severity::Info, "cluster-created", (None, None), text);
        let mut rack = Self::over(map, limits, step.now, 0);
        (rack.seen.now, rack.seen.wall_ms) = (step.now, step.wall);
        Ok(rack)
    }

    fn over(map: ClusterMap, limits: Limits, created_ms: u64, revision: u64) -> Self {
        Self {
            limits,
            created_ms,
            revision,
            map,
            nodes: Vec::new(),
            devices: Vec::new(),
            moves: BTreeMap::new(),
            node_at: BTreeMap::new(),
            device_at: BTreeMap::new(),
            devices_of: Vec::new(),
            groups_of: Vec::new(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn apply(&mut self, input: Input, step: &mut Step) {
        self.keep_time(step);
        match input {
            Input::ClusterCreated { cluster, policy, limits } => {
                if (cluster, policy, limits) != (self.map.cluster, self.map.policy, self.limits) {
                    step.refuse(Reason::ClusterExists(self.map.cluster));
                }
            }
            Input::NodeJoined { node, facts, clock_ms, protocol } => self.join(node, facts, clock_ms, protocol, step),
            Input::NodeReported(report) => self.report(report, step),
            Input::Tick => self.tick(step),
            verb => {
                if let Err(reason) = self.verb(verb, step) {
                    step.refuse(reason);
                }
            }
        }
    }

    /// Our time never goes back. A clock that is set back goes on from where it was; one that was read a little late
    /// stands still.
    fn keep_time(&mut self, step: &mut Step) {
        let back = self.seen.wall_ms.saturating_sub(step.wall);
        if back > CLOCK_JITTER_MS {
            self.seen.set_back_ms += back;
            self.seen.wall_ms = step.wall;
        }
        self.seen.wall_ms = self.seen.wall_ms.max(step.wall);
        self.seen.now = self.seen.now.max(self.time(step.wall));
        step.now = self.seen.now;
    }

    /// Our time from the clock's.
    pub(crate) fn time(&self, wall_ms: u64) -> u64 {
        wall_ms.saturating_add(self.seen.set_back_ms)
    }

    fn tick(&mut self, step: &mut Step) {
        self.forgive_own_silence(step);
        self.settle_nodes(step);
        self.settle_devices(step);
        self.form(step);
    }

    /// Ends a step: the epoch and the revision grow, the rows go out first.
    pub(crate) fn finish(&mut self, base: u64, mut step: Step) -> Vec<Output> {
        let mut outputs = Vec::new();
        if step.map_changed {
            self.map.epoch += 1;
            self.map.check().expect("a step makes a valid map");
        }
        if step.map_changed || !step.rows.is_empty() {
            self.revision = base + 1;
            step.rows.insert(RowKey::Cluster);
            assert!(step.rows.len() <= ROWS_PER_STEP_MAX, "{} rows in one step", step.rows.len());
            let rows = step.rows.iter().map(|key| self.row(*key)).collect();
            outputs.push(Output::RowsChanged { base, rows });
        }
        if step.map_changed {
            outputs.push(Output::MapChanged(self.map.epoch));
        }
        outputs.extend(step.into_outputs());
        outputs
    }

    // ---- rows ----

    fn row(&self, key: RowKey) -> Row {
        match key {
            RowKey::Cluster => Row::Cluster(ClusterRow {
                cluster: self.map.cluster,
                policy: self.map.policy,
                limits: self.limits,
                created_ms: self.created_ms,
                epoch: self.map.epoch,
                revision: self.revision,
                nodes: count(self.nodes.len()),
                devices: count(self.devices.len()),
                groups: count(self.map.groups.len()),
                partitions: count(self.map.partitions.len()),
            }),
            RowKey::Node(place) => Row::Node(self.nodes[place as usize].clone()),
            RowKey::Device(place) => Row::Device(self.devices[place as usize].clone()),
            RowKey::Groups(block) => {
                let first = (block * GROUPS_PER_ROW) as usize;
                let last = (first + GROUPS_PER_ROW as usize).min(self.map.groups.len());
                let moves = self.moves.range((count(first), 0)..(count(last), 0));
                Row::Groups(GroupsRow {
                    block,
                    groups: self.map.groups[first..last].to_vec(),
                    moves: moves
                        .map(|((group, slot), to)| PlannedMove { group: *group, slot: *slot, to: *to })
                        .collect(),
                })
            }
            RowKey::Partition(place) => {
                Row::Partition(PartitionRow { place, partition: self.map.partitions[place as usize].clone() })
            }
        }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let blocks = count(self.map.groups.len()).div_ceil(GROUPS_PER_ROW);
        let keys = std::iter::once(RowKey::Cluster)
            .chain((0..count(self.nodes.len())).map(RowKey::Node))
            .chain((0..count(self.devices.len())).map(RowKey::Device))
            .chain((0..blocks).map(RowKey::Groups))
            .chain((0..count(self.map.partitions.len())).map(RowKey::Partition));
        keys.map(|key| self.row(key)).collect()
    }

    pub(crate) fn load(rows: impl IntoIterator<Item = Row>, now_ms: u64) -> Result<Option<Self>, LoadError> {
        let mut stored: BTreeMap<RowKey, Row> = rows.into_iter().map(|row| (row.key(), row)).collect();
        if stored.is_empty() {
            return Ok(None);
        }
        let Some(Row::Cluster(cluster)) = stored.remove(&RowKey::Cluster) else {
            return Err(LoadError::Missing(RowKey::Cluster.path()));
        };
        let ClusterRow { cluster: id, policy, limits, created_ms, epoch, revision, nodes, devices, groups, partitions } =
            cluster;
        let map = ClusterMap {
            epoch,
            cluster: id,
            policy,
            nodes: Vec::new(),
            devices: Vec::new(),
            groups: Vec::new(),
            partitions: Vec::new(),
        };
        let mut rack = Self::over(map, limits, created_ms, revision);
        (rack.seen.now, rack.seen.wall_ms) = (now_ms, now_ms);
        rack.seen.admitted_ms = now_ms;
        let keys = (0..nodes)
            .map(RowKey::Node)
            .chain((0..devices).map(RowKey::Device))
            .chain((0..groups.div_ceil(GROUPS_PER_ROW)).map(RowKey::Groups))
            .chain((0..partitions).map(RowKey::Partition));
        for key in keys {
            let row = stored.remove(&key).ok_or_else(|| LoadError::Missing(key.path()))?;
            rack.take(row, now_ms)?;
        }
        if let Some(key) = stored.keys().next() {
            return Err(LoadError::Stray(key.path()));
        }
        if rack.map.groups.len() != groups as usize {
            return Err(LoadError::Unfit("groups"));
        }
        rack.map.check().map_err(|_| LoadError::Unfit("the map"))?;
        let moves = std::mem::take(&mut rack.moves);
        let fits = |((group, slot), to): (&(u32, u32), &u32)| {
            rack.map.slot(*group, *slot as usize).is_some() && (*to as usize) < rack.devices.len()
        };
        if !moves.iter().all(fits) {
            return Err(LoadError::Unfit("a planned move"));
        }
        rack.moves = moves;
        rack.index_groups(0);
        Ok(Some(rack))
    }

    fn take(&mut self, row: Row, now_ms: u64) -> Result<(), LoadError> {
        match row {
            Row::Cluster(_) => return Err(LoadError::Unfit("a second cluster")),
            Row::Node(row) => self.push_node(row, now_ms),
            Row::Device(row) if (row.node as usize) < self.nodes.len() => self.push_device(row),
            Row::Device(_) => return Err(LoadError::Unfit("a device of no node")),
            Row::Groups(row) => {
                self.map.groups.extend(row.groups);
                self.moves.extend(row.moves.iter().map(|planned| ((planned.group, planned.slot), planned.to)));
            }
            Row::Partition(row) => self.map.partitions.push(row.partition),
        }
        Ok(())
    }

    // ---- changes ----

    fn push_node(&mut self, row: NodeRow, now_ms: u64) {
        self.map.nodes.push(row.on_map());
        self.node_at.insert(row.id, row.place);
        self.devices_of.push(BTreeSet::new());
        self.seen.nodes.push(NodeSeen { grace_ms: now_ms, ..NodeSeen::default() });
        self.nodes.push(row);
    }

    fn push_device(&mut self, row: DeviceRow) {
        self.map.devices.push(row.on_map());
        self.device_at.insert(row.id, row.place);
        if !row.removed {
            self.devices_of[row.node as usize].insert(row.place);
        }
        self.groups_of.push(Vec::new());
        self.seen.watches.push(Watch::default());
        self.devices.push(row);
    }

    pub(crate) fn add_node(&mut self, row: NodeRow, step: &mut Step) {
        step.map_changed = true;
        step.rows.insert(RowKey::Node(row.place));
        self.push_node(row, step.now);
    }

    pub(crate) fn add_device(&mut self, row: DeviceRow, step: &mut Step) {
        step.map_changed = true;
        step.rows.insert(RowKey::Device(row.place));
        self.push_device(row);
    }

    pub(crate) fn edit_node(&mut self, at: u32, step: &mut Step, change: impl FnOnce(&mut NodeRow)) {
        let row = &mut self.nodes[at as usize];
        let before = row.clone();
        change(row);
        if *row != before {
            step.rows.insert(RowKey::Node(at));
            let on_map = row.on_map();
            if self.map.nodes[at as usize] != on_map {
                self.map.nodes[at as usize] = on_map;
                step.map_changed = true;
            }
        }
    }

    pub(crate) fn edit_device(&mut self, at: u32, step: &mut Step, change: impl FnOnce(&mut DeviceRow)) {
        let row = &mut self.devices[at as usize];
        let before = row.clone();
        change(row);
        if *row != before {
            self.devices_of[before.node as usize].remove(&at);
            if !row.removed {
                self.devices_of[row.node as usize].insert(at);
            }
            step.rows.insert(RowKey::Device(at));
            let on_map = row.on_map();
            if self.map.devices[at as usize] != on_map {
                self.map.devices[at as usize] = on_map;
                step.map_changed = true;
            }
        }
    }

    pub(crate) fn add_groups(&mut self, groups: Vec<Group>, step: &mut Step) {
        let first = count(self.map.groups.len());
        self.map.groups.extend(groups);
        let last = count(self.map.groups.len());
        if last > first {
            step.map_changed = true;
            step.rows.extend((first / GROUPS_PER_ROW..last.div_ceil(GROUPS_PER_ROW)).map(RowKey::Groups));
            self.index_groups(first);
        }
    }

    pub(crate) fn add_partition(&mut self, chain: Vec<u32>, step: &mut Step) {
        let place = count(self.map.partitions.len());
        self.map.partitions.push(MapPartition { id: PartitionId(place), chain, epoch: 1 });
        step.map_changed = true;
        step.rows.insert(RowKey::Partition(place));
    }

    fn index_groups(&mut self, first: u32) {
        for (number, group) in (first..).zip(&self.map.groups[first as usize..]) {
            for slot in &group.slots {
                let held = &mut self.groups_of[*slot as usize];
                if held.last() != Some(&number) {
                    held.push(number);
                }
            }
        }
    }

    // ---- questions ----

    pub(crate) fn formed(&self) -> bool {
        !self.map.groups.is_empty()
    }

    pub(crate) fn expiry_ms(&self) -> u64 {
        self.limits.expires_after_ms(self.nodes.len())
    }

    /// A node as people know it.
    pub(crate) fn named(&self, at: u32) -> String {
        let row = &self.nodes[at as usize];
        if row.facts.name.is_empty() { row.id.to_string() } else { format!("{} ({})", row.facts.name, row.id) }
    }

    /// The partitions whose chain is this node alone.
    pub(crate) fn partitions_only_on(&self, at: u32) -> impl Iterator<Item = PartitionId> + '_ {
        self.map.partitions.iter().filter(move |partition| partition.chain == [at]).map(|partition| partition.id)
    }
}

/// A length as a place; all lists are bounded far below 2^32.
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).expect("lists are bounded")
}
