//! What every device must do, as tests over the door alone.
//!
//! Each check is a plain async function that panics with a sentence when the device breaks the contract; [`all`] runs
//! them in turn. They write over the whole device and need at least [`SIZE_BYTES_MIN`] bytes. Crashes are not
//! here: only a simulated device can have one on demand. Zoned devices have checks of their own, [`zoned`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::{
    AlignedBuf, AlignedBytes, BlockDevice, DiskError, DiskResult, IO_ALIGN, MAX_WRITE_PARTS, READ_ALIGN_MIN, ZoneFacts,
    ZoneFault,
};

/// The smallest device that the checks can run on, in bytes.
pub const SIZE_BYTES_MIN: u64 = 4 * 1024 * 1024;

const PAGE: u64 = IO_ALIGN as u64;

/// Runs every check on `device`, which has no zones.
///
/// # Panics
/// When the device breaks the contract.
pub async fn all<D: BlockDevice>(device: &D) {
    facts_are_sound(device);
    what_is_written_is_read_back(device).await;
    parts_are_gathered_in_order(device).await;
    reads_are_as_fine_as_the_facts_say(device).await;
    what_breaks_the_rules_is_refused(device).await;
    later_writes_win(device).await;
    flushes_succeed_alone_and_together(device).await;
    many_operations_at_once_keep_apart(device).await;
    large_requests_are_whole(device).await;
    a_discarded_range_is_usable_again(device).await;
    a_device_without_zones_says_so(device).await;
}

/// Runs the checks of devices with sequential zones, of which it resets and writes the first.
///
/// # Panics
/// When the device breaks the contract, or has no sequential zones.
pub async fn zoned<D: BlockDevice>(device: &D) {
    facts_are_sound(device);
    let facts = device.facts().zones.expect("the device has sequential zones");
    if facts.conventional_zones > 0 {
        conventional_zones_take_writes_anywhere(device, &facts).await;
    }
    let first = u64::from(facts.conventional_zones) * facts.zone_bytes;
    for zone in [first, first + facts.zone_bytes] {
        a_zone_takes_writes_at_its_pointer_alone(device, zone).await;
        a_zone_is_finished_and_reset(device, &facts, zone).await;
    }
    let size = device.facts().size_bytes;
    expect_zone_fault(device.write(size - 2 * facts.zone_bytes, too_long(&facts)).await, ZoneFault::Crosses);
    for offset in [size, u64::MAX] {
        refused(device.write_pointer(offset).await, "report of a zone", offset);
        refused(device.reset_zone(offset).await, "reset of a zone", offset);
    }
}

/// A buffer of `pages` pages that only this `seed` gives.
#[must_use]
pub fn pattern(seed: u64, pages: usize) -> AlignedBytes {
    let mut buf = AlignedBuf::zeroed(pages * IO_ALIGN);
    let mut state = seed;
    for word in buf.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    buf.freeze()
}

/// Facts that the layers above compute with.
///
/// # Panics
/// When the device breaks the contract.
pub fn facts_are_sound<D: BlockDevice>(device: &D) {
    let facts = device.facts();
    assert!(facts.size_bytes >= SIZE_BYTES_MIN, "the contract needs {SIZE_BYTES_MIN} bytes, not {}", facts.size_bytes);
    assert!(facts.size_bytes.is_multiple_of(PAGE), "{} bytes are not whole pages", facts.size_bytes);
    assert!(facts.sector_bytes.is_power_of_two(), "sectors of {} bytes", facts.sector_bytes);
    assert!((512..=IO_ALIGN as u32).contains(&facts.sector_bytes), "sectors of {} bytes", facts.sector_bytes);
    let read_align = facts.read_align_bytes;
    assert!([READ_ALIGN_MIN, IO_ALIGN].contains(&(read_align as usize)), "reads at multiples of {read_align} bytes");
    if let Some(zones) = facts.zones {
        assert!(facts.zoned, "zones make a zoned device");
        assert!(facts.size_bytes.is_multiple_of(zones.zone_bytes), "a device is a whole number of zones");
        assert!(zones.capacity_bytes.is_multiple_of(PAGE) && zones.capacity_bytes <= zones.zone_bytes, "{zones:?}");
        assert!(u64::from(zones.conventional_zones) < facts.size_bytes / zones.zone_bytes, "some are sequential");
        assert!(zones.max_open != Some(0), "no limit is none");
    }
    assert!(!facts.engine.is_empty() && !facts.path.is_empty(), "a device says what it is");
}

