//! Runs harnesses under shuttle's schedulers.

use shuttle::scheduler::{PctScheduler, RandomScheduler, UncontrolledNondeterminismCheckScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::harnesses::Harness;
use crate::probe;
use crate::watch::Watched;

/// Bytes of a task's stack: opening a store and checking a history happen on one.
const STACK_BYTES: usize = 1 << 20;
/// Steps of one run at most; the longest seen have a few thousand, so more is a store that spins.
const STEPS_MAX: usize = 200_000;
/// Priority changes of a PCT run, less one: most known races need one or two.
const PCT_DEPTH: usize = 3;

/// Who decides the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Any task that can run, each time.
    Random,
    /// By priorities that change at a few random steps: probabilistic concurrency testing.
    Pct,
}

impl Scheduler {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Random, Self::Pct];
}

/// How to run.
pub fn config(persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.failure_persistence = persistence;
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    config
}

/// Makes `iterations` runs of a harness.
///
/// # Panics
/// At the first run that fails; its schedule has been printed by then.
pub fn explore(harness: &Harness, scheduler: Scheduler, seed: u64, iterations: usize, config: Config) {
    explore_as(harness.name, scheduler, seed, iterations, config, harness.run);
}

/// As [`explore`], of any run.
///
/// # Panics
/// As [`explore`].
pub fn explore_as<F>(name: &str, scheduler: Scheduler, seed: u64, iterations: usize, config: Config, run: F)
where
    F: Fn() + Send + Sync + 'static,
{
    let told = format!("harness {name}, scheduler {scheduler:?}, seed {seed}, {iterations} runs");
    let _told = Told(told.clone(), Watched::new(told));
    match scheduler {
        Scheduler::Random => Runner::new(RandomScheduler::new_from_seed(seed, iterations), config).run(run),
        Scheduler::Pct => Runner::new(PctScheduler::new_from_seed(seed, PCT_DEPTH, iterations), config).run(run),
    };
}

/// Makes each of `iterations` runs of a harness twice, by the same schedule.
///
/// # Panics
/// When something other than the schedule decides a run.
pub fn check_determined(harness: &Harness, seed: u64, iterations: usize) {
    let scheduler = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new_from_seed(seed, iterations));
    let _ = Runner::new(scheduler, config(FailurePersistence::None)).run(harness.run);
}

/// Says on the way out of a failure where it was.
struct Told(String, #[allow(dead_code, reason = "it watches as long as it lives")] Watched);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// Runs a harness under every scheduler and checks that it reached what it is for.
///
/// # Panics
/// As [`explore`], and when a path was not reached.
pub fn explore_all(harness: &Harness, seed: u64, iterations: usize) {
    let _ = probe::take();
    for scheduler in Scheduler::ALL {
        explore(harness, scheduler, seed, iterations, config(FailurePersistence::Print));
    }
    let hits = probe::take();
    for path in harness.reaches {
        assert!(hits.get(path).is_some_and(|times| *times > 0), "{}: no run reached: {path}", harness.name);
    }
}
