//! Block devices that whoever runs the tests names, separated by colons, in `URING_TEST_DEVICES`: they are overwritten.
//! Zoned ones are held to the contract of zoned devices. Without the variable this says that it is skipped.

use disk::{AlignedBuf, BlockDevice, contract, contract::pattern};
use uring::{Engine, OpenOptions, run};

#[test]
fn named_devices_keep_their_contract() {
    let Ok(named) = std::env::var("URING_TEST_DEVICES") else {
        return eprintln!("skipped: URING_TEST_DEVICES names no block devices to overwrite");
    };
    for path in named.split(':') {
        for engine in [Engine::Ring, Engine::Blocking] {
            let options = OpenOptions { engine, ..OpenOptions::new(path) };
            run(&options, |device| async move {
                println!("{:#?}", device.facts());
                if device.facts().zones.is_none() {
                    return contract::all(&device).await;
                }
                contract::zoned(&device).await;
                many_writes_in_a_row_fill_a_zone(&device).await;
            })
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

/// A zone written in turn from its start to its end, or as far as 16 MiB, reads back whole.
async fn many_writes_in_a_row_fill_a_zone(device: &impl BlockDevice) {
    const PART: u64 = 64 * 1024;
    let facts = device.facts().zones.expect("a zoned device");
    let zone = device.facts().size_bytes - facts.zone_bytes;
    device.reset_zone(zone).await.expect("a reset succeeds");
    let parts = facts.capacity_bytes.min(16 << 20) / PART;
    for i in 0..parts {
        device
            .write(zone + i * PART, vec![pattern(i, 7), pattern(i, 9)])
            .await
            .expect("a write at the pointer succeeds");
    }
    device.flush().await.expect("a flush succeeds");
    assert_eq!(device.write_pointer(zone).await, Ok(zone + parts * PART));
    for i in 0..parts {
        let read = device.read(zone + i * PART, AlignedBuf::for_read(PART as usize)).await.expect("a read succeeds");
        let (first, second) = read.split_at(7 * 4096);
        assert!(first == &pattern(i, 7)[..] && second == &pattern(i, 9)[..], "part {i} reads back otherwise");
    }
}
