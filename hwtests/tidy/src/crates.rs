//! The workspace's crates as their manifests describe them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Finding;

/// The rooms in import order.
pub const ROOMS: [&str; 4] = ["drivers", "node", "provisioning", "hwtests"];

/// One crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Folder below the root.
    pub dir: PathBuf,
    /// First part of the folder: its room.
    pub room: String,
    /// What it is built from.
    pub dependencies: BTreeSet<String>,
    /// What its tests use besides.
    pub dev_dependencies: BTreeSet<String>,
    /// Whether it takes the workspace's lints.
    pub workspace_lints: bool,
}

impl Crate {
    /// `room/folder`.
    #[must_use]
    pub fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

/// Reads every member's manifest.
///
/// # Errors
/// A finding when a manifest is absent or does not parse.
pub fn read(root: &Path) -> Result<Vec<Crate>, Finding> {
    let workspace = manifest(root, Path::new("Cargo.toml"))?;
    let members = workspace.get("workspace").and_then(|w| w.get("members")).and_then(toml::Value::as_array);
    let members = members.ok_or_else(|| Finding::new("Cargo.toml", 0, "the workspace lists no members"))?;
    members.iter().filter_map(toml::Value::as_str).map(|member| read_one(root, member)).collect()
}

fn read_one(root: &Path, member: &str) -> Result<Crate, Finding> {
    let dir = PathBuf::from(member);
    let manifest = manifest(root, &dir.join("Cargo.toml"))?;
    let names = |tables: &[&str]| {
        let tables = tables.iter().filter_map(|table| manifest.get(*table).and_then(toml::Value::as_table));
        tables.flat_map(|table| table.keys().cloned()).collect()
    };
    let name = manifest.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str);
    let lints = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool);
    Ok(Crate {
        name: name.unwrap_or_default().to_owned(),
        room: member.split('/').next().unwrap_or_default().to_owned(),
        dependencies: names(&["dependencies", "build-dependencies"]),
        dev_dependencies: names(&["dev-dependencies"]),
        workspace_lints: lints == Some(true),
        dir,
    })
}

fn manifest(root: &Path, path: &Path) -> Result<toml::Table, Finding> {
    let place = path.display().to_string();
    let text = fs::read_to_string(root.join(path)).map_err(|e| Finding::new(&place, 0, &e.to_string()))?;
    text.parse().map_err(|e: toml::de::Error| Finding::new(&place, 0, e.message()))
}
