//! Whether a history is linearizable: some order of its operations, each at one moment between its call and its
//! answer, explains all that was seen (Wing and Gong 1993, with Lowe's memory of the states already tried).
//!
//! Operations without an answer may take effect at any moment after their call, or never. All keys are absent at
//! first. The search keeps the set of placed operations in 128 bits, so a history has at most 128 per key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::history::{Key, Op, Value, What};

type Values = BTreeMap<Key, Value>;

/// Checks each key alone.
///
/// # Errors
/// The history of a key that no order explains, for people.
pub fn check_keys(ops: &[Op]) -> Result<(), String> {
    let keys: BTreeSet<Key> = ops.iter().flat_map(Op::keys).collect();
    for key in keys {
        let about: Vec<Op> = ops.iter().filter_map(|op| op.about(key)).collect();
        check_whole(&about).map_err(|told| format!("key {key} is not linearizable:\n{told}"))?;
    }
    Ok(())
}

/// Checks all keys together, so that deletes of many keys and pages of a list are moments too.
///
/// # Errors
/// The history, for people, when no order explains it.
///
/// # Panics
/// When there are more than 128 operations.
pub fn check_whole(ops: &[Op]) -> Result<(), String> {
    assert!(ops.len() <= 128, "{} operations are too many for the search", ops.len());
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.call);
    let answered = mask(ops.iter().map(|op| op.back.is_some()));
    let mut tried = BTreeSet::new();
    let mut open = vec![(0u128, Values::new())];
    let mut best = (0u128, Values::new());
    while let Some((placed, values)) = open.pop() {
        if placed & answered == answered {
            return Ok(());
        }
        if placed.count_ones() >= best.0.count_ones() {
            best = (placed, values.clone());
        }
        for at in ready(&ops, placed).into_iter().rev() {
            let Some(after) = step(&ops[at].what, &values) else { continue };
            let next = (placed | 1 << at, after);
            if tried.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Err(tell(&ops, best.0, &best.1))
}

fn mask(bits: impl Iterator<Item = bool>) -> u128 {
    bits.enumerate().fold(0, |mask, (at, bit)| mask | u128::from(bit) << at)
}

/// Operations that may be next: no other one had its answer before they were asked for.
fn ready(ops: &[Op], placed: u128) -> Vec<usize> {
    let left = |at: &usize| placed & 1 << *at == 0;
    let first_back = (0..ops.len()).filter(left).filter_map(|at| ops[at].back).min().unwrap_or(u64::MAX);
    (0..ops.len()).filter(left).filter(|at| ops[*at].call < first_back).collect()
}

/// The values after an operation; `None` when it cannot have seen what it saw.
fn step(what: &What, values: &Values) -> Option<Values> {
    let mut after = values.clone();
    match what {
        What::Put(key, value) => _ = after.insert(*key, *value),
        What::Delete(keys) => after.retain(|key, _| !keys.contains(key)),
        What::See(seen) => {
            if seen.iter().any(|(key, value)| values.get(key) != value.as_ref()) {
                return None;
            }
        }
    }
    Some(after)
}

fn tell(ops: &[Op], placed: u128, values: &Values) -> String {
    let mut out = format!("the longest order found leads to {values:?}; of these, * are not in it\n");
    for (at, op) in ops.iter().enumerate() {
        let sign = if placed & 1 << at == 0 { '*' } else { ' ' };
        let back = op.back.map_or("...".to_owned(), |back| back.to_string());
        let _ = writeln!(out, "{sign} {:>5} - {back:<5} {:<12} {:?}", op.call, op.client, op.what);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(call: u64, back: impl Into<Option<u64>>, what: What) -> Op {
        Op { client: "test", call, back: back.into(), what }
    }

    fn put(call: u64, back: impl Into<Option<u64>>, value: Value) -> Op {
        op(call, back, What::Put(0, value))
    }

    fn del(call: u64, back: impl Into<Option<u64>>) -> Op {
        op(call, back, What::Delete(vec![0]))
    }

    fn see(call: u64, back: u64, value: impl Into<Option<Value>>) -> Op {
        op(call, back, What::See(vec![(0, value.into())]))
    }

    #[test]
    fn orders_that_explain_what_was_seen_are_found() {
        let fine: &[&[Op]] = &[
            &[],
            &[see(1, 2, None), put(3, 4, 1), see(5, 6, 1), del(7, 8), see(9, 10, None)],
            // A read beside a write may see it or not.
            &[put(1, 10, 1), see(2, 3, None), see(4, 5, 1)],
            &[put(1, 10, 1), put(2, 9, 2), see(11, 12, 1)],
            &[put(1, 10, 1), put(2, 9, 2), see(11, 12, 2)],
            // Without an answer: at once, late, or never.
            &[put(1, None, 1), see(2, 3, 1)],
            &[put(1, None, 1), see(2, 3, None), put(4, 5, 2), see(6, 7, 2), see(8, 9, 1)],
            &[put(1, 2, 1), del(3, None), see(4, 5, 1), see(6, 7, 1)],
        ];
        for ops in fine {
            assert_eq!(check_keys(ops), Ok(()), "{ops:?}");
        }
    }

    #[test]
    fn what_no_order_explains_is_refused() {
        let wrong: &[&[Op]] = &[
            // Lost, stale, from nowhere, and back from the dead.
            &[put(1, 2, 1), see(3, 4, None)],
            &[put(1, 2, 1), put(3, 4, 2), see(5, 6, 1)],
            &[see(1, 2, 7)],
            &[put(1, 2, 1), del(3, 4), see(5, 6, 1)],
            // New, then old again.
            &[put(1, 2, 1), put(3, 20, 2), see(4, 5, 2), see(6, 7, 1)],
            // Two readers that saw two writes in different orders.
            &[put(1, 20, 1), put(1, 20, 2), see(2, 3, 1), see(4, 5, 2), see(6, 7, 1)],
            // An operation without an answer happens once.
            &[put(1, None, 1), see(2, 3, 1), put(4, 5, 2), see(6, 7, 2), see(8, 9, 1)],
        ];
        for ops in wrong {
            assert!(check_keys(ops).is_err(), "{ops:?}");
        }
    }

    #[test]
    fn keys_together_are_stricter_than_each_alone() {
        // The delete of both keys is seen half done.
        let ops = [
            op(1, 2, What::Put(0, 1)),
            op(3, 4, What::Put(1, 2)),
            op(5, 20, What::Delete(vec![0, 1])),
            op(6, 7, What::See(vec![(0, None)])),
            op(8, 9, What::See(vec![(1, Some(2))])),
        ];
        assert_eq!(check_keys(&ops), Ok(()));
        assert!(check_whole(&ops).is_err());
    }

    /// Against the plain definition: every order of every small history.
    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut seed = 1u64;
        let mut draw = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let (mut fine, mut wrong) = (0, 0);
        for _ in 0..3000 {
            let ops: Vec<Op> = (1..=5)
                .map(|value| {
                    let call = draw(8);
                    let back = (draw(5) > 0).then(|| call + 1 + draw(6));
                    match draw(4) {
                        0 => put(call, back, value),
                        1 => del(call, back),
                        _ => see(call, call + 1 + draw(6), if draw(3) == 0 { None } else { Some(1 + draw(5) as u32) }),
                    }
                })
                .collect();
            let expected = any_order(&ops, &mut Vec::new());
            assert_eq!(check_whole(&ops).is_ok(), expected, "{ops:?}");
            if expected { fine += 1 } else { wrong += 1 }
        }
        assert!(fine > 200 && wrong > 200, "{fine} fine, {wrong} wrong");
    }

    fn any_order(ops: &[Op], order: &mut Vec<usize>) -> bool {
        let in_time = order
            .iter()
            .enumerate()
            .all(|(i, a)| order[i + 1..].iter().all(|b| ops[*b].back.is_none_or(|back| ops[*a].call < back)));
        let values = order.iter().try_fold(Values::new(), |values, at| step(&ops[*at].what, &values));
        if !in_time || values.is_none() {
            return false;
        }
        let left: Vec<usize> = (0..ops.len()).filter(|at| !order.contains(at)).collect();
        if left.iter().all(|at| ops[*at].back.is_none()) {
            return true;
        }
        left.into_iter().any(|at| {
            order.push(at);
            let found = any_order(ops, order);
            order.pop();
            found
        })
    }
}