/// The first, the last and an inner page hold what was written.
///
/// # Panics
/// When the device breaks the contract.
pub async fn what_is_written_is_read_back<D: BlockDevice>(device: &D) {
    let last = device.facts().size_bytes - PAGE;
    for (seed, offset) in [(1, 0), (2, last), (3, 7 * PAGE)] {
        device.write(offset, vec![pattern(seed, 1)]).await.expect("a write succeeds");
    }
    for (seed, offset) in [(1, 0), (2, last), (3, 7 * PAGE)] {
        expect_pattern(device, offset, seed, 1).await;
    }
}

/// A gathered write lays its parts one after the other, up to the greatest number of parts.
///
/// # Panics
/// When the device breaks the contract.
pub async fn parts_are_gathered_in_order<D: BlockDevice>(device: &D) {
    for count in [1, 2, 3, MAX_WRITE_PARTS] {
        let offset = 16 * PAGE;
        let parts: Vec<_> = (0..count).map(|i| pattern(100 + i as u64, 1 + i % 2)).collect();
        let expected: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        device.write(offset, parts).await.expect("a gathered write succeeds");
        let read = device.read(offset, AlignedBuf::zeroed(expected.len())).await.expect("a read succeeds");
        assert!(read[..] == expected[..], "{count} gathered parts read back otherwise");
    }
    // A piece of a larger buffer, that neither starts nor ends with it.
    let whole = pattern(9, 4);
    device.write(0, vec![whole.slice(IO_ALIGN..3 * IO_ALIGN)]).await.expect("a write succeeds");
    let read = device.read(0, AlignedBuf::zeroed(2 * IO_ALIGN)).await.expect("a read succeeds");
    assert!(read[..] == whole[IO_ALIGN..3 * IO_ALIGN], "a piece of a buffer reads back otherwise");
}

/// Reads start and end at any multiple of the fact, across pages and up to the end, and at nothing finer.
///
/// # Panics
/// When the device breaks the contract.
pub async fn reads_are_as_fine_as_the_facts_say<D: BlockDevice>(device: &D) {
    let grain = device.facts().read_align_bytes as usize;
    let base = device.facts().size_bytes - 4 * PAGE;
    let whole = pattern(31, 4);
    device.write(base, vec![whole.clone()]).await.expect("a write succeeds");
    for start in (0..2 * IO_ALIGN).step_by(grain) {
        for len in [grain, 3 * grain, IO_ALIGN, IO_ALIGN + grain, whole.len() - start] {
            let range = start..(start + len).min(whole.len());
            let buf = AlignedBuf::for_read(range.len());
            let read = device.read(base + start as u64, buf).await.expect("a read at the grain succeeds");
            assert!(read[..] == whole[range.clone()], "bytes {range:?} read back otherwise");
        }
    }
    let last = whole.len() - grain;
    let read = device.read(base + last as u64, AlignedBuf::for_read(grain)).await.expect("the last sector reads");
    assert!(read[..] == whole[last..], "the last {grain} bytes read back otherwise");
    let over = device.read(base + last as u64, AlignedBuf::for_read(2 * grain)).await;
    refused(over, "read of two sectors, one of them over the end", base + last as u64);
    refused(device.read(base + 256, AlignedBuf::for_read(grain)).await, "read", base + 256);
    if grain > READ_ALIGN_MIN {
        let finer = READ_ALIGN_MIN as u64;
        refused(device.read(base + finer, AlignedBuf::for_read(grain)).await, "read", base + finer);
        refused(device.read(base, AlignedBuf::for_read(READ_ALIGN_MIN)).await, "read of less than a sector", base);
    }
}

