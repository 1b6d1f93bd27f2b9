//! Digests are those of RFC 1321 however the bytes come, whoever hashes them, and whoever leaves.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use etag::Md5Lanes;
use futures::executor::block_on;
use md5::{Digest, Md5};
use md5lanes::Kernel;
use proptest::prelude::*;

fn hex(digest: [u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|k| k.is_available())
}

fn bytes(len: usize, seed: usize) -> Bytes {
    let mut state = seed as u64 | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// RFC 1321, appendix A.5.
#[test]
fn the_published_vectors() {
    let vectors = [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ];
    for (message, expected) in vectors {
        let mut stream = Md5Lanes::new().start();
        let digest = block_on(async {
            stream.update(Bytes::from_static(message.as_bytes())).await;
            stream.finish().await
        });
        assert_eq!(hex(digest), expected, "{message:?}");
    }
}

#[test]
fn every_length_around_the_padding() {
    for len in 0..200 {
        let data = bytes(len, len);
        let mut stream = Md5Lanes::new().start();
        let digest = block_on(async {
            stream.update(data.clone()).await;
            stream.finish().await
        });
        assert_eq!(digest, <[u8; 16]>::from(Md5::digest(&data)), "{len} bytes");
    }
}

#[test]
fn uploads_in_turns_fill_the_lanes() {
    for kernel in kernels() {
        let lanes = Md5Lanes::with_kernel(kernel);
        let messages: Vec<Bytes> = (0..16).map(|i| bytes(640 << 10, i)).collect();
        let mut streams: Vec<_> = messages.iter().map(|_| lanes.start()).collect();
        block_on(async {
            for chunk in 0..10 {
                for (stream, message) in streams.iter_mut().zip(&messages) {
                    let at = chunk << 16;
                    stream.update(message.slice(at..at + (64 << 10))).await;
                }
            }
            for (stream, message) in streams.into_iter().zip(&messages) {
                assert_eq!(stream.finish().await, <[u8; 16]>::from(Md5::digest(message)));
            }
        });
        let stats = lanes.stats();
        assert_eq!(stats.lane_blocks, 16 * (640 << 10) / 64);
        assert_eq!(stats.lane_blocks / stats.steps, kernel.lanes() as u64);
    }
}

#[test]
fn uploads_on_many_threads() {
    for kernel in kernels() {
        let lanes = Md5Lanes::with_kernel(kernel);
        let finished = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..12 {
                let (lanes, finished) = (&lanes, &finished);
                scope.spawn(move || {
                    for round in 0..20 {
                        let message = bytes(1000 * thread + 77_777 * (round % 3), thread);
                        let mut stream = lanes.start();
                        let digest = block_on(async {
                            for part in message.chunks(10_007 + round) {
                                stream.update(message.slice_ref(part)).await;
                            }
                            stream.finish().await
                        });
                        assert_eq!(digest, <[u8; 16]>::from(Md5::digest(&message)));
                        finished.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(finished.into_inner(), 12 * 20);
    }
}

#[test]
fn an_abandoned_upload_leaves_no_work_behind() {
    let lanes = Md5Lanes::new();
    let message = bytes(6400, 1);
    block_on(async {
        let mut kept = lanes.start();
        for _ in 0..100 {
            let mut left = lanes.start();
            left.update(bytes(64 << 10, 2)).await;
        }
        kept.update(message.clone()).await;
        assert_eq!(kept.finish().await, <[u8; 16]>::from(Md5::digest(&message)));
    });
    assert_eq!(lanes.stats().lane_blocks, 100, "only the one that was kept");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_chunks_of_any_uploads(
        uploads in prop::collection::vec(prop::collection::vec(0usize..40_000, 0..6), 1..24),
    ) {
        for kernel in kernels() {
            let lanes = Md5Lanes::with_kernel(kernel);
            let mut streams: Vec<_> = uploads.iter().map(|_| (lanes.start(), Md5::new())).collect();
            block_on(async {
                for turn in 0..6 {
                    for (i, (stream, expected)) in streams.iter_mut().enumerate() {
                        let Some(len) = uploads[i].get(turn) else { continue };
                        let data = bytes(*len, i * 7 + turn);
                        expected.update(&data);
                        stream.update(data).await;
                    }
                }
                for (stream, expected) in streams {
                    assert_eq!(stream.finish().await, <[u8; 16]>::from(expected.finalize()));
                }
            });
        }
    }
}
