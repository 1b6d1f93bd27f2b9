//! From wishes and the catalog's facts to what this start has to do.
//!
//! Invariants: what the cluster fixed at its first start is never changed by a flag, only confirmed or
//! refused; a device that the catalog lists is opened, never made anew.

use std::path::{Path, PathBuf};

use base::{ClusterId, DeviceId, Entropy};
use catalog::{ClusterFacts, DeviceEntry, DomainLevel};

use crate::error::CliError;
use crate::settings::ClusterWish;
use crate::size::Size;

const DATA_SHARDS: u8 = 4;
const PARITY_SHARDS: u8 = 2;
const DEVICES: u16 = 6;
const DEVICE_SIZE: Size = Size(4 << 30);
/// Files in one directory that one process keeps open, with room to spare below the usual 1,024.
const DEVICES_MAX: u16 = 256;

/// A device of this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedDevice {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Bytes of the file to make when it is absent; `None` for what has to be there.
    pub(crate) create_bytes: Option<u64>,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The facts as the catalog has them, or those of a new cluster at revision 0.
    pub(crate) facts: ClusterFacts,
    /// The devices, in order.
    pub(crate) devices: Vec<PlannedDevice>,
}

/// Decides what to start in `dir`.
pub(crate) fn plan(
    stored: Option<ClusterFacts>,
    wish: &ClusterWish,
    dir: &Path,
    entropy: &dyn Entropy,
) -> Result<Plan, CliError> {
    let facts = match stored {
        Some(facts) => facts,
        None => ClusterFacts {
            revision: 0,
            cluster_id: draw_cluster_id(entropy),
            data_shards: wish.data_shards.unwrap_or(DATA_SHARDS),
            parity_shards: wish.parity_shards.unwrap_or(PARITY_SHARDS),
            domain_level: DomainLevel::Device,
            devices: Vec::new(),
        },
    };
    fixed("--data-shards", wish.data_shards, facts.data_shards)?;
    fixed("--parity-shards", wish.parity_shards, facts.parity_shards)?;
    let devices = if facts.devices.is_empty() {
        first_devices(wish, &facts, dir)?
    } else {
        known_devices(wish, &facts.devices, dir)?
    };
    assert!(!devices.is_empty(), "a plan has devices");
    Ok(Plan { facts, devices })
}

fn first_devices(wish: &ClusterWish, facts: &ClusterFacts, dir: &Path) -> Result<Vec<PlannedDevice>, CliError> {
    let count = match wish.raw_devices.len() {
        0 => usize::from(wish.devices.unwrap_or(DEVICES)),
        raw => raw,
    };
    let (k, m) = (facts.data_shards, facts.parity_shards);
    if k == 0 {
        return Err(CliError::Usage("--data-shards is at least 1".to_owned()));
    }
    if count < usize::from(k) + usize::from(m) {
        return Err(CliError::Usage(format!(
            "{k}+{m} erasure coding needs at least {} devices, one a shard; {count} are given",
            usize::from(k) + usize::from(m)
        )));
    }
    if count > usize::from(DEVICES_MAX) {
        return Err(CliError::Usage(format!("one node has at most {DEVICES_MAX} devices; {count} are given")));
    }
    if !wish.raw_devices.is_empty() {
        let raw = |path: &PathBuf| PlannedDevice { path: path.clone(), create_bytes: None };
        return Ok(wish.raw_devices.iter().map(raw).collect());
    }
    let size = wish.device_size.unwrap_or(DEVICE_SIZE);
    let file = |n| PlannedDevice { path: dir.join(format!("devices/{n:02}.img")), create_bytes: Some(size.0) };
    let devices: Vec<_> = (0..count).map(file).collect();
    same_size(wish, &devices)?;
    Ok(devices)
}

fn known_devices(wish: &ClusterWish, known: &[DeviceEntry], dir: &Path) -> Result<Vec<PlannedDevice>, CliError> {
    fixed("--devices", wish.devices.map(usize::from), known.len())?;
    if wish.raw_devices.len() > known.len() {
        return Err(CliError::Usage(format!(
            "this cluster was made with {} devices and does not take in more; {} are given",
            known.len(),
            wish.raw_devices.len()
        )));
    }
    // Raw devices may be found at other paths than last time: their labels tell which is which.
    let paths: Vec<PathBuf> = if wish.raw_devices.is_empty() {
        known.iter().map(|entry| dir.join(&entry.path)).collect()
    } else {
        wish.raw_devices.clone()
    };
    let devices: Vec<_> = paths.into_iter().map(|path| PlannedDevice { path, create_bytes: None }).collect();
    same_size(wish, &devices)?;
    Ok(devices)
}

