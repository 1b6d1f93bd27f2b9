//! A zoned simulated disk keeps the contract of zoned devices, and a crash leaves what its fault model says.

use base::SeededEntropy;
use disk::contract::{self, pattern};
use disk::{AlignedBuf, AlignedBytes, BlockDevice, DiskError, DiskOp, DiskResult, IO_ALIGN, ZoneFacts, ZoneFault};
use futures::executor::block_on;
use simdisk::{FaultAtlas, Shape, SimDisk};

const PAGE: u64 = IO_ALIGN as u64;
const ZONE: u64 = 256 * PAGE;
const CAPACITY: u64 = 200 * PAGE;

fn zoned_disk(seed: u64, sector_bytes: u32, conventional_zones: u32, max_open: Option<u32>) -> SimDisk {
    let zones = Some(ZoneFacts { zone_bytes: ZONE, capacity_bytes: CAPACITY, conventional_zones, max_open });
    SimDisk::with_shape(8 * ZONE + 5 * PAGE, seed, FaultAtlas::default(), Shape { sector_bytes, zones })
}

fn append(disk: &SimDisk, offset: u64, seed: u64, pages: usize) -> DiskResult<()> {
    block_on(disk.write(offset, vec![pattern(seed, pages)]))
}

fn pointer(disk: &SimDisk, offset: u64) -> u64 {
    block_on(disk.write_pointer(offset)).expect("a report succeeds")
}

fn fault<T: std::fmt::Debug>(result: DiskResult<T>) -> ZoneFault {
    match result {
        Err(DiskError::Zone { fault, .. }) => fault,
        other => panic!("not refused by the zone: {other:?}"),
    }
}

#[test]
fn it_keeps_the_contract_of_zoned_devices() {
    for seed in 0..8 {
        for sector_bytes in [512, 4096] {
            for (conventional, max_open) in [(0, None), (2, Some(2)), (1, Some(6))] {
                let disk = zoned_disk(seed, sector_bytes, conventional, max_open);
                assert_eq!(disk.facts().size_bytes, 8 * ZONE, "whole zones");
                block_on(contract::zoned(&disk));
            }
        }
    }
}

#[test]
fn a_zone_is_filled_to_its_capacity_and_no_further() {
    let disk = zoned_disk(1, 512, 0, Some(1));
    for at in (0..200).step_by(40) {
        append(&disk, at * PAGE, at, 40).expect("the zone has room");
    }
    assert_eq!(pointer(&disk, 0), CAPACITY);
    for offset in [CAPACITY, CAPACITY - PAGE] {
        let pages = if offset == CAPACITY { 1 } else { 2 };
        assert_eq!(fault(append(&disk, offset, 1, pages)), ZoneFault::Crosses);
    }
    append(&disk, ZONE, 9, 1).expect("a full zone is not open");
}

#[test]
fn one_change_of_a_zone_is_under_way_at_a_time() {
    let disk = zoned_disk(2, 512, 0, None);
    let first = disk.write(0, vec![pattern(1, 1)]);
    for offset in [0, PAGE] {
        assert_eq!(fault(append(&disk, offset, 2, 1)), ZoneFault::Busy);
    }
    assert_eq!(fault(block_on(disk.reset_zone(0))), ZoneFault::Busy);
    assert_eq!(fault(block_on(disk.finish_zone(0))), ZoneFault::Busy);
    append(&disk, ZONE, 3, 1).expect("another zone is free");
    block_on(first).unwrap();
    let reset = disk.reset_zone(0);
    assert_eq!(fault(append(&disk, PAGE, 2, 1)), ZoneFault::Busy);
    block_on(reset).unwrap();
    append(&disk, 0, 4, 1).expect("the reset has finished");
}

