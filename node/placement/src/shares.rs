//! How many slots each device gets: whole numbers in proportion to weights.
//!
//! The method of D'Hondt: every slot goes to the device with the greatest weight / (slots + 1). Of all ways to hand out
//! whole slots it has the smallest maximum of slots / weight: with `s` slots a device on average at most 1 + 1/s of the
//! mean. And it moves nothing for nothing: a device that comes takes from the others and shifts nothing among them, one
//! that goes only gives. Ties are kept where they are, by what devices hold.
//!
//! Bounds: so many slots at most for each device and for each domain.
//! E. Balinski, H. Young, *Fair Representation*, 1982 (divisor methods; coherence).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::dice::mixed;

/// Bits of a weight that count: weights are scaled to fit, equal ones stay equal.
const WEIGHT_BITS: u32 = 40;

/// What is to be shared out, by device unless said otherwise.
#[derive(Debug)]
pub(crate) struct Shares<'a> {
    /// Slots to hand out.
    pub(crate) total: u64,
    /// Shares are in proportion to these; a device of weight zero gets a slot only after all others are full.
    pub(crate) weights: &'a [u64],
    /// What devices have already and keep on top of what is handed out.
    pub(crate) base: &'a [u32],
    /// Slots handed out to a device at most.
    pub(crate) caps: &'a [u32],
    /// The domain of each device.
    pub(crate) domain: &'a [u32],
    /// Slots handed out in a domain at most, by domain.
    pub(crate) domain_caps: &'a [u64],
    /// What devices hold now: among equals the one that holds more keeps its slot.
    pub(crate) held: &'a [u32],
    /// Decides between equals that hold the same.
    pub(crate) seed: u64,
}

impl Shares<'_> {
    /// Slots of each device; they sum to the total, or to less when the bounds are reached everywhere.
    pub(crate) fn hand_out(&self) -> Vec<u32> {
        let weights = self.scaled();
        let mut members = vec![Vec::new(); self.domain_caps.len()];
        for (device, domain) in self.domain.iter().enumerate().filter(|(device, _)| self.caps[*device] > 0) {
            members[*domain as usize].push(device);
        }
        let sum = |lambda: u128, of: &[usize]| -> u64 {
            of.iter().map(|d| u64::from(self.at(lambda, weights[*d], *d))).sum()
        };
        let whole =
            |lambda: u128| members.iter().zip(self.domain_caps).map(|(of, cap)| sum(lambda, of).min(*cap)).sum::<u64>();
        let everywhere = largest(|lambda| whole(lambda) <= self.total);
        let mut given = vec![0; weights.len()];
        let mut left_in = self.domain_caps.to_vec();
        for (of, left) in members.iter().zip(&mut left_in) {
            let lambda = if sum(everywhere, of) > *left { largest(|l| sum(l, of) <= *left) } else { everywhere };
            for device in of {
                given[*device] = self.at(lambda, weights[*device], *device);
                *left -= u64::from(given[*device]);
            }
        }
        let left = self.total - given.iter().map(|n| u64::from(*n)).sum::<u64>();
        self.last(left, &weights, &mut given, &mut left_in);
        given
    }

    /// Hands out what is left, one by one.
    fn last(&self, mut left: u64, weights: &[u64], given: &mut [u32], left_in: &mut [u64]) {
        let claim = |device: usize, given: u32| Claim {
            weight: weights[device],
            next: self.base[device] + given + 1,
            keeps: self.held[device] > given,
            tie: mixed(self.seed ^ mixed(device as u64)),
            device,
        };
        let open = |device: usize, given: &[u32]| given[device] < self.caps[device];
        let mut claims: BinaryHeap<_> =
            (0..given.len()).filter(|d| open(*d, given)).map(|d| claim(d, given[d])).collect();
        while left > 0
            && let Some(Claim { device, .. }) = claims.pop()
        {
            let domain = &mut left_in[self.domain[device] as usize];
            if *domain == 0 {
                continue;
            }
            (*domain, left, given[device]) = (*domain - 1, left - 1, given[device] + 1);
            if open(device, given) {
                claims.push(claim(device, given[device]));
            }
        }
    }

    /// Slots of a device when a slot costs 1/lambda of weight.
    fn at(&self, lambda: u128, weight: u64, device: usize) -> u32 {
        let all = (lambda * u128::from(weight)) >> WEIGHT_BITS;
        let more = all.saturating_sub(u128::from(self.base[device]));
        u32::try_from(more).unwrap_or(u32::MAX).min(self.caps[device])
    }

    fn scaled(&self) -> Vec<u64> {
        let largest = self.weights.iter().max().copied().unwrap_or(0);
        let shift = (u64::BITS - largest.leading_zeros()).saturating_sub(WEIGHT_BITS);
        self.weights.iter().map(|weight| if *weight == 0 { 0 } else { (weight >> shift).max(1) }).collect()
    }
}