/// Refuses a `--device-size` other than that of the files there are.
fn same_size(wish: &ClusterWish, devices: &[PlannedDevice]) -> Result<(), CliError> {
    let Some(wanted) = wish.device_size else { return Ok(()) };
    for device in devices {
        match std::fs::metadata(&device.path) {
            Ok(file) if file.is_file() && file.len() != wanted.0 && file.len() != 0 => {
                return Err(CliError::Usage(format!(
                    "--device-size {wanted}: {} has {} and keeps it; leave the flag out",
                    device.path.display(),
                    Size(file.len())
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn fixed<T: PartialEq + std::fmt::Display>(flag: &str, wish: Option<T>, stored: T) -> Result<(), CliError> {
    match wish {
        Some(wish) if wish != stored => Err(CliError::Usage(format!(
            "{flag} {wish}: this cluster was made with {stored} and keeps it; leave the flag out"
        ))),
        _ => Ok(()),
    }
}

fn draw_cluster_id(entropy: &dyn Entropy) -> ClusterId {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    ClusterId(id)
}

/// The facts with the devices that the node found or formatted. Paths below `dir` are kept relative, so
/// that the directory can be moved.
pub(crate) fn with_devices(facts: &ClusterFacts, dir: &Path, found: &[(DeviceId, PathBuf, u64)]) -> ClusterFacts {
    let mut devices = facts.devices.clone();
    for (device_id, path, size_bytes) in found {
        let path = path.strip_prefix(dir).unwrap_or(path).display().to_string();
        let entry = DeviceEntry { device_id: *device_id, path, size_bytes: *size_bytes };
        match devices.iter_mut().find(|known| known.device_id == *device_id) {
            Some(known) => *known = entry,
            None => devices.push(entry),
        }
    }
    ClusterFacts { devices, ..facts.clone() }
}

#[cfg(test)]
mod tests {
    use base::SeededEntropy;

    use super::*;

    fn first(wish: &ClusterWish) -> Result<Plan, CliError> {
        plan(None, wish, Path::new("/nowhere"), &SeededEntropy::new(1))
    }

    fn made(devices: u8) -> ClusterFacts {
        let facts = first(&ClusterWish::default()).unwrap().facts;
        let found: Vec<_> = (0..devices)
            .map(|n| (DeviceId([n; 16]), PathBuf::from(format!("/nowhere/devices/{n:02}.img")), 4 << 30))
            .collect();
        ClusterFacts { revision: 2, ..with_devices(&facts, Path::new("/nowhere"), &found) }
    }

    fn usage<T: std::fmt::Debug>(outcome: Result<T, CliError>) -> String {
        match outcome {
            Err(CliError::Usage(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_first_start_without_wishes_has_six_devices_and_4_plus_2() {
        let plan = first(&ClusterWish::default()).unwrap();
        assert_eq!((plan.facts.data_shards, plan.facts.parity_shards, plan.facts.revision), (4, 2, 0));
        assert_eq!(plan.devices.len(), 6);
        assert_eq!(plan.devices[5].path, PathBuf::from("/nowhere/devices/05.img"));
        assert!(plan.devices.iter().all(|device| device.create_bytes == Some(4 << 30)));
    }

    #[test]
    fn too_few_devices_are_refused_with_the_number_needed() {
        for wish in [
            ClusterWish { devices: Some(5), ..ClusterWish::default() },
            ClusterWish { data_shards: Some(5), ..ClusterWish::default() },
            ClusterWish { raw_devices: vec!["/dev/x".into()], ..ClusterWish::default() },
        ] {
            assert!(usage(first(&wish)).contains("needs at least"), "{wish:?}");
        }
        assert!(usage(first(&ClusterWish { data_shards: Some(0), ..ClusterWish::default() })).contains("at least 1"));
        assert!(usage(first(&ClusterWish { devices: Some(300), ..ClusterWish::default() })).contains("at most"));
    }

    #[test]
    fn a_later_start_opens_what_the_catalog_lists_and_makes_nothing() {
        let entropy = SeededEntropy::new(2);
        let plan = plan(Some(made(6)), &ClusterWish::default(), Path::new("/moved"), &entropy).unwrap();
        assert_eq!(plan.devices[0].path, PathBuf::from("/moved/devices/00.img"));
        assert!(plan.devices.iter().all(|device| device.create_bytes.is_none()));
        assert_eq!(plan.facts.revision, 2);
    }

    #[test]
    fn what_the_cluster_fixed_is_confirmed_or_refused() {
        let later = |wish: ClusterWish| plan(Some(made(6)), &wish, Path::new("/nowhere"), &SeededEntropy::new(2));
        let same =
            ClusterWish { devices: Some(6), data_shards: Some(4), parity_shards: Some(2), ..ClusterWish::default() };
        later(same).unwrap();
        for wish in [
            ClusterWish { data_shards: Some(3), ..ClusterWish::default() },
            ClusterWish { parity_shards: Some(1), ..ClusterWish::default() },
            ClusterWish { devices: Some(5), ..ClusterWish::default() },
            ClusterWish { devices: Some(7), ..ClusterWish::default() },
        ] {
            assert!(usage(later(wish)).contains("this cluster was made with"));
        }
    }

    #[test]
    fn another_device_size_than_that_of_the_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("devices")).unwrap();
        std::fs::File::create(dir.path().join("devices/03.img")).unwrap().set_len(64 << 20).unwrap();
        let sized = |size| ClusterWish { device_size: Some(Size(size)), ..ClusterWish::default() };
        for stored in [None, Some(made(6))] {
            let start = |wish| plan(stored.clone(), &wish, dir.path(), &SeededEntropy::new(3));
            assert!(usage(start(sized(32 << 20))).contains("03.img has 64MiB"));
            start(sized(64 << 20)).unwrap();
        }
    }

    #[test]
    fn a_device_found_at_another_path_keeps_its_place() {
        let facts = made(6);
        let moved = [(DeviceId([2; 16]), PathBuf::from("/dev/sdz"), 4 << 30)];
        let after = with_devices(&facts, Path::new("/nowhere"), &moved);
        assert_eq!(after.devices.len(), 6);
        assert_eq!(after.devices[2].path, "/dev/sdz");
        assert_eq!(after.devices[1].path, "devices/01.img");
    }
}
