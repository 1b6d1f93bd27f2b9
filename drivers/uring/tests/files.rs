//! Files as devices: the contract on both engines, ownership, wakes from other threads, operations without a future.

use std::cell::Cell;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use disk::contract::{self, pattern};
use disk::{AlignedBuf, BlockDevice, DiskError, DiskOp, IO_ALIGN};
use futures::channel::mpsc as channel;
use futures::stream::{FuturesUnordered, StreamExt};
use uring::{Engine, OpenOptions, create_file, run};

const PAGE: u64 = IO_ALIGN as u64;
const ENGINES: [Engine; 2] = [Engine::Ring, Engine::Blocking];

/// A device file beside the build's own files, since /tmp may be memory; removed with the directory.
fn device_file(size_bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("device");
    create_file(&path, size_bytes).unwrap();
    (dir, path)
}

fn options(path: &PathBuf, engine: Engine) -> OpenOptions {
    OpenOptions { engine, ..OpenOptions::new(path) }
}

#[test]
fn files_keep_the_contract_on_both_engines_and_any_depth() {
    for engine in ENGINES {
        for queue_depth in [1, 3, 256] {
            let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
            let options = OpenOptions { queue_depth, ..options(&path, engine) };
            run(&options, |device| async move {
                assert!(device.facts().engine.starts_with(if engine == Engine::Ring {
                    "io_uring"
                } else {
                    "blocking"
                }));
                contract::all(&device).await;
            })
            .unwrap();
        }
    }
}

#[test]
fn a_file_system_in_memory_keeps_the_contract_too() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("skipped: no /dev/shm") };
    let path = dir.path().join("device");
    create_file(&path, contract::SIZE_BYTES_MIN).unwrap();
    for engine in ENGINES {
        run(&options(&path, engine), |device| async move {
            eprintln!("/dev/shm: {}", device.facts().engine);
            contract::all(&device).await;
        })
        .unwrap();
    }
}

#[test]
fn what_was_flushed_is_in_the_file_and_nothing_beyond_the_limit_is_touched() {
    for engine in ENGINES {
        let (_dir, path) = device_file(64 * PAGE);
        let options = OpenOptions { size_bytes: Some(8 * PAGE + 100), ..options(&path, engine) };
        run(&options, |device| async move {
            assert_eq!(device.facts().size_bytes, 8 * PAGE);
            device.write(7 * PAGE, vec![pattern(5, 1)]).await.unwrap();
            device.flush().await.unwrap();
            let error = device.write(8 * PAGE, vec![pattern(5, 1)]).await.unwrap_err();
            assert!(matches!(error, DiskError::Invalid { .. }), "{error}");
        })
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, 64 * PAGE);
        assert!(bytes[7 * IO_ALIGN..8 * IO_ALIGN] == pattern(5, 1)[..]);
        assert!(bytes[8 * IO_ALIGN..].iter().all(|b| *b == 0));
    }
}

#[test]
fn a_device_has_one_owner_and_readers_share() {
    let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
    let writer = options(&path, Engine::Auto);
    let reader = OpenOptions { read_only: true, ..writer.clone() };
    run(&writer, |_device| async {
        for second in [&writer, &reader] {
            let error = run(second, |_| async {}).unwrap_err();
            assert!(
                matches!(&error, DiskError::Os { op: DiskOp::Open, reason } if reason.contains("owns it")),
                "{error}"
            );
        }
    })
    .unwrap();
    run(&reader, |device| async {
        let device = device;
        run(&reader, |_| async {}).expect("readers share");
        device.read(0, AlignedBuf::zeroed(1)).await.unwrap();
        for result in [device.write(0, vec![pattern(1, 1)]).await, device.flush().await, device.discard(0, PAGE).await]
        {
            assert!(matches!(result, Err(DiskError::Os { .. })), "{result:?}");
        }
    })
    .unwrap();
    run(&writer, |_| async {}).expect("the device is free again");
}

