//! A scheduler for one thread that a seed decides: of the tasks that were woken it polls a random one.
//!
//! A task that nobody woke is never polled, so a lost wake-up shows as what it is: nothing can move. A budget of
//! polls bounds what moves for ever. Both are failures, never waits. (A poll that does not return cannot be seen
//! from here; the drivers of this harness watch the wall clock for that.)

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use base::SeededEntropy;
use futures::future::LocalBoxFuture;

/// Why tasks that should have ended have not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stall {
    /// Nobody will ever be woken again.
    #[error("nothing can move any more; waiting: {}", waiting.join(", "))]
    Deadlock {
        /// Names of the tasks that have not ended.
        waiting: Vec<String>,
    },
    /// Much moves, and nothing ends.
    #[error("{polls} polls were not enough; waiting: {}", waiting.join(", "))]
    Livelock {
        /// Polls spent.
        polls: u64,
        /// Names of the tasks that have not ended.
        waiting: Vec<String>,
    },
}

/// Names a task.
pub type TaskId = u64;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    id: TaskId,
    name: String,
    /// Turns in the draw: tasks of more weight are polled more often.
    weight: u64,
    woken: Arc<Flag>,
    future: LocalBoxFuture<'static, ()>,
}

/// See the file's header.
pub struct Executor {
    rng: SeededEntropy,
    tasks: Vec<Task>,
    next_id: TaskId,
    polls: Rc<Cell<u64>>,
}

impl Executor {
    /// An executor whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: SeededEntropy::new(seed), tasks: Vec::new(), next_id: 0, polls: Rc::default() }
    }

    /// Polls so far.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// The counter of polls itself, for those who must know whether they are still in the same one.
    #[must_use]
    pub fn turn(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.polls)
    }

    /// Adds a task.
    ///
    /// # Panics
    /// When `weight` is zero.
    pub fn spawn(&mut self, name: &str, weight: u64, future: impl Future<Output = ()> + 'static) -> TaskId {
        assert!(weight > 0, "a task without weight would never run");
        self.next_id += 1;
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        let task = Task { id: self.next_id, name: name.to_owned(), weight, woken, future: Box::pin(future) };
        self.tasks.push(task);
        self.next_id
    }

    /// Drops a task where it stands, as the death of its process would.
    pub fn kill(&mut self, id: TaskId) {
        self.tasks.retain(|task| task.id != id);
    }

    /// Whether a task has ended or was killed.
    #[must_use]
    pub fn has_ended(&self, id: TaskId) -> bool {
        self.tasks.iter().all(|task| task.id != id)
    }

    /// Runs until every task of `wanted` has ended, or `stop` says so after a poll.
    ///
    /// # Errors
    /// [`Stall`]; at most `polls_max` polls are spent.
    pub fn run_until(&mut self, wanted: &[TaskId], polls_max: u64, stop: impl Fn() -> bool) -> Result<(), Stall> {
        let start = self.polls.get();
        while wanted.iter().any(|id| !self.has_ended(*id)) && !stop() {
            let waiting = |own: &Self| {
                own.tasks.iter().filter(|t| wanted.contains(&t.id)).map(|t| t.name.clone()).collect::<Vec<_>>()
            };
            if self.polls.get() - start >= polls_max {
                return Err(Stall::Livelock { polls: polls_max, waiting: waiting(self) });
            }
            let Some(at) = self.choose() else { return Err(Stall::Deadlock { waiting: waiting(self) }) };
            self.polls.set(self.polls.get() + 1);
            let task = &mut self.tasks[at];
            task.woken.0.store(false, Ordering::Relaxed);
            let waker = Waker::from(Arc::clone(&task.woken));
            if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                drop(self.tasks.swap_remove(at));
            }
        }
        Ok(())
    }

    /// Runs one future to its end beside the other tasks.
    ///
    /// # Errors
    /// [`Stall`].
    pub fn block_on<T: 'static>(
        &mut self,
        name: &str,
        polls_max: u64,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, Stall> {
        let slot = Rc::new(RefCell::new(None));
        let result = Rc::clone(&slot);
        let id = self.spawn(name, 1, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        let ran = self.run_until(&[id], polls_max, || false);
        self.kill(id);
        ran?;
        let value = result.borrow_mut().take();
        Ok(value.expect("an ended task has left its result"))
    }

    fn choose(&self) -> Option<usize> {
        let ready = || self.tasks.iter().enumerate().filter(|(_, task)| task.woken.0.load(Ordering::Relaxed));
        let total: u64 = ready().map(|(_, task)| task.weight).sum();
        if total == 0 {
            return None;
        }
        let mut ticket = self.rng.below(total);
        for (at, task) in ready() {
            if ticket < task.weight {
                return Some(at);
            }
            ticket -= task.weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::task::Poll;

    use super::*;

    /// Ends after `turns` polls, noting each.
    fn note(name: char, turns: u32, seen: &Rc<RefCell<String>>) -> impl Future<Output = ()> + 'static {
        let (mut left, seen) = (turns, Rc::clone(seen));
        poll_fn(move |cx| {
            seen.borrow_mut().push(name);
            left -= 1;
            cx.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn order(seed: u64) -> String {
        let seen = Rc::new(RefCell::new(String::new()));
        let mut executor = Executor::new(seed);
        let ids: Vec<_> = ['a', 'b', 'c'].iter().map(|name| executor.spawn("t", 1, note(*name, 5, &seen))).collect();
        executor.run_until(&ids, 1_000, || false).expect("all end");
        seen.borrow().clone()
    }

    #[test]
    fn a_seed_decides_the_order_and_seeds_differ() {
        assert_eq!(order(3), order(3));
        assert!((0..10).any(|seed| order(seed) != order(3)));
        assert_eq!(order(3).len(), 15);
    }

    #[test]
    fn what_nobody_wakes_is_a_deadlock_and_what_never_ends_a_livelock() {
        let mut executor = Executor::new(1);
        let stuck = executor.block_on("stuck", 100, pending::<()>());
        assert_eq!(stuck, Err(Stall::Deadlock { waiting: vec!["stuck".to_owned()] }));
        let spinning = executor.block_on("spinning", 100, note('x', u32::MAX, &Rc::default()));
        assert!(matches!(spinning, Err(Stall::Livelock { polls: 100, .. })));
        assert_eq!(executor.block_on("fine", 100, async { 7 }), Ok(7));
    }

    #[test]
    fn a_killed_task_is_dropped_at_once() {
        let seen = Rc::new(RefCell::new(String::new()));
        let mut executor = Executor::new(1);
        let id = executor.spawn("t", 1, note('a', 5, &seen));
        executor.kill(id);
        assert!(executor.has_ended(id) && Rc::strong_count(&seen) == 1);
    }
}