/// The largest lambda for which `fits` still holds; it holds for zero, and for none above one for which it does not.
fn largest(fits: impl Fn(u128) -> bool) -> u128 {
    // 2^32 slots for a weight of 1 are more than there ever are.
    (0..WEIGHT_BITS + u32::BITS).rev().fold(0, |lambda, bit| {
        let larger = lambda | (1 << bit);
        if fits(larger) { larger } else { lambda }
    })
}

/// A device's claim to the next slot; the greatest is first.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    weight: u64,
    next: u32,
    keeps: bool,
    tie: u64,
    device: usize,
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        let one = u128::from(self.weight) * u128::from(other.next);
        let two = u128::from(other.weight) * u128::from(self.next);
        let rest = |claim: &Self| (claim.keeps, claim.tie, claim.device);
        one.cmp(&two).then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    #[derive(Debug, Clone)]
    struct Case {
        total: u64,
        devices: Vec<(u64, u32, u32, u32, u32)>,
        domain_caps: Vec<u64>,
        seed: u64,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let device = (1..1000u64, 0..4u32, 0..12u32, 0..3u32, 0..6u32);
        let devices = proptest::collection::vec(device, 1..12);
        let caps = proptest::collection::vec(0..20u64, 3..=3);
        (0..60u64, devices, caps, any::<u64>()).prop_map(|(total, devices, domain_caps, seed)| Case {
            total,
            devices,
            domain_caps,
            seed,
        })
    }

    impl Case {
        fn run<T>(&self, with: impl FnOnce(&Shares<'_>) -> T) -> T {
            let weights: Vec<u64> = self.devices.iter().map(|d| d.0).collect();
            let column = |of: fn(&(u64, u32, u32, u32, u32)) -> u32| self.devices.iter().map(of).collect::<Vec<_>>();
            let (base, caps, domain, held) = (column(|d| d.1), column(|d| d.2), column(|d| d.3), column(|d| d.4));
            with(&Shares {
                total: self.total,
                weights: &weights,
                base: &base,
                caps: &caps,
                domain: &domain,
                domain_caps: &self.domain_caps,
                held: &held,
                seed: self.seed,
            })
        }
    }

    /// The definition itself, one slot after the other.
    fn one_by_one(shares: &Shares<'_>) -> Vec<u32> {
        let mut given = vec![0u32; shares.weights.len()];
        for _ in 0..shares.total {
            let in_domain = |domain: u32, given: &[u32]| {
                given.iter().zip(shares.domain).filter(|(_, d)| **d == domain).map(|(n, _)| u64::from(*n)).sum::<u64>()
            };
            let open = |d: &usize| {
                given[*d] < shares.caps[*d]
                    && in_domain(shares.domain[*d], &given) < shares.domain_caps[shares.domain[*d] as usize]
            };
            let best = (0..given.len()).filter(open).max_by(|a, b| {
                let claim = |d: usize| Claim {
                    weight: shares.weights[d],
                    next: shares.base[d] + given[d] + 1,
                    keeps: shares.held[d] > given[d],
                    tie: mixed(shares.seed ^ mixed(d as u64)),
                    device: d,
                };
                claim(*a).cmp(&claim(*b))
            });
            match best {
                Some(device) => given[device] += 1,
                None => break,
            }
        }
        given
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_the_definition_gives(case in cases()) {
            let (short, long) = case.run(|shares| (shares.hand_out(), one_by_one(shares)));
            prop_assert_eq!(short, long);
        }

        #[test]
        fn one_that_comes_takes_and_shifts_nothing(case in cases(), weight in 1..1000u64) {
            let mut before = case.clone();
            before.domain_caps = vec![u64::MAX; 3];
            before.devices.iter_mut().for_each(|d| *d = (d.0, 0, u32::MAX, d.3, 0));
            let held = before.run(|shares| shares.hand_out());
            before.devices.iter_mut().zip(&held).for_each(|(d, n)| d.4 = *n);
            prop_assert_eq!(&before.run(|shares| shares.hand_out()), &held);
            let mut after = before.clone();
            after.devices.push((weight, 0, u32::MAX, 0, 0));
            let now = after.run(|shares| shares.hand_out());
            prop_assert!(held.iter().zip(&now).all(|(before, now)| now <= before), "{:?} {:?}", held, now);
        }
    }

    #[test]
    fn equals_get_the_same_and_large_weights_do_not_overflow() {
        for weight in [1, 1 << 44, u64::MAX] {
            let shares = Shares {
                total: 40,
                weights: &[weight; 4],
                base: &[0; 4],
                caps: &[u32::MAX; 4],
                domain: &[0; 4],
                domain_caps: &[u64::MAX],
                held: &[0; 4],
                seed: 0,
            };
            assert_eq!(shares.hand_out(), vec![10; 4]);
        }
    }
}