#[test]
fn what_cannot_be_a_device_is_refused_with_its_name() {
    let (dir, path) = device_file(100);
    let bad = [
        OpenOptions::new(&path),
        OpenOptions::new(dir.path()),
        OpenOptions::new(dir.path().join("absent")),
        OpenOptions::new("/dev/null"),
        OpenOptions { queue_depth: 0, ..OpenOptions::new(&path) },
        OpenOptions { queue_depth: 1 << 20, ..OpenOptions::new(&path) },
        OpenOptions { size_bytes: Some(1 << 20), ..OpenOptions::new(&path) },
    ];
    for options in bad {
        let error = run(&options, |_| async {}).unwrap_err().to_string();
        assert!(error.contains(options.path.to_str().unwrap()), "{error}");
    }
    assert!(create_file(&path, 1 << 20).is_err(), "an existing file is left alone");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
}

#[test]
fn wakes_from_other_threads_arrive_whether_the_executor_sleeps_or_works() {
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let (sender, mut receiver) = channel::channel::<u64>(8);
        let senders: Vec<_> = (0..4u64)
            .map(|thread| {
                let mut sender = sender.clone();
                std::thread::spawn(move || {
                    for i in 0..500 {
                        futures::executor::block_on(futures::SinkExt::send(&mut sender, thread * 500 + i)).unwrap();
                        if i % 50 == 0 {
                            // Long enough for the executor to fall asleep.
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let seen = run(&options(&path, engine), |device| async move {
            let mut seen = Vec::new();
            while let Some(message) = receiver.next().await {
                if message % 16 == 0 {
                    device.write(message % 1000 * PAGE, vec![pattern(message, 1)]).await.unwrap();
                }
                seen.push(message);
            }
            seen.sort_unstable();
            seen
        });
        senders.into_iter().for_each(|s| s.join().unwrap());
        assert_eq!(seen.unwrap(), (0..2000).collect::<Vec<_>>(), "{engine:?}");
    }
}

#[test]
fn an_idle_executor_sleeps() {
    fn cpu() -> Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    }
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let (mut sender, mut receiver) = channel::channel::<()>(1);
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            sender.try_send(()).unwrap();
        });
        let spent = run(&options(&path, engine), |_device| async move {
            let (began, cpu_began) = (Instant::now(), cpu());
            receiver.next().await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(200));
            cpu() - cpu_began
        });
        late.join().unwrap();
        assert!(spent.unwrap() < Duration::from_millis(50), "{engine:?}");
    }
}

#[test]
fn an_operation_whose_future_is_dropped_is_finished_all_the_same() {
    for engine in ENGINES {
        for polled in [false, true] {
            let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
            run(&options(&path, engine), |device| async move {
                for i in 0..600 {
                    let mut write = Box::pin(device.write(i * PAGE, vec![pattern(i, 1)]));
                    let mut read = Box::pin(device.read(i * PAGE, AlignedBuf::zeroed(1)));
                    if polled {
                        let mut cx = Context::from_waker(Waker::noop());
                        let _ = (write.as_mut().poll(&mut cx), read.as_mut().poll(&mut cx));
                    }
                }
            })
            .unwrap();
            // `run` has waited for all of them.
            let bytes = std::fs::read(&path).unwrap();
            for i in 0..600 {
                let at = i as usize * IO_ALIGN;
                assert!(bytes[at..at + IO_ALIGN] == pattern(i, 1)[..], "write {i}, {engine:?}");
            }
        }
    }
}

#[test]
fn a_panic_in_the_root_waits_for_the_kernel_too() {
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let unwound = std::panic::catch_unwind(|| {
            run(&options(&path, engine), |device| async move {
                let _writes: Vec<_> = (0..300).map(|i| device.write(i * PAGE, vec![pattern(i, 1)])).collect();
                panic!("the root gives up");
            })
        });
        assert!(unwound.is_err());
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[299 * IO_ALIGN..300 * IO_ALIGN] == pattern(299, 1)[..]);
    }
}

