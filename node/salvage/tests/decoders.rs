//! Devices whose records verify and whose contents are anything: the tools for devices at rest neither panic
//! nor run away, whatever descriptors, packs and journal records say.
//!
//! Records are put by a store of their own, so that no checksum stands in the way.

use std::alloc::System;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{ClusterId, DeviceId, Lsn, PartitionId, StripeId};
use bytes::Bytes;
use format::{Descriptor, JournalHeader, PackEntry, ShardKey, encode_pack_directory};
use futures::channel::oneshot;
use futures::executor::block_on;
use proptest::prelude::*;
use salvage::{ManifestEntry, SafePath, Sink, State};
use shards::{FormatOptions, Payload, Store, StoreHandle};
use simdisk::SimDisk;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use zerocopy::IntoBytes;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EXTENT_BYTES: u32 = 256 << 10;
const DEVICE_BYTES: u64 = (1 << 20) + 28 * EXTENT_BYTES as u64 + 4096;
/// Bytes one look at such a device may allocate in all: windows of reads, over and over; not what a length
/// of four bytes can promise.
const ALLOCATED_MAX: usize = 512 << 20;

/// Allocations are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record, and what its bytes are.
#[derive(Debug, Clone)]
struct Contents {
    key: ShardKey,
    descriptor: Vec<u8>,
    payload: Vec<u8>,
}

fn descriptor(stripe: u64, slot: u8, pack: bool) -> Descriptor {
    Descriptor {
        stripe: StripeId(stripe),
        data_shards: 2,
        parity_shards: 1,
        slot,
        stripe_bytes: 128,
        stripe_number: 0,
        stripe_offset: 0,
        last: true,
        pack,
        upload: 5,
        part: 0,
        modified_ms: 1_000,
        bucket: if pack { String::new() } else { "bucket".into() },
        key: if pack { String::new() } else { format!("key/{stripe}") },
    }
}

/// A pack of one object, cut to its two data shards of 64 bytes.
fn pack() -> Vec<u8> {
    let entry =
        PackEntry { bucket: "bucket".into(), key: "small".into(), part: 0, modified_ms: 1_000, offset: 0, len: 9 };
    let mut pack = encode_pack_directory(&[entry]);
    pack.resize(128, 9);
    pack
}

/// Numbers near which sums overflow, among others; the last one of all is no position.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1u64..5, Just(u64::from(u32::MAX)), Just(u64::MAX), any::<u64>()]
}

fn patches() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0usize..160, prop_oneof![Just(0), Just(0xff), any::<u8>()]), 0..6)
}

fn patched(mut bytes: Vec<u8>, patches: &[(usize, u8)]) -> Vec<u8> {
    let len = bytes.len();
    for (at, byte) in patches.iter().filter(|_| len > 0) {
        bytes[at % len] = *byte;
    }
    bytes
}

fn shard() -> impl Strategy<Value = Contents> {
    let which = (prop_oneof![1u64..6, number()], 0u8..4, any::<bool>());
    (which, patches(), patches(), prop_oneof![Just(64usize), 0usize..200]).prop_map(
        |((stripe, slot, is_pack), about, bytes, len)| {
            let mut payload = if is_pack {
                pack().chunks(64).nth(usize::from(slot)).unwrap_or(&[0; 64]).to_vec()
            } else {
                vec![7; 64]
            };
            payload.resize(len, 0);
            Contents {
                key: ShardKey::stripe(StripeId(stripe), slot),
                descriptor: patched(descriptor(stripe, slot, is_pack).encode(), &about),
                payload: patched(payload, &bytes),
            }
        },
    )
}

