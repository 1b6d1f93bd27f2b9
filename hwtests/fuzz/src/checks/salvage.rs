//! A damaged or forged device in the hands of the tools for devices at rest: listing, verifying, counting,
//! rescuing.
//!
//! Whatever is on it: no panic, everything ends, memory within a bound, paths stay inside. Where no checksum
//! was forged, an object that is called whole has the bytes of one that was put.

use std::io;

use futures::executor::block_on;
use salvage::{ManifestEntry, SafePath, Sink, State};
use shards::{Store, StoreHandle};

use crate::bounded;
use crate::image::{damaged, golden};
use crate::seeds::content::objects;

/// Bytes the tools and the store of the image may hold at once; a view's cache is the largest part.
const BYTES_MAX: usize = 64 << 20;
/// Files of a rescue at most: the image has a dozen keys, each with a few versions.
const FILES_MAX: usize = 10_000;

pub(crate) fn salvage(data: &[u8]) {
    golden();
    let data = data.to_vec();
    bounded(0, 0, BYTES_MAX, || {
        let (tell, handle) = futures::channel::oneshot::channel();
        // A view at rest is read by a thread that blocks: the store has one of its own.
        let store = std::thread::spawn(move || {
            let (disk, forged) = damaged(&data);
            block_on(async {
                let Ok(store) = Store::open(disk, true).await else { return };
                store.serve(|handle| drop(tell.send((handle, forged)))).await;
            });
        });
        if let Ok((handle, forged)) = block_on(handle) {
            block_on(look(&[handle], forged));
        }
        store.join().expect("the store's thread ends well");
    });
}

async fn look(stores: &[StoreHandle], forged: bool) {
    let _ = salvage::dump::records(&stores[0], &salvage::dump::Filter::default(), |_| true).await;
    let verified = salvage::fsck::verify(&stores[0], |_| {}).await;
    let census = salvage::fsck::census(stores, &[verified]).await;
    let _ = census.has_findings();
    let mut files = Files { forged, open: None, begun: 0 };
    salvage::rescue(stores, &mut files, |_| {}).await.expect("these files take everything");
    assert!(files.open.is_none(), "every file was ended");
}

/// Takes what is rescued and looks at it.
struct Files {
    forged: bool,
    /// The file that was begun, and how long it is with its holes.
    open: Option<(String, Vec<u8>)>,
    begun: usize,
}

impl Sink for Files {
    fn begin(&mut self, path: &SafePath) -> io::Result<()> {
        assert!(self.open.is_none(), "one file at a time");
        self.begun += 1;
        assert!(self.begun < FILES_MAX, "a rescue ends");
        for name in path.components() {
            assert!(!name.is_empty() && name != "." && name != "..", "{path}");
            assert!(!name.contains(['/', '\0']) && name.len() <= 255, "{path}");
        }
        self.open = Some((path.to_string(), Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().expect("a file was begun").1.extend_from_slice(bytes);
        Ok(())
    }

    fn skip(&mut self, _: u64) -> io::Result<()> {
        assert!(self.open.is_some(), "a file was begun");
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (path, bytes) = self.open.take().expect("a file was begun");
        let known = objects();
        // Below the bucket lie whole objects; ours begin with an underscore.
        if !self.forged && !path.starts_with('_') {
            let put = known.iter().any(|(bucket, key, body)| path == format!("{bucket}/{key}") && *body == bytes);
            let given_up = ["bucket/given up", "bucket/uncertain"].contains(&path.as_str());
            assert!(put || given_up, "{path} has bytes that were never put there");
        }
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        self.open.take().expect("a file was begun");
        Ok(())
    }

    fn entry(&mut self, entry: &ManifestEntry) -> io::Result<()> {
        assert!(entry.path.is_some() || entry.state == State::Deleted, "what was written has a place");
        Ok(())
    }
}
