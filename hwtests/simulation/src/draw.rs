//! Draws runs from seeds. Arguments keep to the corners of the format; few keys, so that operations meet.

use base::{Entropy, SeededEntropy};
use format::{DIRECT_MIN_BYTES, Geometry, PAYLOAD_MAX_BYTES, RecordLayout};
use shards::Limits;

use crate::plan::{Config, Key, Op, Plan, Target, Zones};

/// Extent size of most runs: reclaim and checkpoints happen after a few writes.
const EXTENT_BYTES: u32 = 256 << 10;

/// One device in so many is zoned.
const ZONED_ONE_IN: u64 = 4;

/// Fewest zones that a store must be able to have written in part.
const OPEN_MIN: u32 = 8;

/// What sort of trouble a run is about. Runs without faults stay strict, so that what is relaxed under faults
/// cannot hide anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong.
    Calm,
    /// Power cuts and dying processes.
    Crashes,
    /// Reads, writes and flushes fail.
    Errors,
    /// Bits flip and sectors go bad.
    Damage,
    /// The device lies.
    Lies,
}

impl Weather {
    /// Every sort.
    pub const ALL: [Self; 5] = [Self::Calm, Self::Crashes, Self::Errors, Self::Damage, Self::Lies];
}

/// What devices runs are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// Both sorts; some of them zoned.
    All,
    /// Zoned ones alone.
    Zoned,
}

/// The run that `seed` decides.
#[must_use]
pub fn plan(seed: u64, devices: Devices) -> Plan {
    let rng = SeededEntropy::new(seed);
    let weather = match rng.below(10) {
        0..=1 => Weather::Calm,
        2..=5 => Weather::Crashes,
        6 => Weather::Errors,
        7..=8 => Weather::Damage,
        _ => Weather::Lies,
    };
    plan_in(seed, weather, devices)
}

/// The run that `seed` decides, of one sort.
#[must_use]
pub fn plan_in(seed: u64, weather: Weather, devices: Devices) -> Plan {
    let rng = SeededEntropy::new(seed ^ 0x7077);
    let mut draw = Draw::new(&rng, weather, zones(seed, devices));
    let count = if rng.one_in(8) { 60 + rng.below(120) } else { 4 + rng.below(44) };
    let mut ops = Vec::new();
    while (ops.len() as u64) < count {
        if rng.one_in(24) {
            draw.motif(&mut ops);
        } else {
            ops.push(draw.step());
        }
    }
    Plan { seed, config: draw.config, ops }
}

/// A run of one life without faults, for cutting it at every device operation.
#[must_use]
pub fn short_life(seed: u64, devices: Devices) -> Plan {
    let rng = SeededEntropy::new(seed ^ 0x5407);
    let mut draw = Draw::new(&rng, Weather::Calm, zones(seed, devices));
    // Filling a device takes a hundred operations of the device each; a life is run once for every one of them.
    let count = if draw.filling { 3 + rng.below(6) } else { 8 + rng.below(24) };
    let mut ops = Vec::new();
    while (ops.len() as u64) < count {
        let step = draw.step();
        if !matches!(step.1, Op::Look) {
            ops.push(step);
        }
    }
    Plan { seed, config: draw.config, ops }
}

struct Draw<'a> {
    rng: &'a SeededEntropy,
    weather: Weather,
    config: Config,
    next_id: u64,
    /// Sizes keep to this profile.
    sizes: u64,
    /// A run that fills the device.
    filling: bool,
}

impl<'a> Draw<'a> {
    fn new(rng: &'a SeededEntropy, weather: Weather, zones: Option<(Zones, u32)>) -> Self {
        let filling = rng.one_in(5);
        let extents = if rng.one_in(2) { 24 } else { 24 + rng.below(17) as u32 };
        let config = Config {
            extents,
            extent_bytes: if rng.one_in(16) { 2 * EXTENT_BYTES } else { EXTENT_BYTES },
            zones: None,
            limits: limits(rng),
            clients: 1 + rng.below(4) as u8,
            keys: if filling { 40 + rng.below(60) as u8 } else { 2 + rng.below(14) as u8 },
            slow_one_in: if rng.one_in(4) { 6 } else { 0 },
            copy: rng.below(2) as u8,
            store_weight: [1, 4, 4, 16][rng.below(4) as usize],
            cut_at: None,
            recovery_cut: None,
            sudden: rng.one_in(2),
        };
        // Drawn apart, so that seeds of other devices mean what they always did.
        let config =
            zones.map_or(config, |(zones, extent_bytes)| Config { zones: Some(zones), extent_bytes, ..config });
        Self { rng, weather, config, next_id: 0, sizes: rng.below(4), filling }
    }

