//! Durable puts beside fio's writes with as many writes between two flushes as the store had in that round.
//!
//! The keys come round: a put replaces the oldest record, so that the device's extents are used again and again.

use std::cell::Cell;

use crate::fio::{Figure, Job, WRITE_4KIB};
use crate::store::bed::Bed;
use crate::store::cpu;
use crate::store::load::{Order, Outcome, Records, Span, puts};
use crate::store::rows::{Beside, Row, Target, rounds, series};
use crate::store::served::Side;

/// A set of records, and fio's job for it.
struct Case<'a> {
    bed: &'a Bed,
    records: &'a Records,
    in_flight: usize,
    /// Where the next load goes on.
    next: Cell<u64>,
}

impl Case<'_> {
    fn puts(&self, side: Side) -> Result<Outcome, String> {
        let (records, span) = (self.records.clone(), Span::seconds(self.in_flight, self.bed.plan.seconds));
        let order = Order::From(self.next.get());
        let done = self.bed.store.run(side, move |store| async move { puts(&store, &records, order, span).await })?;
        self.next.set(self.next.get() + done.ops);
        Ok(done)
    }

    /// Writes of the records' size with the cadence of these puts.
    fn job(&self, pattern: &'static str, puts: &Outcome) -> Job {
        Job {
            name: "writes beside the puts",
            pattern,
            block_bytes: self.records.payloads.len_bytes() as u64,
            depth: self.in_flight as u32,
            sync_every: puts.ops_per_flush().round().max(1.0) as u32,
        }
    }
}

/// Durable 1 MiB puts.
///
/// # Errors
/// The store's.
pub fn large(bed: &Bed) -> Result<Vec<Row>, String> {
    let case = Case { bed, records: &bed.large, in_flight: 16, next: Cell::new(0) };
    bed.fill(case.records, case.in_flight)?;
    let (crc, copy) = cpu::passes_s_per_gib();
    let all = rounds(bed.plan.rounds, |round| {
        eprintln!("1 MiB puts, round {round}");
        let caller = case.puts(Side::Caller)?;
        let fio = bed.fio(case.job("write", &caller));
        let device = case.puts(Side::Device)?;
        Ok((caller, fio, device))
    })?;
    let fio = |of: fn(&Figure) -> f64| series(&all, |(_, fio, _)| fio.as_ref().map(of));
    let cadence = series(&all, |(caller, ..)| Some(caller.ops_per_flush()));
    let flushed = fio_cadence(all.iter().map(|(_, fio, _)| *fio).collect());
    let gib_per_s = |puts: &Outcome| puts.cpu_s / puts.ops as f64 * 1024.0;
    let write =
        || Beside { name: "fio 1 MiB write qd16, same puts a flush".to_owned(), values: fio(|figure| figure.per_s) };
    let passes = || Beside {
        name: "fio + one CRC pass + one copy".to_owned(),
        values: series(&all, |(_, fio, _)| Some(fio.as_ref()?.cpu_s_per_gib + crc + copy)),
    };
    const GROUP: &str = "puts-1m";
    let per_s = |outcome: &Outcome| Some(outcome.per_s());
    let values = series(&all, |(caller, ..)| per_s(caller));
    let own = series(&all, |(.., device)| per_s(device));
    let cpu_caller = series(&all, |(caller, ..)| Some(gib_per_s(caller)));
    let cpu_device = series(&all, |(.., device)| Some(gib_per_s(device)));
    Ok(vec![
        Row::ratio(GROUP, "durable 1 MiB puts, 16 in flight", "per s", &values, write(), Target::AtLeast(0.95)),
        Row::ratio(GROUP, "  load on the device's thread", "per s", &own, write(), Target::None),
        Row::ratio(GROUP, "  puts for each flush", "puts", &cadence, flushed, Target::None),
        Row::ratio(GROUP, "  CPU", "s per GiB", &cpu_caller, passes(), Target::AtMost(1.3)),
        Row::ratio(GROUP, "  CPU, load on the device's thread", "s per GiB", &cpu_device, passes(), Target::None),
        Row::plain(GROUP, "  CPU of fio", "s per GiB", &fio(|figure| figure.cpu_s_per_gib), Target::None),
        Row::plain(GROUP, "  CPU of one CRC pass", "s per GiB", &[Some(crc)], Target::None),
        Row::plain(GROUP, "  CPU of one copy", "s per GiB", &[Some(copy)], Target::None),
    ])
}

/// What fio made of the cadence that it was given.
fn fio_cadence(figures: Vec<Option<Figure>>) -> Beside {
    Beside {
        name: "fio's writes for each fdatasync".to_owned(),
        values: series(&figures, |figure| Some(1.0 / (*figure)?.syncs_per_request)),
    }
}

/// Durable 4 KiB puts.
///
/// # Errors
/// The store's.
pub fn small(bed: &Bed) -> Result<Vec<Row>, String> {
    let case = Case { bed, records: &bed.small, in_flight: 64, next: Cell::new(0) };
    bed.fill(case.records, case.in_flight)?;
    let all = rounds(bed.plan.rounds, |round| {
        eprintln!("4 KiB puts, round {round}");
        let caller = case.puts(Side::Caller)?;
        let written = bed.fio(case.job("write", &caller));
        let device = case.puts(Side::Device)?;
        let scattered = bed.fio(case.job("randwrite", &caller));
        let single = bed.fio(WRITE_4KIB);
        Ok((caller, device, [written, scattered, single]))
    })?;
    let caller = series(&all, |(caller, ..)| Some(caller.per_s()));
    let device = series(&all, |(_, device, _)| Some(device.per_s()));
    let cadence = series(&all, |(caller, ..)| Some(caller.ops_per_flush()));
    let flushed = fio_cadence(all.iter().map(|(.., fio)| fio[0]).collect());
    let cpu_us = series(&all, |(caller, ..)| Some(caller.cpu_s / caller.ops as f64 * 1e6));
    let beside = |job: usize, name: &str| Beside {
        name: name.to_owned(),
        values: series(&all, |(.., fio)| fio[job].map(|figure| figure.per_s)),
    };
    let sequential = || beside(0, "fio 4 KiB write qd64, same puts a flush");
    let scattered = beside(1, "fio 4 KiB randwrite qd64, same puts a flush");
    let single = beside(2, "fio 4 KiB randwrite + fdatasync qd1");
    const GROUP: &str = "puts-4k";
    const NAME: &str = "durable 4 KiB puts, 64 in flight";
    Ok(vec![
        Row::ratio(GROUP, NAME, "per s", &caller, sequential(), Target::AtLeast(0.9)),
        Row::ratio(GROUP, "  load on the device's thread", "per s", &device, sequential(), Target::None),
        Row::ratio(GROUP, "  beside scattered writes", "per s", &caller, scattered, Target::None),
        Row::ratio(GROUP, "  beside one at a time", "per s", &caller, single, Target::None),
        Row::ratio(GROUP, "  puts for each flush", "puts", &cadence, flushed, Target::None),
        Row::plain(GROUP, "  CPU", "us per put", &cpu_us, Target::None),
    ])
}
