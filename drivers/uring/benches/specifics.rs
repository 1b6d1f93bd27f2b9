//! What devices and rings offer beyond plain reads, writes and flushes, each against the plain way: the figures of
//! docs/decisions/0008-device-specifics.md.
//!
//! Two ways of one piece of work run in turn, in many short rounds, since other work on the machine comes and goes.
//! [`ROUNDS`] rounds give a median of the ratios of neighbours, [`GROUPS`] medians the figure and its spread. The first
//! comparison is of one way with itself: its spread is the noise, and what differs by less is not told apart.
//!
//! Usage: `cargo bench -p uring --bench specifics -- PATH...`, of files (made when absent, 256 MiB) or of block devices
//! that may be overwritten.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use io_uring::{Builder, IoUring, opcode, squeue, types};

const ROUNDS: usize = 5;
const GROUPS: usize = 5;
const BYTES: u64 = 256 << 20;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The deepest queue here, and the buffers there are.
const DEPTH: usize = 64;
const RWF_ATOMIC: i32 = 0x40;

/// Buffers enough for the deepest queue, in one piece of memory. Two rigs under comparison share them: which pages the
/// kernel happened to give weighs more than most of what is compared.
struct Memory {
    start: *mut u8,
    block: usize,
}

impl Memory {
    /// Of huge pages or of ordinary ones alone; never given back.
    fn new(block: usize, advice: i32) -> Self {
        let (bytes, huge) = (DEPTH * block, 2 * MIB);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping; the piece from the next huge page on lies inside it.
        let start = unsafe {
            let mapped = libc::mmap(std::ptr::null_mut(), bytes + huge, protection, flags, -1, 0);
            assert!(mapped != libc::MAP_FAILED, "memory");
            let start = mapped.cast::<u8>().add(mapped.cast::<u8>().align_offset(huge));
            assert_eq!(libc::madvise(start.cast(), bytes, advice), 0, "advice");
            std::ptr::write_bytes(start, 0x5a, bytes);
            start
        };
        Self { start, block }
    }

    fn of_small_pages(block: usize) -> Self {
        Self::new(block, libc::MADV_NOHUGEPAGE)
    }

    fn buf(&self, slot: usize) -> *mut u8 {
        assert!(slot < DEPTH);
        self.start.wrapping_add(slot * self.block)
    }
}

/// One ring on one file, with buffers.
struct Rig<'a> {
    ring: IoUring,
    fd: types::Fixed,
    memory: &'a Memory,
    block: usize,
    next: u64,
}

/// The flags that the device's own ring is built with.
fn ours() -> Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().dontfork();
    builder
}

impl<'a> Rig<'a> {
    fn new(file: &File, memory: &'a Memory, builder: &Builder) -> Self {
        let ring = builder.build(2 * DEPTH as u32).expect("a ring");
        ring.submitter().register_files(&[file.as_raw_fd()]).expect("a registered file");
        Self { ring, fd: types::Fixed(0), memory, block: memory.block, next: 1 }
    }

    fn with_fixed_buffers(self) -> Self {
        let iovec = |slot| libc::iovec { iov_base: self.memory.buf(slot).cast(), iov_len: self.block };
        let iovecs: Vec<_> = (0..DEPTH).map(iovec).collect();
        // SAFETY: the memory is never given back.
        unsafe { self.ring.submitter().register_buffers(&iovecs) }.expect("registered buffers");
        self
    }

    /// The place of the next operation: all over the file, no block twice before all were met.
    fn place(&mut self) -> u64 {
        self.next += 1;
        let blocks = BYTES / self.block as u64;
        self.next.wrapping_mul(0x9e37_79b1) % blocks * self.block as u64
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the memory is never given back; what the device reads and writes in them is of no matter.
        unsafe { self.ring.submission().push(&entry) }.expect("room for an entry");
    }

    /// Hands over what was pushed and waits for `count` completions.
    fn wait(&mut self, count: usize) {
        self.ring.submit_and_wait(count).expect("the ring waits");
        let mut seen = 0;
        while seen < count {
            let done = self.ring.completion().next();
            match done {
                Some(done) => {
                    assert!(done.result() >= 0, "{}", std::io::Error::from_raw_os_error(-done.result()));
                    seen += 1;
                }
                None => drop(self.ring.submit_and_wait(1).expect("the ring waits")),
            }
        }
    }

    fn write_entry(&mut self, slot: usize, flags: i32) -> squeue::Entry {
        let offset = self.place();
        let entry = opcode::Write::new(self.fd, self.memory.buf(slot), self.block as u32);
        entry.offset(offset).rw_flags(flags).build()
    }

