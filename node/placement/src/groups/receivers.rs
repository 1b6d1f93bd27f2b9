//! Devices that could take a slot, by domain: a set to draw from.

use crate::dice::Dice;

/// No place: not in the set.
const OUT: u32 = u32::MAX;

/// A set of devices, drawn from by domain, so that a group's full domains are passed over in one step each.
pub(super) struct Receivers {
    /// Domains with a device in the set.
    domains: Vec<u32>,
    /// Where a domain is in that list.
    place_of_domain: Vec<u32>,
    /// Devices of the set, by domain.
    devices: Vec<Vec<u32>>,
    /// Where a device is in its domain's list.
    place_of_device: Vec<u32>,
}

impl Receivers {
    pub(super) fn new(domains: usize, devices: usize) -> Self {
        Self {
            domains: Vec::new(),
            place_of_domain: vec![OUT; domains],
            devices: vec![Vec::new(); domains],
            place_of_device: vec![OUT; devices],
        }
    }

    /// Has a device in the set, or not.
    pub(super) fn set(&mut self, device: u32, domain: u32, inside: bool) {
        match (self.place_of_device[device as usize] != OUT, inside) {
            (false, true) => self.add(device, domain),
            (true, false) => self.remove(device, domain),
            _ => {}
        }
    }

    fn add(&mut self, device: u32, domain: u32) {
        let devices = &mut self.devices[domain as usize];
        if devices.is_empty() {
            self.place_of_domain[domain as usize] = self.domains.len() as u32;
            self.domains.push(domain);
        }
        self.place_of_device[device as usize] = devices.len() as u32;
        devices.push(device);
    }

    fn remove(&mut self, device: u32, domain: u32) {
        let devices = &mut self.devices[domain as usize];
        let place = std::mem::replace(&mut self.place_of_device[device as usize], OUT);
        devices.swap_remove(place as usize);
        if let Some(moved) = devices.get(place as usize) {
            self.place_of_device[*moved as usize] = place;
        }
        if devices.is_empty() {
            let place = std::mem::replace(&mut self.place_of_domain[domain as usize], OUT);
            self.domains.swap_remove(place as usize);
            if let Some(moved) = self.domains.get(place as usize) {
                self.place_of_domain[*moved as usize] = place;
            }
        }
    }

    /// Every device of the set.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        self.domains.iter().flat_map(|domain| &self.devices[*domain as usize]).copied()
    }

    /// Up to `wanted` devices, from different domains first, in random order. A group refuses domains and devices for
    /// what it holds, so the search passes over no more of either than a group has slots before and after its moves.
    pub(super) fn draw(
        &self,
        dice: &mut Dice,
        wanted: usize,
        domain_fits: impl Fn(u32) -> bool,
        device_fits: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut drawn = Vec::new();
        let mut open = Vec::new();
        let start = if self.domains.is_empty() { 0 } else { dice.below(self.domains.len()) };
        let (behind, from) = self.domains.split_at(start);
        for domain in from.iter().chain(behind).filter(|domain| domain_fits(**domain)) {
            open.push(*domain);
            self.draw_in(*domain, dice, 1, &device_fits, &mut drawn);
            if drawn.len() == wanted {
                return drawn;
            }
        }
        for domain in open {
            let more = wanted - drawn.len();
            self.draw_in(domain, dice, more, &device_fits, &mut drawn);
        }
        drawn
    }

    fn draw_in(&self, domain: u32, dice: &mut Dice, wanted: usize, fits: &impl Fn(u32) -> bool, drawn: &mut Vec<u32>) {
        let devices = &self.devices[domain as usize];
        let (behind, from) = devices.split_at(dice.below(devices.len()));
        let others = drawn.len();
        for device in from.iter().chain(behind) {
            if drawn.len() == others + wanted {
                break;
            }
            if !drawn.contains(device) && fits(*device) {
                drawn.push(*device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_in_it_is_what_a_plain_set_holds_and_all_of_it_can_be_drawn() {
        let mut dice = Dice::new(3);
        let mut set = Receivers::new(5, 20);
        let mut plain = BTreeSet::new();
        for _ in 0..2000 {
            let (device, inside) = (dice.below(20) as u32, dice.below(2) == 0);
            set.set(device, device % 5, inside);
            if inside {
                plain.insert(device)
            } else {
                plain.remove(&device)
            };
            assert_eq!(set.all().collect::<BTreeSet<_>>(), plain);
            let fits = |device: &u32| device % 5 != 2 && device % 3 != 1;
            let drawn = set.draw(&mut dice, 20, |domain| domain != 2, |device| fits(&device));
            assert_eq!(drawn.iter().copied().collect::<BTreeSet<_>>(), plain.iter().copied().filter(fits).collect());
            let one = set.draw(&mut dice, 1, |domain| domain != 2, |device| fits(&device));
            assert_eq!(one.len(), drawn.len().min(1));
        }
    }
}