/// Requests outside the device, between pages, or of no parts or too many, are the caller's bug and change nothing.
///
/// # Panics
/// When the device breaks the contract.
pub async fn what_breaks_the_rules_is_refused<D: BlockDevice>(device: &D) {
    let size = device.facts().size_bytes;
    let last = size - PAGE;
    device.write(last, vec![pattern(5, 1)]).await.expect("a write succeeds");
    for offset in [1, 512, size, last + 1, u64::MAX - PAGE + 1, u64::MAX / PAGE * PAGE] {
        if offset != u64::from(device.facts().read_align_bytes) {
            refused(device.read(offset, AlignedBuf::zeroed(IO_ALIGN)).await, "read", offset);
        }
        refused(device.write(offset, vec![pattern(6, 1)]).await, "write", offset);
        refused(device.discard(offset, PAGE).await, "discard", offset);
    }
    refused(device.read(last, AlignedBuf::zeroed(2 * IO_ALIGN)).await, "read over the end", last);
    refused(device.write(last, vec![pattern(6, 1), pattern(7, 1)]).await, "write over the end", last);
    refused(device.write(last, vec![]).await, "write of no parts", last);
    refused(device.write(0, vec![pattern(6, 1); MAX_WRITE_PARTS + 1]).await, "write of too many parts", 0);
    let sectors = |len| AlignedBuf::for_read(len).freeze();
    refused(device.write(0, vec![sectors(512)]).await, "write of less than a page", 0);
    refused(device.write(0, vec![sectors(512), sectors(IO_ALIGN - 512)]).await, "write of parts of a page", 0);
    refused(device.discard(0, PAGE + 512).await, "discard of part of a page", 0);
    refused(device.discard(last, 2 * PAGE).await, "discard over the end", last);
    expect_pattern(device, last, 5, 1).await;
}

/// A write that starts after another has finished wins where they overlap.
///
/// # Panics
/// When the device breaks the contract.
pub async fn later_writes_win<D: BlockDevice>(device: &D) {
    for round in 0..20 {
        device.write(4 * PAGE, vec![pattern(1000 + round, 4)]).await.expect("a write succeeds");
        device.write(6 * PAGE, vec![pattern(2000 + round, 1)]).await.expect("a write succeeds");
        let read = device.read(4 * PAGE, AlignedBuf::zeroed(4 * IO_ALIGN)).await.expect("a read succeeds");
        let mut expected = pattern(1000 + round, 4).to_vec();
        expected[2 * IO_ALIGN..3 * IO_ALIGN].copy_from_slice(&pattern(2000 + round, 1));
        assert!(read[..] == expected[..], "the later of two overlapping writes did not win");
    }
}

/// A flush succeeds with nothing to do, after writes, and beside other flushes and writes.
///
/// # Panics
/// When the device breaks the contract.
pub async fn flushes_succeed_alone_and_together<D: BlockDevice>(device: &D) {
    device.flush().await.expect("a flush of nothing succeeds");
    device.write(0, vec![pattern(8, 2)]).await.expect("a write succeeds");
    device.flush().await.expect("a flush succeeds");
    let writes: Vec<_> = (0..8).map(|i| device.write(i * PAGE, vec![pattern(i, 1)])).collect();
    let flushes: Vec<_> = (0..4).map(|_| device.flush()).collect();
    all_of(writes).await.into_iter().for_each(|r| r.expect("a write beside flushes succeeds"));
    all_of(flushes).await.into_iter().for_each(|r| r.expect("a flush beside writes succeeds"));
    for i in 0..8 {
        expect_pattern(device, i * PAGE, i, 1).await;
    }
}

/// More operations at once than any queue is deep: each gets its own bytes.
///
/// # Panics
/// When the device breaks the contract.
pub async fn many_operations_at_once_keep_apart<D: BlockDevice>(device: &D) {
    let count = SIZE_BYTES_MIN / PAGE;
    // Coprime to the count, so that every page is met once and neighbours are not written in turn.
    let place = |i: u64| i * 389 % count * PAGE;
    let writes: Vec<_> = (0..count).map(|i| device.write(place(i), vec![pattern(i, 1)])).collect();
    all_of(writes).await.into_iter().for_each(|r| r.expect("one of many writes succeeds"));
    let reads: Vec<_> = (0..count).map(|i| device.read(place(i), AlignedBuf::zeroed(IO_ALIGN))).collect();
    for (i, read) in (0..count).zip(all_of(reads).await) {
        let read = read.expect("one of many reads succeeds");
        assert!(read[..] == pattern(i, 1)[..], "operation {i} of {count} got the bytes of another");
    }
}

