//! Which group takes new data.
//!
//! Of two groups drawn at random the cooler is taken: almost as even as knowing the coolest of all, at the cost of two
//! looks, and without all writers running to the same one. (M. Mitzenmacher, *The Power of Two Choices*, 2001.)
//!
//! A [`Chooser`] is made for one map epoch: groups sorted by how many of their slots are not healthy. Groups with the
//! fewest are drawn from first; the next are looked at only when none of those can be written. A group can be written
//! when at most `tolerated` of its slots take no writes, by the map or by the caller's view of this moment. Suspect
//! devices still take writes, so their groups come late but count as writable.
//!
//! The cost of a choice does not grow with the map: at most [`DRAWS`] groups are drawn and [`SCAN_MAX`] looked at in a
//! row for each number of unhealthy slots. Where less than about 1 in 200 of many groups can be written a choice may
//! find none; the reason says how many it looked at.

use std::fmt;

use crate::dice::Dice;
use crate::map::ClusterMap;
use crate::standing::Standing;

/// Groups drawn at most before looking along the list.
pub const DRAWS: usize = 16;
/// Groups looked at along the list.
pub const SCAN_MAX: usize = 1024;

/// A group for new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The group, by number.
    pub group: u32,
    /// How many of its slots take no writes now: shards owed.
    pub missing: u8,
}

/// Why no group takes new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoGroup {
    /// The map has no groups.
    NoGroups,
    /// By the map every group lacks too many devices.
    TooManyMissing {
        /// Slots missing in the best group.
        best: u8,
        /// Slots that may be missing.
        tolerated: u8,
    },
    /// Devices that the map has take no writes now.
    Refused {
        /// Groups looked at.
        looked_at: u32,
    },
}

impl fmt::Display for NoGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroups => write!(f, "the map has no groups"),
            Self::TooManyMissing { best, tolerated } => {
                write!(f, "every group has at least {best} slots on devices that take no writes; {tolerated} may")
            }
            Self::Refused { looked_at } => {
                write!(f, "devices take no writes now: none of {looked_at} groups looked at can be written")
            }
        }
    }
}

impl std::error::Error for NoGroup {}

/// The groups of one map, sorted for choosing.
#[derive(Debug, Clone)]
pub struct Chooser {
    width: usize,
    tolerated: u8,
    /// Devices by slot, one group after the other.
    slots: Vec<u32>,
    /// Devices that the map lets be written.
    writable: Vec<bool>,
    /// Groups that can be written, by slots not healthy, fewest first; no list is empty.
    tiers: Vec<Vec<u32>>,
    /// What there is to say when there is no tier.
    none: NoGroup,
}

/// A look at a group: less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    missing: u8,
    hottest: u64,
    heat: u128,
}

impl Chooser {
    /// Prepares the choice for a map; `tolerated` slots of a group may take no writes: at most m - 1, so that what is
    /// acknowledged always survives one more loss.
    ///
    /// # Panics
    /// When [`ClusterMap::check`] fails.
    #[must_use]
    pub fn new(map: &ClusterMap, tolerated: u8) -> Self {
        let standing = Standing::all(map);
        let mut tiers = vec![Vec::new(); map.policy.width() + 1];
        let mut best = u8::MAX;
        for (number, group) in (0u32..).zip(&map.groups) {
            let count = |is: fn(&Standing) -> bool| group.slots.iter().filter(|d| is(&standing[**d as usize])).count();
            let missing = count(|standing| !standing.writable) as u8;
            best = best.min(missing);
            if missing <= tolerated {
                tiers[count(|standing| !standing.healthy)].push(number);
            }
        }
        tiers.retain(|tier| !tier.is_empty());
        Self {
            width: map.policy.width(),
            tolerated,
            slots: map.groups.iter().flat_map(|group| &group.slots).copied().collect(),
            writable: standing.iter().map(|standing| standing.writable).collect(),
            tiers,
            none: if map.groups.is_empty() { NoGroup::NoGroups } else { NoGroup::TooManyMissing { best, tolerated } },
        }
    }

    /// Chooses a group with a random number. `heat` is what the caller knows of a device, by place, at this moment:
    /// more is hotter (a queue, a latency, how full it is), `None` takes no writes.
    ///
    /// # Errors
    /// [`NoGroup`].
    pub fn choose(&self, random: u64, heat: impl Fn(u32) -> Option<u64>) -> Result<Choice, NoGroup> {
        let mut looked_at = 0;
        for tier in &self.tiers {
            if let Some(choice) = self.choose_in(tier, random, &heat, &mut looked_at) {
                return Ok(choice);
            }
        }
        Err(if self.tiers.is_empty() { self.none } else { NoGroup::Refused { looked_at } })
    }

    fn choose_in(
        &self,
        tier: &[u32],
        random: u64,
        heat: &impl Fn(u32) -> Option<u64>,
        looked_at: &mut u32,
    ) -> Option<Choice> {
        let by_map = |group: u32| self.members(group).iter().filter(|d| !self.writable[**d as usize]).count() as u8;
        let choice = |(look, group): (Look, u32)| Choice { group, missing: look.missing };
        let mut best: Option<(Look, u32)> = None;
        let mut dice = Dice::new(random);
        let mut at = dice.below(tier.len());
        for draw in 1..=DRAWS {
            let group = tier[at];
            // Another one, where there is one.
            at = (at + 1 + dice.below(tier.len().max(2) - 1)) % tier.len();
            *looked_at += 1;
            let look = self.look(group, heat);
            // Among equals the first drawn: any other rule prefers some groups for ever.
            if best.is_none_or(|(best, _)| look < best) {
                best = Some((look, group));
            }
            let (best, group) = best?;
            // Nobody refuses: two looks are enough.
            if draw >= 2 && best.missing == by_map(group) {
                return Some(choice((best, group)));
            }
        }
        if let Some(best) = best.filter(|(look, _)| look.missing <= self.tolerated) {
            return Some(choice(best));
        }
        let (behind, from) = tier.split_at(dice.below(tier.len()));
        let row = from.iter().chain(behind).take(SCAN_MAX).map(|group| (self.look(*group, heat), *group));
        row.inspect(|_| *looked_at += 1).find(|(look, _)| look.missing <= self.tolerated).map(choice)
    }

    fn members(&self, group: u32) -> &[u32] {
        &self.slots[group as usize * self.width..][..self.width]
    }

    fn look(&self, group: u32, heat: &impl Fn(u32) -> Option<u64>) -> Look {
        let mut look = Look { missing: 0, hottest: 0, heat: 0 };
        for device in self.members(group) {
            match heat(*device).filter(|_| self.writable[*device as usize]) {
                Some(heat) => (look.hottest, look.heat) = (look.hottest.max(heat), look.heat + u128::from(heat)),
                None => look.missing += 1,
            }
        }
        look
    }
}