    fn key(&self) -> Key {
        // Half of the draws fall on three keys: operations must meet.
        let keys = u64::from(self.config.keys);
        Key(if self.filling || self.rng.one_in(2) { self.rng.below(keys) } else { self.rng.below(keys.min(3)) } as u8)
    }

    fn id(&mut self, count: u8) -> u64 {
        let id = self.next_id + 1;
        self.next_id += u64::from(count);
        id
    }

    fn len(&self) -> u32 {
        let rng = self.rng;
        let sizes = if rng.one_in(8) { rng.below(4) } else { self.sizes };
        if self.filling && !rng.one_in(4) {
            return 30_000 + rng.below(200_000) as u32;
        }
        match sizes {
            0 => rng.below(40) as u32,
            1 => corner(rng, &[0, 1, 511, 512, 1024, 4095, 4096, 4097, 8192]),
            2 => rng.below(50_000) as u32,
            _ => corner(rng, &[0, 4096, DIRECT_MIN_BYTES as u32, 65_536, 131_072, self.largest()]),
        }
    }

    /// The largest payload (beside 8 bytes of descriptor) whose record fits into an extent.
    fn largest(&self) -> u32 {
        let extent = self.config.extent_bytes as usize;
        let mut len = extent - 4096;
        while RecordLayout::new(8, len).record_bytes > extent {
            len -= 1;
        }
        len as u32
    }

    fn step(&mut self) -> (u8, Op) {
        let client = self.rng.below(u64::from(self.config.clients)) as u8;
        if self.rng.one_in(9) {
            return (client, self.trouble());
        }
        let (key, id, len) = (self.key(), self.id(1), self.len());
        let op = match self.rng.below(32) {
            0..=3 => Op::Get(key),
            4..=5 => self.range(key),
            6 => Op::Describe(key),
            7..=16 => Op::Put(key, id, len),
            17..=19 => Op::Delete(key),
            20..=21 => self.bulk_put(key, len),
            22 => Op::BulkDelete(key, self.count()),
            23 => Op::List([1, 2, 3, 100][self.rng.below(4) as usize]),
            24 => Op::Trim(self.rng.below(2) as u32, self.rng.below(u64::from(self.config.keys) + 2)),
            25 => Op::Sync,
            26 => Op::Checkpoint,
            27..=28 => Op::Reclaim,
            29 => Op::Verify,
            30 => Op::Look,
            _ => Op::Put(key, id, self.odd_len()),
        };
        (client, op)
    }

    fn count(&self) -> u8 {
        1 + self.rng.below(if self.filling { 30 } else { 6 }) as u8
    }

    fn bulk_put(&mut self, key: Key, len: u32) -> Op {
        let count = self.count();
        Op::BulkPut(key, count, self.id(count), len)
    }

    fn range(&self, key: Key) -> Op {
        let from = corner(self.rng, &[0, 1, 4095, 4096, 8192, 32_768]);
        let len = corner(self.rng, &[0, 1, 512, 4096, 10_000, 70_000]);
        Op::GetRange(key, from, from.saturating_add(len))
    }

    /// Lengths at the edge of what is refused, and now and then beyond the format's limit.
    fn odd_len(&self) -> u32 {
        if self.rng.one_in(12) {
            return PAYLOAD_MAX_BYTES as u32 + self.rng.below(2) as u32;
        }
        corner(self.rng, &[self.largest(), self.config.extent_bytes])
    }

