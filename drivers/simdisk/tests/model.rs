//! The simulated disk keeps the contract, and lies exactly as its fault model says.

use base::SeededEntropy;
use disk::contract::{self, pattern};
use disk::{AlignedBuf, BlockDevice, DiskError, IO_ALIGN};
use futures::executor::block_on;
use simdisk::{FaultAtlas, Shape, SimDisk};

const PAGE: u64 = IO_ALIGN as u64;

fn read(disk: &SimDisk, offset: u64) -> Vec<u8> {
    block_on(disk.read(offset, AlignedBuf::zeroed(IO_ALIGN))).expect("a read succeeds").to_vec()
}

fn write(disk: &SimDisk, offset: u64, seed: u64) {
    block_on(disk.write(offset, vec![pattern(seed, 1)])).expect("a write succeeds");
}

#[test]
fn it_keeps_the_contract_of_devices() {
    for seed in 0..4 {
        for sector_bytes in [512, 4096] {
            let disk = SimDisk::with_shape(
                contract::SIZE_BYTES_MIN,
                seed,
                FaultAtlas::default(),
                Shape { sector_bytes, zones: None },
            );
            assert_eq!(disk.facts().read_align_bytes, sector_bytes);
            block_on(contract::all(&disk));
        }
    }
}

#[test]
fn slow_operations_keep_the_contract_too() {
    let disk = SimDisk::with_faults(8 << 20, 3, FaultAtlas { slow_one_in: 5, ..FaultAtlas::default() });
    block_on(contract::all(&disk));
    assert!(disk.injected().slow_ops > 100, "{:?}", disk.injected());
}

#[test]
fn a_crash_keeps_what_was_flushed_and_any_sectors_of_the_rest() {
    let (mut none, mut some, mut all) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(1 << 20, seed);
        write(&disk, 0, 1);
        block_on(disk.flush()).unwrap();
        write(&disk, PAGE, 2);
        disk.crash();
        assert_eq!(block_on(disk.flush()), Err(DiskError::Gone { op: disk::DiskOp::Flush }));
        let disk = disk.reopen();
        assert_eq!(read(&disk, 0), pattern(1, 1)[..], "flushed");
        let (got, written) = (read(&disk, PAGE), pattern(2, 1));
        let sectors = got.chunks(512).zip(written.chunks(512)).map(|(got, new)| {
            assert!(got == new || got.iter().all(|b| *b == 0), "a sector is old or new, never a mixture");
            usize::from(got == new)
        });
        match sectors.sum::<usize>() {
            0 => none += 1,
            8 => all += 1,
            _ => some += 1,
        }
    }
    assert!(none > 20 && some > 20 && all > 20, "all outcomes are drawn: {none} {some} {all}");
}

#[test]
fn a_flush_covers_only_writes_that_had_finished_before_it() {
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::new(1 << 20, *seed);
        let late = disk.write(0, vec![pattern(1, 1)]);
        block_on(disk.flush()).unwrap();
        block_on(late).unwrap();
        disk.crash();
        disk.raw_read(0, IO_ALIGN) != pattern(1, 1)[..]
    });
    assert!(lost.count() > 10, "a write in flight is not covered");
}

#[test]
fn every_operation_can_be_the_last() {
    // Three writes and two flushes; the power goes at each of the five in turn.
    for cut in 0..=5 {
        let disk = SimDisk::new(1 << 20, 40 + cut);
        disk.power_cut_after(cut);
        let steps = || -> Result<(), DiskError> {
            block_on(disk.write(0, vec![pattern(1, 1)]))?;
            block_on(disk.flush())?;
            block_on(disk.write(PAGE, vec![pattern(2, 1)]))?;
            block_on(disk.write(2 * PAGE, vec![pattern(3, 1)]))?;
            block_on(disk.flush())
        };
        let outcome = steps();
        assert_eq!(outcome.is_ok(), cut == 5, "cut {cut}: {outcome:?}");
        assert_eq!((disk.is_gone(), disk.ops()), (cut < 5, cut));
        let again = disk.reopen();
        if cut >= 2 {
            assert_eq!(read(&again, 0), pattern(1, 1)[..], "cut {cut}");
        }
        assert_eq!(again.injected().crashes, u64::from(cut < 5));
    }
}