#[test]
fn no_more_zones_are_open_than_may_be() {
    let disk = zoned_disk(3, 512, 1, Some(2));
    append(&disk, 0, 1, 1).expect("conventional zones do not count");
    append(&disk, ZONE, 1, 1).unwrap();
    let second = disk.write(2 * ZONE, vec![pattern(2, 1)]);
    assert_eq!(fault(append(&disk, 3 * ZONE, 3, 1)), ZoneFault::TooManyOpen);
    block_on(second).unwrap();
    assert_eq!(fault(append(&disk, 3 * ZONE, 3, 1)), ZoneFault::TooManyOpen);
    append(&disk, ZONE + PAGE, 4, 1).expect("an open zone goes on");
    block_on(disk.finish_zone(ZONE)).unwrap();
    append(&disk, 3 * ZONE, 5, 1).expect("a finished zone is not open");
    assert_eq!(fault(append(&disk, 4 * ZONE, 6, 1)), ZoneFault::TooManyOpen);
    block_on(disk.reset_zone(2 * ZONE)).unwrap();
    append(&disk, 4 * ZONE, 7, 1).expect("an emptied zone is not open");
}

#[test]
fn bytes_beyond_the_pointer_fail_or_are_zeros_or_ones() {
    let disk = zoned_disk(4, 512, 0, None);
    append(&disk, 0, 1, 1).unwrap();
    let (mut zeros, mut ones, mut errors) = (0, 0, 0);
    for _ in 0..100 {
        match block_on(disk.read(PAGE - 512, AlignedBuf::for_read(1024))) {
            Ok(read) => {
                assert!(read[..512] == pattern(1, 1)[IO_ALIGN - 512..] && read[512..].iter().all(|b| *b == read[512]));
                match read[512] {
                    0 => zeros += 1,
                    0xff => ones += 1,
                    other => panic!("{other}"),
                }
            }
            Err(error) => {
                assert!(error.is_media_fault(), "{error}");
                errors += 1;
            }
        }
        block_on(disk.read(0, AlignedBuf::for_read(IO_ALIGN))).expect("what was written is there");
    }
    assert!(zeros > 15 && ones > 15 && errors > 15, "{zeros} {ones} {errors}");
}

/// What one zone went through since what is known to be durable, in order.
#[derive(Clone)]
enum Step {
    Write(AlignedBytes),
    Reset,
    Finish,
}

/// A zone as the test expects it.
#[derive(Clone, Default)]
struct Expected {
    bytes: Vec<u8>,
    finished: bool,
}

impl Expected {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(part) => self.bytes.extend_from_slice(part),
            Step::Finish => self.finished = true,
            Step::Reset => *self = Self::default(),
        }
    }

    fn pointer(&self) -> u64 {
        if self.finished { CAPACITY } else { self.bytes.len() as u64 }
    }

    fn matches(&self, disk: &SimDisk, zone: u64) -> bool {
        pointer(disk, zone) == zone + self.pointer()
            && disk.raw_read(zone, self.bytes.len()) == self.bytes
            && disk.raw_read(zone + self.bytes.len() as u64, 4 * IO_ALIGN).iter().all(|b| *b == 0)
    }
}

/// How a crash left a zone, of which `steps` were not durable: by how many of them, and whether by part of one more.
fn survived(disk: &SimDisk, zone: u64, durable: &Expected, steps: &[Step], sector: usize) -> Option<(usize, bool)> {
    let mut state = durable.clone();
    for (kept, step) in steps.iter().map(Some).chain([None]).enumerate() {
        if state.matches(disk, zone) {
            return Some((kept, false));
        }
        let Some(step) = step else { break };
        if let Step::Write(part) = step {
            for len in (sector..part.len()).step_by(sector) {
                let mut torn = state.clone();
                torn.bytes.extend_from_slice(&part[..len]);
                if torn.matches(disk, zone) {
                    return Some((kept, true));
                }
            }
        }
        state.apply(step);
    }
    None
}

