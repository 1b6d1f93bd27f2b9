//! The harnesses: which clients race, and what must hold besides linearizability.

mod bulk;
mod endings;
mod keys;
mod listing;
mod pools;
mod space;

/// One harness.
#[derive(Debug, Clone, Copy)]
pub struct Harness {
    /// Its name, for people and for the command line.
    pub name: &'static str,
    /// What races.
    pub about: &'static str,
    /// Runs per scheduler when nobody asks for more: together they take about half a minute of CPU.
    pub iterations: usize,
    /// Paths ([`crate::probe`]) that some run must reach.
    pub reaches: &'static [&'static str],
    /// One run, inside of shuttle.
    pub run: fn(),
}

/// All of them.
pub const ALL: &[Harness] = &[
    Harness {
        name: "same_keys",
        about: "put, get, delete and list of the same few keys",
        iterations: 1000,
        reaches: &[],
        run: keys::same_keys,
    },
    Harness {
        name: "journal",
        about: "appends, reads and trims of a journal",
        iterations: 1000,
        reaches: &[],
        run: keys::journal,
    },
    Harness {
        name: "impatient",
        about: "writers that go away before their answer, beside patient ones",
        iterations: 1000,
        reaches: &[],
        run: keys::impatient,
    },
    Harness {
        name: "reclaim",
        about: "put, delete and get while extents are reclaimed, checkpointed and used again",
        iterations: 650,
        reaches: &["records moved", "extents reclaimed", "checkpoints"],
        run: space::reclaim,
    },
    Harness {
        name: "overwrite",
        about: "overwrites and reads of the very records that reclaim moves",
        iterations: 650,
        reaches: &["records moved", "extents reclaimed", "checkpoints"],
        run: space::overwrite,
    },
    Harness {
        name: "listing",
        about: "pages of the list while other keys come and go",
        iterations: 1000,
        reaches: &[],
        run: listing::listing,
    },
    Harness {
        name: "bulk",
        about: "creates of many keys against deletes of many keys, as whole moments",
        iterations: 500,
        reaches: &[],
        run: bulk::bulk,
    },
    Harness {
        name: "pools_of_one",
        about: "everything at once in a store whose pools all hold one",
        iterations: 650,
        reaches: &["records moved", "extents reclaimed", "checkpoints"],
        run: pools::pools_of_one,
    },
    Harness {
        name: "flush",
        about: "put, sync and read of what was acknowledged, until the power goes",
        iterations: 1000,
        reaches: &["power cuts"],
        run: endings::flush,
    },
    Harness {
        name: "close",
        about: "closing while requests are under way",
        iterations: 1000,
        reaches: &["requests refused"],
        run: endings::close,
    },
    Harness {
        name: "power",
        about: "a power cut anywhere in puts, deletes, reads, reclaim and checkpoints",
        iterations: 650,
        reaches: &["power cuts", "records moved", "checkpoints"],
        run: endings::power,
    },
];

/// The harness of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Harness> {
    ALL.iter().find(|harness| harness.name == name)
}