    fn sync_entry(&self) -> squeue::Entry {
        opcode::Fsync::new(self.fd).flags(types::FsyncFlags::DATASYNC).build()
    }

    /// `count` writes at once, each durable when it has finished (`flags` says so) or by one flush after them.
    fn write_durably(&mut self, count: usize, flags: i32) {
        for slot in 0..count {
            let entry = self.write_entry(slot, flags);
            self.push(entry);
        }
        self.wait(count);
        if flags == 0 {
            self.push(self.sync_entry());
            self.wait(1);
        }
    }

    /// One write, and a flush linked to it in the same submission.
    fn write_linked(&mut self) {
        let entry = self.write_entry(0, 0).flags(squeue::Flags::IO_LINK);
        self.push(entry);
        self.push(self.sync_entry());
        self.wait(2);
    }

    /// `count` reads at once.
    fn read(&mut self, count: usize, fixed: bool) {
        for slot in 0..count {
            let offset = self.place();
            let (to, len) = (self.memory.buf(slot), self.block as u32);
            self.push(match fixed {
                true => opcode::ReadFixed::new(self.fd, to, len, slot as u16).offset(offset).build(),
                false => opcode::Read::new(self.fd, to, len).offset(offset).build(),
            });
        }
        self.wait(count);
    }

    /// Four blocks in a row, with or without a discard of them before, made durable at the end.
    fn rewrite(&mut self, discard: bool) {
        let len = 4 * self.block as u64;
        self.next += 1;
        let start = self.next * len % BYTES;
        if discard {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            self.push(opcode::Fallocate::new(self.fd, len).offset(start).mode(mode).build());
            self.wait(1);
        }
        for slot in 0..4 {
            let offset = start + (slot * self.block) as u64;
            self.push(opcode::Write::new(self.fd, self.memory.buf(slot), self.block as u32).offset(offset).build());
        }
        self.wait(4);
        self.push(self.sync_entry());
        self.wait(1);
    }
}

/// Microseconds of wall clock and of this process's CPU.
fn measure(times: usize, work: &mut dyn FnMut()) -> (f64, f64) {
    let (began, cpu) = (Instant::now(), cpu_us());
    (0..times).for_each(|_| work());
    (began.elapsed().as_secs_f64() * 1e6 / times as f64, (cpu_us() - cpu) / times as f64)
}

fn cpu_us() -> f64 {
    // SAFETY: all zeros is a value of this plain structure, and the kernel writes one to the pointer.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints how `other` compares with `plain`; both do the same work once per call.
fn compare(what: &str, times: usize, plain: &mut dyn FnMut(), other: &mut dyn FnMut()) {
    measure(times, plain);
    measure(times, other);
    let (mut walls, mut cpus, mut ratios) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()), Vec::new());
    for _ in 0..GROUPS {
        let mut group = Vec::new();
        for round in 0..ROUNDS {
            let (a, b) = if round % 2 == 0 {
                let a = measure(times, plain);
                (a, measure(times, other))
            } else {
                let b = measure(times, other);
                (measure(times, plain), b)
            };
            walls.0.push(a.0);
            walls.1.push(b.0);
            cpus.0.push(a.1);
            cpus.1.push(b.1);
            group.push(b.0 / a.0);
        }
        ratios.push(median(group));
    }
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
    println!(
        "{what:<52} {:>9.1} {:>9.1} {:>7.2} {:>11} {:>8.1} {:>8.1}",
        median(walls.0),
        median(walls.1),
        median(ratios),
        format!("{low:.2}-{high:.2}"),
        median(cpus.0),
        median(cpus.1),
    );
}

fn open(path: &Path) -> File {
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    if !path.exists() {
        OpenOptions::new().write(true).create_new(true).open(path).expect("the file is created");
    }
    let file = open(libc::O_DIRECT).expect("the path opens for direct I/O");
    if !file.metadata().expect("a file").file_type().is_block_device() {
        file.set_len(BYTES).expect("a file of the size");
    }
    // Written whole, so that no round pays for allocation.
    let memory = Memory::of_small_pages(MIB);
    let mut rig = Rig::new(&file, &memory, &ours());
    for offset in (0..BYTES).step_by(MIB) {
        rig.push(opcode::Write::new(rig.fd, rig.memory.buf(0), MIB as u32).offset(offset).build());
        rig.wait(1);
    }
    file.sync_all().expect("a flush");
    file
}