/// Requests larger than a kernel passes on in one piece.
///
/// # Panics
/// When the device breaks the contract.
pub async fn large_requests_are_whole<D: BlockDevice>(device: &D) {
    let pages = (SIZE_BYTES_MIN / PAGE) as usize;
    let half = pages / 2;
    device.write(0, vec![pattern(11, half), pattern(12, pages - half)]).await.expect("a large write succeeds");
    let read = device.read(0, AlignedBuf::zeroed(pages * IO_ALIGN)).await.expect("a large read succeeds");
    let (first, second) = read.split_at(half * IO_ALIGN);
    assert!(first == &pattern(11, half)[..] && second == &pattern(12, pages - half)[..], "a large request is torn");
}

/// After a discard the neighbours are untouched, and the range takes writes again. Devices that cannot discard say so.
///
/// # Panics
/// When the device breaks the contract.
pub async fn a_discarded_range_is_usable_again<D: BlockDevice>(device: &D) {
    device.write(0, vec![pattern(21, 64)]).await.expect("a write succeeds");
    match device.discard(16 * PAGE, 32 * PAGE).await {
        Ok(()) => {}
        Err(DiskError::Os { .. }) if !device.facts().discard => {}
        Err(error) => panic!("a discard failed: {error}"),
    }
    let whole = pattern(21, 64);
    let read = device.read(0, AlignedBuf::zeroed(64 * IO_ALIGN)).await.expect("a read succeeds");
    assert!(read[..16 * IO_ALIGN] == whole[..16 * IO_ALIGN], "a discard changed what lies before it");
    assert!(read[48 * IO_ALIGN..] == whole[48 * IO_ALIGN..], "a discard changed what lies after it");
    device.write(16 * PAGE, vec![pattern(22, 32)]).await.expect("a write to a discarded range succeeds");
    expect_pattern(device, 16 * PAGE, 22, 32).await;
}

/// What zones are asked is refused by name.
///
/// # Panics
/// When the device breaks the contract.
pub async fn a_device_without_zones_says_so<D: BlockDevice>(device: &D) {
    expect_zone_fault(device.write_pointer(0).await, ZoneFault::NotZoned);
    expect_zone_fault(device.reset_zone(0).await, ZoneFault::NotZoned);
    expect_zone_fault(device.finish_zone(0).await, ZoneFault::NotZoned);
}

/// Conventional zones know no pointer, and end where sequential ones begin.
///
/// # Panics
/// When the device breaks the contract.
pub async fn conventional_zones_take_writes_anywhere<D: BlockDevice>(device: &D, facts: &ZoneFacts) {
    let end = u64::from(facts.conventional_zones) * facts.zone_bytes;
    for (seed, offset) in [(41, end - PAGE), (42, 0), (43, 3 * PAGE), (44, PAGE), (45, 0)] {
        device.write(offset, vec![pattern(seed, 1)]).await.expect("a write succeeds");
        expect_pattern(device, offset, seed, 1).await;
    }
    expect_zone_fault(device.write(end - PAGE, vec![pattern(46, 2)]).await, ZoneFault::Crosses);
    expect_zone_fault(device.discard(end - PAGE, 2 * PAGE).await, ZoneFault::Crosses);
    expect_pattern(device, end - PAGE, 41, 1).await;
    expect_zone_fault(device.write_pointer(0).await, ZoneFault::Conventional);
    expect_zone_fault(device.reset_zone(end - 1).await, ZoneFault::Conventional);
    expect_zone_fault(device.finish_zone(PAGE).await, ZoneFault::Conventional);
}

/// Writes go on where the last one ended, and are refused anywhere else, which changes nothing.
///
/// # Panics
/// When the device breaks the contract.
pub async fn a_zone_takes_writes_at_its_pointer_alone<D: BlockDevice>(device: &D, zone: u64) {
    device.reset_zone(zone).await.expect("a reset succeeds");
    expect_pointer(device, zone, zone).await;
    expect_nothing(device, zone, 1).await;
    device.write(zone, vec![pattern(51, 2)]).await.expect("a write at the start succeeds");
    device.write(zone + 2 * PAGE, vec![pattern(52, 1), pattern(53, 2)]).await.expect("a write at the pointer succeeds");
    device.flush().await.expect("a flush succeeds");
    let pointer = zone + 5 * PAGE;
    for offset in [zone, pointer - PAGE, pointer + PAGE] {
        let fault = ZoneFault::NotAtPointer { pointer };
        expect_zone_fault(device.write(offset, vec![pattern(54, 1)]).await, fault);
    }
    expect_pointer(device, zone, pointer).await;
    device.discard(zone, 2 * PAGE).await.expect("advice is never refused");
    for (at, seed, pages) in [(0, 51, 2), (2, 52, 1), (3, 53, 2)] {
        expect_pattern(device, zone + at * PAGE, seed, pages).await;
    }
    expect_nothing(device, pointer, 1).await;
    expect_nothing(device, pointer - PAGE, 2).await;
}