#[test]
fn a_handle_that_outlives_the_executor_answers_gone() {
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let device = run(&options(&path, engine), |device| async move { device }).unwrap();
        let answer = futures::executor::block_on(device.read(0, AlignedBuf::zeroed(1)));
        assert_eq!(answer.unwrap_err(), DiskError::Gone { op: DiskOp::Read });
    }
}

#[test]
fn a_file_that_shrinks_under_the_device_is_a_named_error() {
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        run(&options(&path, engine), |device| {
            let path = path.clone();
            async move {
                std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(PAGE).unwrap();
                let error = device.read(0, AlignedBuf::zeroed(4 * IO_ALIGN)).await.unwrap_err();
                assert!(error.is_media_fault(), "{error}");
                device.read(0, AlignedBuf::zeroed(IO_ALIGN)).await.expect("the first page is still there");
            }
        })
        .unwrap();
    }
}

#[test]
fn many_tasks_share_the_device() {
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        run(&options(&path, engine), |device| async move {
            let flushed = Cell::new(0);
            let tasks: FuturesUnordered<_> = (0..100u64)
                .map(|i| {
                    let (device, flushed) = (device.clone(), &flushed);
                    async move {
                        for round in 0..10 {
                            device.write(i * PAGE, vec![pattern(i * 10 + round, 1)]).await.unwrap();
                            if i % 10 == 0 {
                                device.flush().await.unwrap();
                                flushed.set(flushed.get() + 1);
                            }
                            let read = device.read(i * PAGE, AlignedBuf::zeroed(1)).await.unwrap();
                            assert!(read[..] == pattern(i * 10 + round, 1)[..]);
                        }
                    }
                })
                .collect();
            tasks.for_each(|()| async {}).await;
            assert_eq!(flushed.get(), 100);
        })
        .unwrap();
    }
}

#[test]
fn a_root_that_wakes_itself_without_end_does_not_starve_the_device() {
    struct Busy<F>(Pin<Box<F>>);
    impl<F: Future> Future for Busy<F> {
        type Output = F::Output;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            cx.waker().wake_by_ref();
            self.0.as_mut().poll(cx)
        }
    }
    for engine in ENGINES {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let (done, finished) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            run(&options(&path, engine), |device| {
                Busy(Box::pin(async move { device.write(0, vec![pattern(1, 1)]).await.unwrap() }))
            })
            .unwrap();
            done.send(()).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(20)).expect("the write finishes");
        worker.join().unwrap();
    }
}

/// Not a test by itself: the process that the next test kills.
#[test]
#[ignore = "run by the test below, which kills it"]
fn child_that_owns_a_device_and_writes_until_killed() {
    let Some(path) = std::env::var_os("URING_TEST_DEVICE").map(PathBuf::from) else { return };
    run(&options(&path, Engine::Ring), |device| async move {
        println!("owned");
        loop {
            let writes: FuturesUnordered<_> = (0..256).map(|i| device.write(i * PAGE, vec![pattern(i, 1)])).collect();
            writes.for_each(|result| async { result.unwrap() }).await;
        }
    })
    .unwrap()
}

#[test]
fn the_device_of_a_killed_process_can_be_opened_at_once() {
    for _ in 0..5 {
        let (_dir, path) = device_file(contract::SIZE_BYTES_MIN);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "child_that_owns_a_device_and_writes_until_killed"])
            .env("URING_TEST_DEVICE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let owned = BufReader::new(child.stdout.as_mut().unwrap()).lines().any(|line| line.unwrap().contains("owned"));
        assert!(owned, "the child opened the device");
        child.kill().unwrap();
        child.wait().unwrap();
        run(&options(&path, Engine::Ring), |device| async move { contract::all(&device).await }).unwrap();
    }
}