/// A journal record with a right header, and commands that are anything behind the frame of a batch.
fn record() -> impl Strategy<Value = Contents> {
    let commands = prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..120);
    let place = (prop_oneof![Just(0u32), any::<u32>()], prop_oneof![1u64..6, number()]);
    (place, 0u32..4, commands, number(), patches()).prop_map(|((partition, lsn), count, commands, epoch, header)| {
        let mut body = vec![1, 0, 0, 0];
        body.extend((commands.len() as u32).to_le_bytes());
        body.extend(count.to_le_bytes());
        body.extend([0; 4]);
        body.extend(commands);
        let (partition, lsn) = (PartitionId(partition), Lsn(lsn));
        let made = JournalHeader::new(partition, epoch, lsn, 0, body.len() as u32, 0);
        // One in a few has a header that is none.
        let header =
            if header.len() > 4 { patched(made.as_bytes().to_vec(), &header) } else { made.as_bytes().to_vec() };
        Contents { key: ShardKey::journal(partition, lsn), descriptor: vec![], payload: [header, body].concat() }
    })
}

/// Blocks and heads of index views, and facts.
fn other() -> impl Strategy<Value = Contents> {
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    (any::<bool>(), 0u64..3, bytes).prop_map(|(region, id, payload)| {
        let key = if region { ShardKey::region(0, id) } else { ShardKey::fact(1, id) };
        Contents { key, descriptor: vec![], payload }
    })
}

/// A store with these records, and everything looked at.
fn look(contents: Vec<Contents>) {
    let before = ALLOCATOR.stats().bytes_allocated;
    let (tell, handle) = oneshot::channel();
    // A view at rest is read by a thread that blocks: the store has one of its own.
    let store = std::thread::spawn(move || {
        block_on(async {
            let disk = SimDisk::new(DEVICE_BYTES, 1);
            let (cluster, device) = (ClusterId([1; 16]), DeviceId([2; 16]));
            let options = FormatOptions { cluster, device, salt: 77, now_ms: 0, extent_bytes: Some(EXTENT_BYTES) };
            Store::format(&disk, &options).await.expect("a blank device can be formatted");
            let store = Store::open(disk, false).await.expect("a new device opens");
            store.serve(|handle| drop(tell.send(handle))).await;
        });
    });
    block_on(async {
        let stores = [handle.await.expect("the store passes its handle")];
        for Contents { key, descriptor, payload } in contents {
            let payload = Payload::Parts(vec![Bytes::from(payload)]);
            stores[0].put(key, descriptor.into(), payload).await.expect("a store takes any contents");
        }
        tools(&stores).await;
    });
    store.join().expect("the store's thread ends well");
    let allocated = ALLOCATOR.stats().bytes_allocated - before;
    assert!(allocated <= ALLOCATED_MAX, "{allocated} bytes allocated");
}

async fn tools(stores: &[StoreHandle]) {
    salvage::dump::records(&stores[0], &salvage::dump::Filter::default(), |_| true).await.expect("records list");
    let verified = salvage::fsck::verify(&stores[0], |_| {}).await;
    assert_eq!((verified.bad, &verified.failed), (0, &None), "what was put verifies");
    let census = salvage::fsck::census(stores, &[verified]).await;
    let _ = census.has_findings();
    let mut files = Files::default();
    salvage::rescue(stores, &mut files, |_| {}).await.expect("these files take everything");
    assert!(!files.open, "every file was ended");
}

#[derive(Default)]
struct Files {
    open: bool,
}

impl Sink for Files {
    fn begin(&mut self, path: &SafePath) -> io::Result<()> {
        assert!(!std::mem::replace(&mut self.open, true), "one file at a time");
        let inside = |name: &String| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        assert!(path.components().iter().all(inside), "{path}");
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        assert!(self.open, "a file was begun");
        Ok(())
    }

    fn skip(&mut self, _: u64) -> io::Result<()> {
        assert!(self.open, "a file was begun");
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        assert!(std::mem::take(&mut self.open), "a file was begun");
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        self.finish()
    }

    fn entry(&mut self, entry: &ManifestEntry) -> io::Result<()> {
        assert!(entry.path.is_some() || entry.state == State::Deleted, "what was written has a place");
        Ok(())
    }
}

#[test]
fn records_with_any_contents() {
    let _alone = alone();
    let contents = prop::collection::vec(prop_oneof![3 => shard(), 2 => record(), 1 => other()], 0..12);
    proptest!(ProptestConfig::with_cases(60), |(contents in contents)| look(contents));
}
