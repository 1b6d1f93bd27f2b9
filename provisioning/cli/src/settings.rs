//! What a node is asked to be: flags over the config file over the defaults.
//!
//! Two types, because two rules apply: [`ClusterWish`] must agree with what the cluster was made with,
//! [`NodeSettings`] each process chooses anew at each start. In the file, an unknown key is refused: a
//! setting that is spelled wrong must not be one that is silently absent.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::args::DevArgs;
use crate::error::CliError;
use crate::size::Size;

/// Settings the cluster fixes at its first start; `None` asks for what it has, or the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClusterWish {
    pub(crate) data_shards: Option<u8>,
    pub(crate) parity_shards: Option<u8>,
    pub(crate) devices: Option<u16>,
    pub(crate) device_size: Option<Size>,
    pub(crate) raw_devices: Vec<PathBuf>,
}

/// Settings of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    pub(crate) data: PathBuf,
    pub(crate) s3_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) region: String,
    pub(crate) claim: bool,
    pub(crate) log_json: bool,
}

/// The file's keys: the flags' names with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    devices: Option<u16>,
    device_size: Option<Size>,
    #[serde(default)]
    raw_devices: Vec<PathBuf>,
    claim: Option<bool>,
    s3_addr: Option<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    data_shards: Option<u8>,
    parity_shards: Option<u8>,
    region: Option<String>,
    log_json: Option<bool>,
}

/// Reads the config file, if one is named, and lays the flags over it.
pub(crate) fn resolve(args: DevArgs) -> Result<(ClusterWish, NodeSettings), CliError> {
    let file = match &args.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    merge(args, file)
}

fn merge(args: DevArgs, file: File) -> Result<(ClusterWish, NodeSettings), CliError> {
    let usage = |what: &str| CliError::Usage(what.to_owned());
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // A flag that names devices replaces everything that the file says of devices.
    let raw_devices = match (args.raw_devices.is_empty(), args.devices) {
        (false, _) => args.raw_devices,
        (true, Some(_)) => Vec::new(),
        (true, None) => file.raw_devices,
    };
    let cluster = ClusterWish {
        data_shards: args.data_shards.or(file.data_shards),
        parity_shards: args.parity_shards.or(file.parity_shards),
        devices: args.devices.or(file.devices.filter(|_| raw_devices.is_empty())),
        device_size: args.device_size.or(file.device_size.filter(|_| raw_devices.is_empty())),
        raw_devices,
    };
    let node = NodeSettings {
        data: args.data.or(file.data).ok_or_else(|| usage("say where the data is: --data DIR"))?,
        s3_addr: args.s3_addr.or(file.s3_addr).unwrap_or_else(|| loopback(9000)),
        admin_addr: args.admin_addr.or(file.admin_addr).unwrap_or_else(|| loopback(9001)),
        region: args.region.or(file.region).unwrap_or_else(|| "us-east-1".to_owned()),
        claim: args.claim || file.claim.unwrap_or(false),
        log_json: args.log_json || file.log_json.unwrap_or(false),
    };
    if node.s3_addr == node.admin_addr && node.s3_addr.port() != 0 {
        return Err(usage("--s3-addr and --admin-addr are the same address"));
    }
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&node.region.len()) || !node.region.bytes().all(legal) {
        return Err(usage("a region is 1 to 64 lower-case letters, digits and hyphens"));
    }
    let mut sorted: Vec<_> = cluster.raw_devices.iter().collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CliError::Usage(format!("{} is named twice", twice[0].display())));
    }
    Ok((cluster, node))
}

fn read(path: &Path) -> Result<File, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| CliError::Usage(format!("the config file {} cannot be read: {e}", path.display())))?;
    parse(&text).map_err(|(line, what)| CliError::Usage(format!("{}:{line}: {what}", path.display())))
}

/// Parses the file's text; an error carries its line, counted from 1, and names the key.
fn parse(text: &str) -> Result<File, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|b| **b == b'\n').count();
        let key = text.lines().nth(line).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        let message = error.message().trim().replace('\n', " ");
        (line + 1, key.map_or(message.clone(), |key| format!("{key}: {message}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> DevArgs {
        use clap::Parser;
        let cli = crate::args::Cli::try_parse_from(format!("holdfast dev {line}").split_whitespace()).unwrap();
        match cli.verb {
            crate::args::Verb::Dev(dev) => *dev,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let file = parse("data = \"/a\"\ndevices = 9\ndevice_size = \"1GiB\"\nregion = \"eu-north-7\"\n").unwrap();
        let (cluster, node) = merge(args("--data /b --device-size 64MiB"), file).unwrap();
        assert_eq!((cluster.devices, cluster.device_size), (Some(9), Some(Size(64 << 20))));
        assert_eq!((node.data, node.region.as_str()), (PathBuf::from("/b"), "eu-north-7"));
        assert_eq!((node.s3_addr.port(), node.admin_addr.port()), (9000, 9001));
        assert_eq!(cluster.data_shards, None);
    }

    #[test]
    fn devices_by_flag_replace_devices_by_file() {
        let file = || parse("raw_devices = [\"/dev/x\"]\n").unwrap();
        let (cluster, _) = merge(args("--data d --devices 6"), file()).unwrap();
        assert_eq!((cluster.devices, cluster.raw_devices), (Some(6), vec![]));
        let (cluster, _) = merge(args("--data d --raw-device /dev/y"), file()).unwrap();
        assert_eq!(cluster.raw_devices, [PathBuf::from("/dev/y")]);
    }

    #[test]
    fn a_wrong_file_names_line_and_key() {
        let table = [
            ("devices = 6\ndevice_sise = \"4GiB\"\n", 2, "device_sise"),
            ("\n\ndevice_size = \"4GB\"\n", 3, "device_size: the unit is one of"),
            ("devices = \"six\"\n", 1, "devices: "),
            ("s3_addr = \"localhost\"\n", 1, "s3_addr: "),
            ("claim = true\nclaim = false\n", 2, "duplicate key"),
            ("data_shards = 300\n", 1, "data_shards: "),
            ("devices = 6\n[cluster\n", 2, ""),
        ];
        for (text, line, part) in table {
            let (at, what) = parse(text).err().unwrap_or_else(|| panic!("{text:?} parses"));
            assert_eq!(at, line, "{text:?}: {what}");
            assert!(what.contains(part) && !what.contains('\n'), "{text:?}: {what}");
        }
    }

    #[test]
    fn settings_that_contradict_are_refused() {
        for line in [
            "--s3-addr 127.0.0.1:9000 --data d --admin-addr 127.0.0.1:9000",
            "--data d --region EU",
            "--data d --raw-device /dev/x --raw-device /dev/x",
            "--devices 6",
        ] {
            assert!(matches!(merge(args(line), File::default()), Err(CliError::Usage(_))), "{line}");
        }
    }
}