#[test]
fn a_crash_takes_each_zone_back_to_a_place_on_its_way() {
    let (mut none, mut all, mut torn, mut odd, mut undone, mut redone) = (0, 0, 0, 0, 0, 0);
    for seed in 0..400 {
        let sector = if seed % 2 == 0 { 512 } else { 4096 };
        let disk = zoned_disk(seed, sector, 0, None);
        let entropy = SeededEntropy::new(seed);
        let mut zones: Vec<(Expected, Vec<Step>)> = vec![Default::default(); 3];
        for number in 0..20 {
            let index = entropy.below(3) as usize;
            let (start, (durable, steps)) = (index as u64 * ZONE, &mut zones[index]);
            let mut now = durable.clone();
            steps.iter().for_each(|step| now.apply(step));
            let step = match entropy.below(10) {
                0 => Step::Reset,
                1 => Step::Finish,
                2 => {
                    block_on(disk.flush()).unwrap();
                    for (durable, steps) in &mut zones {
                        steps.drain(..).for_each(|step| durable.apply(&step));
                    }
                    continue;
                }
                _ if now.finished => continue,
                _ => Step::Write(pattern(seed * 100 + number, 1 + entropy.below(3) as usize)),
            };
            // The last operation may be under way still when the power goes.
            match &step {
                Step::Reset => drop(block_on(disk.reset_zone(start))),
                Step::Finish => drop(block_on(disk.finish_zone(start))),
                Step::Write(part) => {
                    let write = disk.write(start + now.pointer(), vec![part.clone()]);
                    if number == 19 { disk.crash() } else { block_on(write).unwrap() }
                }
            }
            steps.push(step);
        }
        disk.crash();
        let disk = disk.reopen();
        for (index, (durable, steps)) in zones.iter().enumerate() {
            let zone = index as u64 * ZONE;
            let Some((kept, partly)) = survived(&disk, zone, durable, steps, sector as usize) else {
                panic!("seed {seed}, zone {index}: left in a state that it never was in");
            };
            let resets = |steps: &[Step]| steps.iter().any(|step| matches!(step, Step::Reset));
            undone += usize::from(resets(&steps[kept..]) && !durable.bytes.is_empty());
            redone += usize::from(resets(&steps[..kept]) && !durable.bytes.is_empty());
            none += usize::from(kept == 0 && !partly && !steps.is_empty());
            all += usize::from(kept == steps.len() && !steps.is_empty());
            torn += usize::from(partly);
            let at = pointer(&disk, zone);
            if !at.is_multiple_of(PAGE) {
                odd += 1;
                assert_eq!(sector, 512);
                let refused = append(&disk, at - at % PAGE, 1, 1);
                assert_eq!(fault(refused), ZoneFault::NotAtPointer { pointer: at });
                block_on(disk.reset_zone(zone)).unwrap();
                append(&disk, zone, 2, 1).expect("a reset frees the zone");
            }
        }
    }
    for (what, count) in
        [("none", none), ("all", all), ("torn", torn), ("odd", odd), ("undone", undone), ("redone", redone)]
    {
        assert!(count > 20, "{what} was reached {count} times");
    }
}

#[test]
fn every_change_of_a_zone_can_be_the_last() {
    for cut in 0..=6 {
        let disk = zoned_disk(50 + cut, 512, 0, None);
        disk.power_cut_after(cut);
        let steps = || -> DiskResult<()> {
            append(&disk, 0, 1, 2)?;
            block_on(disk.flush())?;
            block_on(disk.reset_zone(0))?;
            append(&disk, 0, 2, 1)?;
            block_on(disk.finish_zone(0))?;
            block_on(disk.flush())
        };
        assert_eq!(steps().is_ok(), cut == 6, "cut {cut}");
        assert_eq!((disk.is_gone(), disk.ops()), (cut < 6, cut));
        assert!(block_on(disk.reset_zone(0)).unwrap_err().is_gone(), "the last one, or after it");
    }
}

#[test]
fn a_process_that_dies_alone_has_its_changes_finished() {
    let disk = zoned_disk(6, 512, 0, None);
    append(&disk, 0, 1, 1).unwrap();
    drop(disk.write(ZONE, vec![pattern(2, 1)]));
    let (reset, write) = (disk.reset_zone(0), disk.write(2 * ZONE, vec![pattern(3, 1)]));
    let again = disk.reopen();
    assert!(matches!(block_on(reset), Err(DiskError::Gone { op: DiskOp::ResetZone })));
    assert!(matches!(block_on(write), Err(DiskError::Gone { op: DiskOp::Write })));
    assert_eq!([0, ZONE, 2 * ZONE].map(|zone| pointer(&again, zone)), [0, ZONE + PAGE, 2 * ZONE + PAGE]);
    block_on(again.flush()).unwrap();
    again.crash();
    assert!(again.raw_read(2 * ZONE, IO_ALIGN) == pattern(3, 1)[..], "finished, then flushed");
}

