//! Verified gets of whole records in no order, beside fio's random reads over as many bytes as were put.

use crate::fio::Job;
use crate::store::bed::Bed;
use crate::store::load::{Order, Outcome, Records, Span, gets};
use crate::store::rows::{Beside, Row, Target, rounds, series};
use crate::store::served::Side;

/// One size of record.
struct Case<'a> {
    group: &'static str,
    name: &'static str,
    fio_name: &'static str,
    records: &'a Records,
    in_flight: usize,
    target: f64,
}

/// Verified 4 KiB gets.
///
/// # Errors
/// The store's.
pub fn small(bed: &Bed) -> Result<Vec<Row>, String> {
    bed.fill(&bed.small, 64)?;
    measure(
        bed,
        &Case {
            group: "gets-4k",
            name: "verified 4 KiB gets, 64 in flight",
            fio_name: "fio 4 KiB randread qd64",
            records: &bed.small,
            in_flight: 64,
            target: 0.9,
        },
    )
}

/// Verified 1 MiB gets.
///
/// # Errors
/// The store's.
pub fn large(bed: &Bed) -> Result<Vec<Row>, String> {
    bed.fill(&bed.large, 16)?;
    measure(
        bed,
        &Case {
            group: "gets-1m",
            name: "verified 1 MiB gets, 16 in flight",
            fio_name: "fio 1 MiB randread qd16",
            records: &bed.large,
            in_flight: 16,
            target: 0.95,
        },
    )
}

fn measure(bed: &Bed, case: &Case<'_>) -> Result<Vec<Row>, String> {
    let run = |side, seed: u32| -> Result<Outcome, String> {
        let (records, span) = (case.records.clone(), Span::seconds(case.in_flight, bed.plan.seconds));
        let order = Order::Random(u64::from(seed) + 0x9e37_79b9_7f4a_7c15);
        bed.store.run(side, move |store| async move { gets(&store, &records, order, span).await })
    };
    let job = Job {
        name: case.fio_name,
        pattern: "randread",
        block_bytes: case.records.payloads.len_bytes() as u64,
        depth: case.in_flight as u32,
        sync_every: 0,
    };
    let all = rounds(bed.plan.rounds, |round| {
        eprintln!("{}, round {round}", case.name);
        let caller = run(Side::Caller, 2 * round)?;
        let fio = bed.fio_over(job, case.records.payload_bytes());
        let device = run(Side::Device, 2 * round + 1)?;
        Ok((caller, fio, device))
    })?;
    let beside = || Beside {
        name: case.fio_name.to_owned(),
        values: series(&all, |(_, fio, _)| fio.as_ref().map(|figure| figure.per_s)),
    };
    let caller = series(&all, |(caller, ..)| Some(caller.per_s()));
    let device = series(&all, |(.., device)| Some(device.per_s()));
    let cpu_us = series(&all, |(caller, ..)| Some(caller.cpu_s / caller.ops as f64 * 1e6));
    let device_cpu_us = series(&all, |(.., device)| Some(device.cpu_s / device.ops as f64 * 1e6));
    let fio_cpu_us = Beside {
        name: "CPU of fio".to_owned(),
        values: series(&all, |(_, fio, _)| {
            Some(fio.as_ref()?.cpu_s_per_gib * job.block_bytes as f64 / f64::from(1 << 30) * 1e6)
        }),
    };
    let own = Row::ratio(
        case.group,
        "  CPU, load on the device's thread",
        "us per get",
        &device_cpu_us,
        fio_cpu_us,
        Target::None,
    );
    Ok(vec![
        Row::ratio(case.group, case.name, "per s", &caller, beside(), Target::AtLeast(case.target)),
        Row::ratio(case.group, "  load on the device's thread", "per s", &device, beside(), Target::None),
        Row::plain(case.group, "  CPU", "us per get", &cpu_us, Target::None),
        own,
    ])
}