#[test]
fn a_process_that_dies_alone_loses_nothing_until_the_power_goes() {
    let disk = SimDisk::new(1 << 20, 1);
    drop(disk.write(0, vec![pattern(1, 1)]));
    let again = disk.reopen();
    assert!(disk.is_gone() && !again.is_gone());
    assert_eq!(read(&again, 0), pattern(1, 1)[..]);
    block_on(again.flush()).unwrap();
    again.crash();
    assert_eq!(again.raw_read(0, IO_ALIGN), pattern(1, 1)[..]);
}

#[test]
fn a_failed_flush_is_not_made_good_by_the_next_one() {
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::new(1 << 20, *seed);
        write(&disk, 0, 1);
        disk.fail_next_flush();
        assert!(block_on(disk.flush()).unwrap_err().is_media_fault());
        assert_eq!(read(&disk, 0), pattern(1, 1)[..], "reads still show it");
        block_on(disk.flush()).expect("the next flush succeeds");
        disk.crash();
        disk.raw_read(0, IO_ALIGN) != pattern(1, 1)[..]
    });
    assert!(lost.count() > 10);
}

#[test]
fn hooks_strike_once_and_where_they_are_told() {
    let disk = SimDisk::new(1 << 20, 1);
    write(&disk, 0, 1);
    disk.fail_next_read();
    assert!(block_on(disk.read(0, AlignedBuf::zeroed(1))).unwrap_err().is_media_fault());
    disk.fail_next_write();
    assert!(block_on(disk.write(PAGE, vec![pattern(2, 1)])).unwrap_err().is_media_fault());
    disk.flip_bit(5, 3);
    assert_eq!(read(&disk, 0)[5], pattern(1, 1)[5] ^ 8);
    block_on(disk.flush()).unwrap();
    assert_eq!(read(&disk, 0)[5], pattern(1, 1)[5] ^ 8, "a flush does not undo rot");
    disk.set_bad(PAGE + 512..PAGE + 513);
    assert!(block_on(disk.read(0, AlignedBuf::zeroed(2 * IO_ALIGN))).unwrap_err().is_media_fault());
    assert!(block_on(disk.write(PAGE, vec![pattern(2, 1)])).unwrap_err().is_media_fault());
    assert_eq!(read(&disk, 0).len(), IO_ALIGN, "the neighbour is well");
    disk.set_good(PAGE..PAGE + 1024);
    write(&disk, PAGE, 3);
    disk.kill();
    assert!(block_on(disk.flush()).unwrap_err().is_gone());
    assert!(block_on(disk.reopen().flush()).unwrap_err().is_gone(), "the dead stay dead");
    let counts = disk.injected();
    assert_eq!((counts.read_errors, counts.write_errors, counts.bit_flips), (1, 1, 1));
    assert_eq!((counts.bad_sectors, counts.bad_sector_hits, counts.deaths), (1, 2, 1));
}

#[test]
fn a_bad_sector_fails_the_reads_that_touch_it_and_no_others() {
    let disk = SimDisk::new(1 << 20, 1);
    write(&disk, 0, 1);
    disk.set_bad(1024..1025);
    let read = |offset, len| block_on(disk.read(offset, AlignedBuf::for_read(len)));
    for (offset, len) in [(0, 1024), (1536, 2560), (1536, 512)] {
        let range = offset as usize..offset as usize + len;
        assert_eq!(read(offset, len).expect("the bad sector is not touched")[..], pattern(1, 1)[range]);
    }
    for (offset, len) in [(0, 4096), (1024, 512), (512, 1024), (1024, 3072)] {
        assert!(read(offset, len).unwrap_err().is_media_fault(), "{len} bytes from {offset} on");
    }
}