    fn trouble(&mut self) -> Op {
        let rng = self.rng;
        let crash =
            |own: &Self| Op::Crash([rng.below(6), rng.below(40), 255][rng.below(3) as usize] as u8, own.recovery_cut());
        match self.weather {
            Weather::Calm => [Op::Look, Op::Retire(false), Op::Reclaim][rng.below(3) as usize],
            Weather::Crashes => match rng.below(6) {
                0 => Op::Kill,
                1 => Op::Retire(rng.one_in(2)),
                _ => crash(self),
            },
            Weather::Errors => match rng.below(8) {
                0..=2 => Op::FailReads(1 + rng.below(2) as u8),
                3 => Op::FailWrite,
                4 => Op::FailFlush,
                5 => Op::MisdirectRead,
                6 => Op::Retire(rng.one_in(2)),
                _ => crash(self),
            },
            Weather::Damage => match rng.below(8) {
                0..=3 => Op::Flip(self.target(), rng.one_in(2)),
                4 => Op::BadSector(self.target(), rng.one_in(2)),
                5 => Op::Retire(rng.one_in(2)),
                _ => crash(self),
            },
            Weather::Lies => match rng.below(8) {
                0..=1 => Op::LoseWrite,
                2 => Op::MisdirectWrite,
                3..=4 => Op::LieFlush,
                5 => Op::Retire(rng.one_in(2)),
                _ => crash(self),
            },
        }
    }

    /// A chain of events that is likely to matter and unlikely to be drawn step by step.
    fn motif(&mut self, ops: &mut Vec<(u8, Op)>) {
        match self.weather {
            Weather::Crashes => self.overwritten_between_crashes(ops),
            Weather::Damage => self.deleted_before_checkpoint_is_damaged(ops),
            Weather::Lies => self.generation_drawn_twice(ops),
            Weather::Calm | Weather::Errors => {}
        }
    }

    fn client(&self) -> u8 {
        self.rng.below(u64::from(self.config.clients)) as u8
    }

    /// Records rolled forward, replaced at once, and the power gone again before a checkpoint has settled it.
    fn overwritten_between_crashes(&mut self, ops: &mut Vec<(u8, Op)>) {
        for _ in 0..1 + self.rng.below(6) {
            let (client, key, id) = (self.client(), self.key(), self.id(1));
            ops.push((client, Op::Put(key, id, self.rng.below(600) as u32)));
        }
        ops.push((0, Op::Crash(u8::MAX, None)));
        for _ in 0..1 + self.rng.below(3) {
            let (client, key, id) = (self.client(), self.key(), self.id(1));
            ops.push((client, if self.rng.one_in(4) { Op::Delete(key) } else { Op::Put(key, id, 100) }));
        }
        ops.push((0, Op::Crash(self.rng.below(16) as u8, None)));
    }

    /// Tombstones in extents that are free by now, and a checkpoint damaged that had made them so.
    fn deleted_before_checkpoint_is_damaged(&mut self, ops: &mut Vec<(u8, Op)>) {
        let (key, id) = (self.key(), self.id(1));
        let again = |own: &Self| if own.rng.one_in(2) { Op::Retire(true) } else { Op::Kill };
        ops.extend([(0, Op::Put(key, id, 700)), (0, Op::Checkpoint), (0, Op::Look), (0, Op::Delete(key))]);
        ops.push((0, again(self)));
        for _ in 0..self.rng.below(8) {
            let (client, key, id) = (self.client(), self.key(), self.id(1));
            ops.push((client, if self.rng.one_in(4) { Op::Checkpoint } else { Op::Put(key, id, 900) }));
        }
        ops.push((0, Op::Flip(Target::Checkpoint, false)));
        if self.rng.one_in(2) {
            ops.push((0, Op::Checkpoint));
            for _ in 0..1 + self.rng.below(4) {
                let (client, key, id) = (self.client(), self.key(), self.id(1));
                ops.push((client, Op::Put(key, id, 900)));
            }
        }
        ops.push((0, Op::Crash(self.rng.below(24) as u8, None)));
    }

