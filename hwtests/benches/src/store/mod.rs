//! Measurements of the store of one device, each a list of [`rows::Row`]s: what the store reached beside what fio (or
//! a smaller store) reached in the same round, and the target that docs/benchmarks.md promises.
//!
//! - on a file of the disk under test ([`served`]): `puts`, `gets`, `scan`, `fullness`;
//! - on a device of memory ([`ram`]), where only the store's own work counts: `amplification`, `recovery`, `scale`;
//! - what all share: [`load`] (the closed loop), [`rows`] (rounds, medians, verdicts), [`cpu`].
//!
//! Nothing here decides whether a program fails: these are figures, not tests.

pub mod amplification;
pub mod bed;
pub mod cpu;
pub mod fullness;
pub mod gets;
pub mod load;
pub mod puts;
pub mod ram;
pub mod recovery;
pub mod rows;
pub mod scale;
pub mod scan;
pub mod served;