#[test]
fn a_misdirected_read_of_a_sector_gives_some_other_sector() {
    let disk = SimDisk::new(16 * PAGE, 5);
    let all = pattern(1, 16);
    block_on(disk.write(0, vec![all.clone()])).unwrap();
    disk.set_faults(FaultAtlas { misdirected_read_one_in: 1, ..FaultAtlas::default() });
    let mut inside_pages = 0;
    for _ in 0..50 {
        let got = block_on(disk.read(512, AlignedBuf::for_read(512))).unwrap();
        let from = all.chunks(512).position(|sector| sector == &got[..]).expect("a whole sector of the disk");
        inside_pages += usize::from(from % 8 != 0);
    }
    assert!(inside_pages > 10, "places inside pages are drawn: {inside_pages}");
}

/// Random writes, reads and flushes; returns everything that came back.
fn run(atlas: FaultAtlas, seed: u64) -> (Vec<String>, simdisk::FaultCounts) {
    let disk = SimDisk::with_faults(256 * PAGE, seed, atlas);
    let entropy = SeededEntropy::new(seed);
    let mut log = Vec::new();
    for i in 0..2000 {
        let place = entropy.below(256) * PAGE;
        log.push(match entropy.below(3) {
            0 => format!("{:?}", block_on(disk.flush())),
            1 => format!("{:?}", block_on(disk.write(place, vec![pattern(i, 1)]))),
            _ => format!("{:?}", block_on(disk.read(place, AlignedBuf::zeroed(1))).map(|b| b.to_vec())),
        });
    }
    (log, disk.injected())
}

#[test]
fn each_fault_of_the_atlas_strikes_and_is_counted_alone() {
    let off = FaultAtlas::default();
    type Count = fn(&simdisk::FaultCounts) -> u64;
    let table: [(FaultAtlas, Count); 10] = [
        (FaultAtlas { read_error_one_in: 50, ..off }, |c| c.read_errors),
        (FaultAtlas { write_error_one_in: 50, ..off }, |c| c.write_errors),
        (FaultAtlas { bad_sector_one_in: 50, ..off }, |c| c.bad_sectors),
        (FaultAtlas { bit_rot_one_in: 50, ..off }, |c| c.bit_flips),
        (FaultAtlas { misdirected_read_one_in: 50, ..off }, |c| c.misdirected_reads),
        (FaultAtlas { misdirected_write_one_in: 50, ..off }, |c| c.misdirected_writes),
        (FaultAtlas { lost_write_one_in: 50, ..off }, |c| c.lost_writes),
        (FaultAtlas { lying_flush_one_in: 50, ..off }, |c| c.lying_flushes),
        (FaultAtlas { failing_flush_one_in: 50, ..off }, |c| c.failed_flushes),
        (FaultAtlas { death_one_in: 500, ..off }, |c| c.deaths),
    ];
    let (honest, none) = run(off, 9);
    assert_eq!(none.total(), 0);
    for (atlas, count) in table {
        let (log, counts) = run(atlas, 9);
        assert!(count(&counts) > 0 && count(&counts) == counts.total(), "{atlas:?}: {counts:?}");
        // A lie of a flush shows only at a crash; everything else shows in what came back.
        assert_eq!(log == honest, counts.lying_flushes > 0, "{atlas:?}");
        let (capped, counts) = run(FaultAtlas { faults_max: 1, ..atlas }, 9);
        assert_eq!(counts.total(), 1, "{atlas:?}");
        assert_eq!(capped, run(FaultAtlas { faults_max: 1, ..atlas }, 9).0, "a seed decides everything");
    }
}

#[test]
fn a_lying_flush_loses_acknowledged_bytes_at_the_crash() {
    let atlas = FaultAtlas { lying_flush_one_in: 1, ..FaultAtlas::default() };
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::with_faults(1 << 20, *seed, atlas);
        write(&disk, 0, 1);
        block_on(disk.flush()).expect("it lies");
        disk.crash();
        disk.raw_read(0, IO_ALIGN) != pattern(1, 1)[..]
    });
    assert!(lost.count() > 10);
}