/// A finished zone keeps what was written and takes no more; a reset one is as new.
///
/// # Panics
/// When the device breaks the contract.
pub async fn a_zone_is_finished_and_reset<D: BlockDevice>(device: &D, facts: &ZoneFacts, zone: u64) {
    device.reset_zone(zone + PAGE).await.expect("any byte names its zone");
    expect_zone_fault(device.write(zone, too_long(facts)).await, ZoneFault::Crosses);
    device.write(zone, vec![pattern(61, 3)]).await.expect("a write succeeds");
    device.finish_zone(zone).await.expect("a finish succeeds");
    device.flush().await.expect("a flush succeeds");
    let end = facts.writable_end_of(zone);
    expect_pointer(device, zone, end).await;
    expect_pattern(device, zone, 61, 3).await;
    let fault = ZoneFault::NotAtPointer { pointer: end };
    expect_zone_fault(device.write(zone + 3 * PAGE, vec![pattern(62, 1)]).await, fault);
    device.reset_zone(zone).await.expect("a reset succeeds");
    expect_pointer(device, zone + facts.zone_bytes - 1, zone).await;
    expect_nothing(device, zone, 3).await;
    device.write(zone, vec![pattern(63, 1)]).await.expect("a reset zone takes writes");
    expect_pattern(device, zone, 63, 1).await;
}

/// Parts of a page more than a zone holds.
fn too_long(facts: &ZoneFacts) -> Vec<AlignedBytes> {
    let pages = (facts.capacity_bytes / PAGE) as usize + 1;
    let part = AlignedBuf::zeroed(pages.div_ceil(MAX_WRITE_PARTS) * IO_ALIGN).freeze();
    vec![part; MAX_WRITE_PARTS]
}

async fn expect_pointer<D: BlockDevice>(device: &D, offset: u64, pointer: u64) {
    assert_eq!(device.write_pointer(offset).await.expect("a report succeeds"), pointer, "the pointer at {offset}");
}

/// Beyond the pointer there is a pattern of the device's own, or an error.
async fn expect_nothing<D: BlockDevice>(device: &D, offset: u64, pages: usize) {
    match device.read(offset, AlignedBuf::for_read(pages * IO_ALIGN)).await {
        Ok(read) => {
            let beyond = &read[(pages - 1) * IO_ALIGN..];
            assert!(beyond.iter().all(|b| *b == beyond[0]), "bytes of somebody's beyond the pointer");
        }
        Err(error) => assert!(error.is_media_fault(), "{error}"),
    }
}

fn expect_zone_fault<T>(result: DiskResult<T>, expected: ZoneFault) {
    match result {
        Err(DiskError::Zone { fault, .. }) => assert_eq!(fault, expected),
        Err(error) => panic!("refused, but as: {error}"),
        Ok(_) => panic!("accepted, though {expected}"),
    }
}

async fn expect_pattern<D: BlockDevice>(device: &D, offset: u64, seed: u64, pages: usize) {
    let read = device.read(offset, AlignedBuf::zeroed(pages * IO_ALIGN)).await.expect("a read succeeds");
    assert!(read[..] == pattern(seed, pages)[..], "byte {offset} on: not what was written last");
}

fn refused<T>(result: DiskResult<T>, what: &str, offset: u64) {
    let Err(error) = result else { panic!("a {what} at byte {offset} was accepted") };
    assert!(matches!(error, DiskError::Invalid { .. }), "a {what} at byte {offset} was refused as: {error}");
}

/// Drives all `futures` at once and gives their outputs in order.
async fn all_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().map(|o| o.expect("every future has finished")).collect()
}