#[test]
fn after_a_failed_flush_nothing_of_the_zone_is_safe_until_it_was_reset() {
    let (mut lost, mut torn) = (0, 0);
    for seed in 0..60 {
        let disk = zoned_disk(seed, 512, 0, None);
        append(&disk, 0, 1, 1).unwrap();
        disk.fail_next_flush();
        assert!(block_on(disk.flush()).unwrap_err().is_media_fault());
        append(&disk, PAGE, 2, 1).unwrap();
        append(&disk, ZONE, 3, 1).unwrap();
        block_on(disk.flush()).expect("the next flush succeeds");
        if seed % 2 == 0 {
            block_on(disk.reset_zone(0)).unwrap();
            append(&disk, 0, 4, 1).unwrap();
            block_on(disk.flush()).unwrap();
        }
        disk.crash();
        let disk = disk.reopen();
        assert!(disk.raw_read(ZONE, IO_ALIGN) == pattern(3, 1)[..], "another zone is flushed as ever");
        let after = pointer(&disk, 0);
        if seed % 2 == 0 {
            assert!(after == PAGE && disk.raw_read(0, IO_ALIGN) == pattern(4, 1)[..], "seed {seed}");
        } else if after < PAGE {
            lost += 1;
        } else {
            assert_eq!(after, 2 * PAGE, "what came through and was flushed later is safe, seed {seed}");
            torn += 1;
        }
    }
    assert!(lost > 5 && torn > 5, "{lost} {torn}");
}

#[test]
fn failed_writes_keep_a_prefix_and_lost_ones_leave_zeros() {
    let disk = zoned_disk(7, 512, 0, None);
    let mut odd = 0;
    for round in 0..50 {
        block_on(disk.reset_zone(0)).unwrap();
        disk.fail_next_write();
        assert!(append(&disk, 0, round, 2).unwrap_err().is_media_fault());
        let kept = pointer(&disk, 0) as usize;
        assert!(kept < 2 * IO_ALIGN && disk.raw_read(0, kept) == pattern(round, 2)[..kept], "round {round}");
        odd += usize::from(!kept.is_multiple_of(IO_ALIGN));
    }
    assert!(odd > 10, "{odd}");
    block_on(disk.reset_zone(0)).unwrap();
    for atlas in [
        FaultAtlas { lost_write_one_in: 1, ..FaultAtlas::default() },
        FaultAtlas { misdirected_write_one_in: 1, ..FaultAtlas::default() },
    ] {
        let at = pointer(&disk, 0);
        disk.set_faults(atlas);
        append(&disk, at, 1, 1).expect("acknowledged");
        disk.set_faults(FaultAtlas::default());
        assert_eq!(pointer(&disk, 0), at + PAGE, "the pointer moves all the same");
        assert!(disk.raw_read(at, IO_ALIGN).iter().all(|b| *b == 0));
    }
    assert_eq!((disk.injected().lost_writes, disk.injected().misdirected_writes), (1, 1));
}

#[test]
fn rot_in_a_zone_stays_through_flush_and_crash_and_goes_with_a_reset() {
    let disk = zoned_disk(8, 512, 0, None);
    append(&disk, 0, 1, 1).unwrap();
    disk.flip_bit(7, 2);
    block_on(disk.flush()).unwrap();
    disk.crash();
    let disk = disk.reopen();
    assert_eq!(disk.raw_read(7, 1)[0], pattern(1, 1)[7] ^ 4);
    block_on(disk.reset_zone(0)).unwrap();
    append(&disk, 0, 1, 1).unwrap();
    assert_eq!(disk.raw_read(7, 1)[0], pattern(1, 1)[7]);
}