fn writes(file: &File) {
    let dsync = libc::RWF_DSYNC;
    for block in [4 * KIB, 64 * KIB, MIB] {
        let memory = Memory::of_small_pages(block);
        let rig = || Rig::new(file, &memory, &ours());
        let (mut a, mut b) = (rig(), rig());
        let (size, times) = (block / KIB, if block == MIB { 12 } else { 40 });
        let name = format!("noise: {size} KiB write then flush, twice the same");
        compare(&name, times, &mut || a.write_durably(1, 0), &mut || b.write_durably(1, 0));
        let name = format!("{size} KiB: write then flush | dsync write");
        compare(&name, times, &mut || a.write_durably(1, 0), &mut || b.write_durably(1, dsync));
        let name = format!("{size} KiB: write then flush | write linked to flush");
        compare(&name, times, &mut || a.write_durably(1, 0), &mut || b.write_linked());
        let name = format!("16 x {size} KiB: writes, one flush | dsync writes");
        let times = if block == MIB { 3 } else { 12 };
        compare(&name, times, &mut || a.write_durably(16, 0), &mut || b.write_durably(16, dsync));
        if block == MIB {
            compare("4 MiB rewritten: plain | discarded first", 5, &mut || a.rewrite(false), &mut || b.rewrite(true));
            let huge = Memory::new(block, libc::MADV_HUGEPAGE);
            let mut b = Rig::new(file, &huge, &ours());
            let name = "16 x 1024 KiB writes, one flush: small | huge pages";
            compare(name, times, &mut || a.write_durably(16, 0), &mut || b.write_durably(16, 0));
        }
    }
}

fn reads(file: &File) {
    for (block, depth, times) in [(4 * KIB, 1, 300), (4 * KIB, 64, 40), (MIB, 1, 40), (MIB, 16, 4)] {
        let shape = format!("{} KiB reads, qd {depth}", block / KIB);
        let memory = Memory::of_small_pages(block);
        let rig = |builder: &Builder| Rig::new(file, &memory, builder);
        let mut plain = rig(&ours());
        let mut against = |what: &str, other: &mut Rig<'_>, fixed: bool| {
            let name = format!("{shape}: {what}");
            compare(&name, times, &mut || plain.read(depth, false), &mut || other.read(depth, fixed));
        };
        against("noise, twice the same", &mut rig(&ours()), false);
        against("plain | registered buffers", &mut rig(&ours()).with_fixed_buffers(), true);
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().dontfork();
        against("plain | deferred task work", &mut rig(&builder), false);
        let mut builder = IoUring::builder();
        builder.setup_sqpoll(100).dontfork();
        against("plain | polling thread", &mut rig(&builder), false);
        if block == MIB {
            let huge = Memory::new(block, libc::MADV_HUGEPAGE);
            let mut both = Rig::new(file, &huge, &ours()).with_fixed_buffers();
            against("small | huge pages", &mut Rig::new(file, &huge, &ours()), false);
            against("small | huge pages, registered", &mut both, true);
        }
    }
}

/// What the kernel says of polled completion and atomic writes on this file.
fn offers(file: &File) {
    let mut builder = ours();
    let memory = Memory::of_small_pages(4 * KIB);
    let mut rig = Rig::new(file, &memory, builder.setup_iopoll());
    rig.push(opcode::Read::new(rig.fd, memory.buf(0), 4096).build());
    println!("a polled read: {}", answer(&mut rig));
    let mut rig = Rig::new(file, &memory, &ours());
    let entry = rig.write_entry(0, RWF_ATOMIC);
    rig.push(entry);
    println!("an atomic write of 4 KiB: {}", answer(&mut rig));
}

fn answer(rig: &mut Rig) -> String {
    for _ in 0..1000 {
        rig.ring.submit_and_wait(1).expect("the ring waits");
        match rig.ring.completion().next().map(|done| done.result()) {
            Some(bytes @ 0..) => return format!("{bytes} bytes"),
            Some(errno) => return std::io::Error::from_raw_os_error(-errno).to_string(),
            None => {}
        }
    }
    "no completion".to_owned()
}

fn main() {
    for path in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        let file = open(Path::new(&path));
        println!("\n{path}");
        offers(&file);
        println!(
            "{:<52} {:>9} {:>9} {:>7} {:>11} {:>8} {:>8}",
            "us per round of work: plain | other", "plain", "other", "ratio", "(spread)", "CPU", "CPU"
        );
        writes(&file);
        reads(&file);
    }
}
