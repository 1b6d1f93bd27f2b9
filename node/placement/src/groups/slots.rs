//! Which slot of its groups a device holds: every slot equally often, give or take one.
//!
//! Groups and devices are the two sides of a graph, slots are the colours of its edges: each group has every colour
//! once. A device counts as several, each with `width` edges at most, and these have no colour twice; so the device has
//! each colour floor or ceil of its edges / width times. Such a colouring exists (König) and is found edge by edge,
//! swapping two colours along a path where no colour is free at both ends.
//! D. König, 1916; D. de Werra, *Equitable colorations of graphs*, 1971.

/// No edge of this colour.
const NONE: u32 = u32::MAX;

/// The devices of each group by slot, from its devices in any order.
pub(super) fn order(sets: &[u32], width: usize, devices: usize) -> Vec<u32> {
    let mut colouring = Colouring::new(sets, width, devices);
    let mut met = vec![0; devices];
    for (edge, device) in sets.iter().enumerate() {
        let part = colouring.first_part[*device as usize] + met[*device as usize] / width as u32;
        met[*device as usize] += 1;
        colouring.add((edge / width) as u32, part);
    }
    let device_of = |part: &u32| colouring.device_of_part[*part as usize];
    colouring.part_of_group.iter().map(device_of).collect()
}

struct Colouring {
    width: usize,
    /// A device is this part and those behind it up to the next device's first.
    first_part: Vec<u32>,
    device_of_part: Vec<u32>,
    /// By group and colour.
    part_of_group: Vec<u32>,
    /// By part and colour.
    group_of_part: Vec<u32>,
    /// Colours not yet used, as bits.
    free_of_group: Vec<u64>,
    free_of_part: Vec<u64>,
    path: Vec<(u32, u32, usize)>,
}

impl Colouring {
    fn new(sets: &[u32], width: usize, devices: usize) -> Self {
        assert!((1..=64).contains(&width), "colours are bits of a word");
        let mut held = vec![0usize; devices];
        sets.iter().for_each(|device| held[*device as usize] += 1);
        let mut first_part = Vec::with_capacity(devices);
        let mut device_of_part = Vec::new();
        for (device, held) in (0u32..).zip(held) {
            first_part.push(device_of_part.len() as u32);
            device_of_part.resize(device_of_part.len() + held.div_ceil(width), device);
        }
        let (groups, parts) = (sets.len() / width, device_of_part.len());
        let all = u64::MAX >> (64 - width);
        Self {
            width,
            first_part,
            device_of_part,
            part_of_group: vec![NONE; groups * width],
            group_of_part: vec![NONE; parts * width],
            free_of_group: vec![all; groups],
            free_of_part: vec![all; parts],
            path: Vec::new(),
        }
    }

    fn add(&mut self, group: u32, part: u32) {
        let (at_group, at_part) = (self.free_of_group[group as usize], self.free_of_part[part as usize]);
        let colour = if at_group & at_part != 0 {
            (at_group & at_part).trailing_zeros()
        } else {
            let (wanted, other) = (at_group.trailing_zeros(), at_part.trailing_zeros());
            // The path begins with the wanted colour at the part; every edge of that colour leads to a group, and
            // this group has none, so the path never comes back here.
            self.swap_from(part, wanted as usize, other as usize);
            wanted
        } as usize;
        self.set(group, part, colour);
    }

    /// Swaps two colours along the path from a part that has an edge of `wanted` and none of `other`.
    fn swap_from(&mut self, part: u32, wanted: usize, other: usize) {
        let mut path = std::mem::take(&mut self.path);
        let mut at = part;
        loop {
            let group = self.group_of_part[at as usize * self.width + wanted];
            if group == NONE {
                break;
            }
            path.push((group, at, wanted));
            let next = self.part_of_group[group as usize * self.width + other];
            if next == NONE {
                break;
            }
            path.push((group, next, other));
            at = next;
        }
        for (group, part, colour) in &path {
            self.unset(*group, *part, *colour);
        }
        for (group, part, colour) in path.drain(..) {
            self.set(group, part, if colour == wanted { other } else { wanted });
        }
        self.path = path;
    }

    fn set(&mut self, group: u32, part: u32, colour: usize) {
        self.part_of_group[group as usize * self.width + colour] = part;
        self.group_of_part[part as usize * self.width + colour] = group;
        self.free_of_group[group as usize] &= !(1 << colour);
        self.free_of_part[part as usize] &= !(1 << colour);
    }

    fn unset(&mut self, group: u32, part: u32, colour: usize) {
        self.part_of_group[group as usize * self.width + colour] = NONE;
        self.group_of_part[part as usize * self.width + colour] = NONE;
        self.free_of_group[group as usize] |= 1 << colour;
        self.free_of_part[part as usize] |= 1 << colour;
    }
}
