//! Linearizability of one key: whether what was seen of it can be put into one order that respects time.
//!
//! A key is a register. Its history is a set of writes (puts and deletes) and reads, each with the moments of its
//! call and its answer. An unanswered write may have taken effect at any moment after its call, or never. The
//! search is the one of Wing and Gong with Lowe's memory of states seen; a key's window has few events.

use std::collections::BTreeSet;

use crate::content::Held;

/// Events that one window of one key may have.
pub const EVENTS_MAX: usize = 128;

/// What an event did or saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The key holds this from then on.
    Write(Held),
    /// The key held one of these.
    Read(Vec<Held>),
}

/// One operation on the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was called.
    pub call: u64,
    /// When it was answered; `None` when it was not, or with an error that leaves its effect open.
    pub ret: Option<u64>,
    /// What it was.
    pub kind: Kind,
}

impl Event {
    fn written(&self) -> Option<Held> {
        match &self.kind {
            Kind::Write(held) => Some(*held),
            Kind::Read(_) => None,
        }
    }
}

/// What the key may hold after `events`, had it held one of `initial` before: empty when no order explains them.
///
/// # Panics
/// When there are more than [`EVENTS_MAX`] events, or a read is unanswered (nothing can be said about it).
#[must_use]
pub fn finals(initial: &BTreeSet<Held>, events: &[Event]) -> BTreeSet<Held> {
    assert!(events.len() <= EVENTS_MAX, "{} events of one key in one window", events.len());
    assert!(events.iter().all(|event| event.ret.is_some() || matches!(event.kind, Kind::Write(_))));
    let answered: u128 = events.iter().enumerate().filter(|(_, e)| e.ret.is_some()).map(|(i, _)| 1 << i).sum();
    let mut ends = BTreeSet::new();
    let mut seen: BTreeSet<(u128, Held)> = BTreeSet::new();
    let mut todo: Vec<(u128, Held)> = initial.iter().map(|held| (0, *held)).collect();
    while let Some((done, held)) = todo.pop() {
        if !seen.insert((done, held)) {
            continue;
        }
        if done & answered == answered {
            ends.insert(held);
            ends.extend(events.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0).filter_map(|(_, e)| e.written()));
        }
        // Nothing may come before an event that was answered before it was called.
        let left = events.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0);
        let first_answer = left.clone().filter_map(|(_, event)| event.ret).min().unwrap_or(u64::MAX);
        let mut open: BTreeSet<Held> = BTreeSet::new();
        for (i, event) in left.clone().filter(|(_, event)| event.call <= first_answer) {
            // An unanswered write matters only where a read needs it, and of several alike any one will do: without
            // this the search doubles with each of them.
            if event.ret.is_none()
                && let Some(held) = event.written()
            {
                let needed =
                    |(_, other): (usize, &Event)| matches!(&other.kind, Kind::Read(may) if may.contains(&held));
                if !open.insert(held) || !left.clone().any(needed) {
                    continue;
                }
            }
            match &event.kind {
                Kind::Write(new) => todo.push((done | 1 << i, *new)),
                Kind::Read(may) if may.contains(&held) => todo.push((done | 1 << i, held)),
                Kind::Read(_) => {}
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Value;

    fn v(id: u64) -> Held {
        Some(Value { id, len: 9 })
    }

    fn put(call: u64, ret: u64, id: u64) -> Event {
        Event { call, ret: Some(ret), kind: Kind::Write(v(id)) }
    }

    fn open(call: u64, held: Held) -> Event {
        Event { call, ret: None, kind: Kind::Write(held) }
    }

    fn delete(call: u64, ret: u64) -> Event {
        Event { call, ret: Some(ret), kind: Kind::Write(None) }
    }

    fn read(call: u64, ret: u64, held: Held) -> Event {
        Event { call, ret: Some(ret), kind: Kind::Read(vec![held]) }
    }

    /// Every order of every choice of unanswered writes, tried one by one.
    fn plainly(initial: Held, events: &[Event]) -> BTreeSet<Held> {
        fn go(held: Held, left: &[Event], ends: &mut BTreeSet<Held>) {
            if left.iter().all(|event| event.ret.is_none()) {
                ends.insert(held);
            }
            let first_answer = left.iter().filter_map(|event| event.ret).min().unwrap_or(u64::MAX);
            for (i, event) in left.iter().enumerate().filter(|(_, event)| event.call <= first_answer) {
                let rest = [&left[..i], &left[i + 1..]].concat();
                match &event.kind {
                    Kind::Write(new) => go(*new, &rest, ends),
                    Kind::Read(may) if may.contains(&held) => go(held, &rest, ends),
                    Kind::Read(_) => {}
                }
            }
        }
        let mut ends = BTreeSet::new();
        go(initial, events, &mut ends);
        ends
    }

    #[test]
    fn the_search_finds_what_trying_everything_finds() {
        let mut explained = 0;
        for seed in 0..3_000 {
            let rng = base::SeededEntropy::new(seed);
            let event = |n: u64| {
                let (call, held) = (rng.below(12), if rng.one_in(3) { None } else { v(1 + n % 3) });
                match rng.below(3) {
                    0 => open(call, held),
                    1 => read(call, call + 1 + rng.below(6), held),
                    _ => Event { call, ret: Some(call + 1 + rng.below(6)), kind: Kind::Write(held) },
                }
            };
            let events: Vec<Event> = (0..1 + rng.below(6)).map(event).collect();
            let ends = finals(&BTreeSet::from([None]), &events);
            assert_eq!(ends, plainly(None, &events), "seed {seed}: {events:?}");
            explained += u64::from(!ends.is_empty());
        }
        assert!((300..2_700).contains(&explained), "{explained} of 3,000 histories have an order");
    }

    #[test]
    fn many_unanswered_writes_are_no_burden() {
        let deletes = (0..60).map(|n| open(n, None));
        let puts = (0..60).map(|n| open(n, v(n)));
        let events: Vec<Event> = deletes.chain(puts).chain([read(100, 101, v(7)), read(102, 103, None)]).collect();
        assert_eq!(finals(&BTreeSet::from([None]), &events).len(), 60, "all but the one that a delete followed");
    }

    fn ends(events: &[Event]) -> Vec<Held> {
        finals(&BTreeSet::from([None]), events).into_iter().collect()
    }

    #[test]
    fn good_histories_have_an_order() {
        assert_eq!(ends(&[]), [None]);
        assert_eq!(ends(&[put(1, 2, 1), read(3, 4, v(1))]), [v(1)]);
        assert_eq!(ends(&[put(1, 9, 1), read(2, 3, None), read(4, 5, v(1))]), [v(1)], "in effect between two reads");
        assert_eq!(ends(&[put(1, 9, 1), put(2, 8, 2)]), [v(1), v(2)], "either may be last");
        assert_eq!(ends(&[put(1, 9, 1), put(2, 8, 2), read(10, 11, v(1))]), [v(1)]);
        assert_eq!(ends(&[put(1, 2, 1), delete(3, 9), put(4, 8, 2), read(5, 6, None)]), [None, v(2)]);
    }

    #[test]
    fn bad_histories_have_none() {
        assert_eq!(ends(&[put(1, 2, 1), read(3, 4, None)]), [], "a lost write");
        assert_eq!(ends(&[read(1, 2, v(1)), put(3, 4, 1)]), [], "a read from the future");
        assert_eq!(ends(&[put(1, 9, 1), read(2, 3, v(1)), read(4, 5, None)]), [], "seen, then unseen");
        assert_eq!(ends(&[put(1, 2, 1), put(3, 4, 2), read(5, 6, v(1))]), [], "an older value");
        assert_eq!(ends(&[put(1, 2, 1), delete(3, 4), read(5, 6, v(1))]), [], "back from the dead");
        let (a, b) = (put(1, 9, 1), put(1, 9, 2));
        let reads = [read(2, 3, v(1)), read(4, 5, v(2)), read(6, 7, v(1))];
        assert_eq!(ends(&[[a, b].as_slice(), &reads].concat()), [], "two writes cannot alternate");
    }

    #[test]
    fn an_unanswered_write_may_happen_late_or_never_but_once() {
        assert_eq!(ends(&[open(1, v(1))]), [None, v(1)]);
        assert_eq!(ends(&[open(1, v(1)), read(2, 3, None)]), [None, v(1)]);
        assert_eq!(ends(&[open(1, v(1)), read(2, 3, v(1))]), [v(1)]);
        assert_eq!(ends(&[open(1, v(1)), read(2, 3, v(1)), delete(4, 5), read(6, 7, v(1))]), []);
        assert_eq!(ends(&[open(5, v(1)), read(2, 3, v(1))]), [], "not before its call");
        assert_eq!(ends(&[put(1, 2, 1), open(3, None)]), [None, v(1)]);
    }

    #[test]
    fn a_read_of_little_fits_several_values() {
        let either = Event { call: 5, ret: Some(6), kind: Kind::Read(vec![v(1), v(2)]) };
        assert_eq!(ends(&[put(1, 4, 1), put(2, 3, 2), either.clone()]), [v(1), v(2)]);
        assert_eq!(ends(&[put(1, 4, 3), either]), []);
    }
}