    /// A life whose number was lost, so that the next one has it again; and a lost write where the first one wrote.
    fn generation_drawn_twice(&mut self, ops: &mut Vec<(u8, Op)>) {
        let stripe = |own: &Self| Key(own.rng.below(u64::from(own.config.keys.min(4))) as u8);
        let (first, second, id) = (stripe(self), stripe(self), self.id(2));
        // Without a checkpoint, recovery would look at every extent and see that the number was in use.
        ops.extend([(0, Op::Checkpoint), (0, Op::LoseOpening), (0, Op::Put(first, id, 100))]);
        ops.push((0, Op::Crash(self.rng.below(4) as u8, None)));
        ops.extend([(0, Op::LoseWrite), (0, Op::Put(second, id + 1, 100)), (0, Op::Get(second)), (0, Op::Look)]);
    }

    fn recovery_cut(&self) -> Option<u8> {
        self.rng.one_in(3).then(|| self.rng.below(8) as u8)
    }

    fn target(&self) -> Target {
        match self.rng.below(8) {
            0 => Target::Label,
            1 => Target::Anchor,
            2..=3 => Target::Checkpoint,
            4..=5 => Target::Header(self.key()),
            _ => Target::Payload(self.key()),
        }
    }
}

/// One of the corners, or one beside it.
fn corner(rng: &SeededEntropy, corners: &[u32]) -> u32 {
    let at = corners[rng.below(corners.len() as u64) as usize];
    match rng.below(4) {
        0 => at + 1,
        1 => at.saturating_sub(1),
        _ => at,
    }
}

/// The zones of the device of `seed`, if it has some, and what each holds: seldom more than a zone must hold at least,
/// so that the log of anchor pages goes from zone to zone every few pages.
fn zones(seed: u64, devices: Devices) -> Option<(Zones, u32)> {
    let rng = SeededEntropy::new(seed ^ 0x20e5);
    if devices == Devices::All && !rng.one_in(ZONED_ONE_IN) {
        return None;
    }
    let pages = if rng.one_in(8) { 60 } else { rng.below(6) as u32 };
    let zones = Zones {
        hole_bytes: if rng.one_in(2) { 0 } else { 4096 * (1 + rng.below(40) as u32) },
        conventional: if rng.one_in(2) { 0 } else { rng.below(6) as u32 },
        max_open: [None, Some(OPEN_MIN), Some(OPEN_MIN), Some(14)][rng.below(4) as usize],
        sector_bytes: if rng.one_in(4) { 4096 } else { 512 },
    };
    Some((zones, Geometry::MIN_ZONE_BYTES + 4096 * pages))
}

fn limits(rng: &SeededEntropy) -> Limits {
    let usual = Limits::default();
    match rng.below(4) {
        0 => Limits {
            queue_len: 1,
            tasks_max: 1,
            moves_at_once: 1,
            batch_max_bytes: 1,
            small_segments_max: 1,
            unflushed_max_bytes: 1,
            checkpoint_interval_bytes: 1 << rng.below(24),
        },
        1 => Limits {
            queue_len: 1 + rng.below(3) as usize,
            tasks_max: 1 + rng.below(4) as usize,
            moves_at_once: 1 + rng.below(3) as usize,
            batch_max_bytes: 1 << (9 + rng.below(8)),
            small_segments_max: 1 + rng.below(2) as usize,
            unflushed_max_bytes: 1 << (9 + rng.below(12)),
            checkpoint_interval_bytes: 1 << (10 + rng.below(12)),
        },
        2 => Limits { checkpoint_interval_bytes: 300_000 + rng.next_u64() % 1_000_000, ..usual },
        _ => usual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_plan() {
        let plan = |seed| plan(seed, Devices::All);
        assert_eq!(plan(9), plan(9));
        assert_ne!(plan(9).ops, plan(10).ops);
    }

    #[test]
    fn every_sort_of_weather_is_drawn_and_only_its_own_faults() {
        for seed in 0..200 {
            let calm = plan_in(seed, Weather::Calm, Devices::All);
            assert!(calm.ops.iter().all(|(_, op)| !matches!(op, Op::Crash(..) | Op::FailReads(_) | Op::Flip(..))));
            let crashes = plan_in(seed, Weather::Crashes, Devices::All);
            assert!(crashes.ops.iter().all(|(_, op)| !matches!(op, Op::LoseWrite | Op::FailWrite | Op::Flip(..))));
        }
    }
}
