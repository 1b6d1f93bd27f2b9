//! The command line: verbs grouped by noun, and the help that goes with them. clap stops here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::rack_args::{Access, ClusterVerb, ControllerArgs, DeviceVerb, NodeVerb, RackArgs, TokenVerb};
use crate::size::Size;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed; one line on the error output says why
  2  wrong usage
  3  done, and damage was found";

/// Holdfast: a strongly consistent S3 store on raw devices.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One JSON value a line, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a whole node in one process: devices, index and the S3 endpoint.
    Dev(Box<DevArgs>),
    /// Create, list and delete access keys; works while the server runs and while it does not.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Verify devices at rest, or images of them, and what they hold together; changes nothing.
    Fsck(BenchDevices),
    /// Show what is on devices at rest: labels, layout, records; changes nothing.
    Dump(DumpArgs),
    /// Rebuild objects from devices at rest, with no metadata and no service; changes nothing on them.
    Salvage(SalvageArgs),
    /// Is anything at risk, and what is the rack doing about it: one screen.
    Status {
        #[command(flatten)]
        access: Access,
    },
    /// Make a cluster.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Run the rack's controller.
    Controller(ControllerArgs),
    /// Run this host's daemon; list, show, drain and remove nodes.
    #[command(subcommand)]
    Node(NodeVerb),
    /// List, show, locate, drain and remove devices.
    #[command(subcommand)]
    Device(DeviceVerb),
    /// Make and list tokens with which nodes join.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Run a whole rack on this machine: a controller and several nodes as processes on loopback.
    Rack(RackArgs),
    /// Print a shell's completions: `holdfast completions bash > /etc/bash_completion.d/holdfast`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  holdfast dev --data ./var
      six devices of 4 GiB as files in ./var, 4+2 erasure coding, S3 on 127.0.0.1:9000
  holdfast dev --data ./var --devices 9 --device-size 512MiB --data-shards 6 --parity-shards 3
  holdfast dev --data ./var --raw-device /dev/sdb --raw-device /dev/sdc ... --claim
      raw devices; --claim overwrites what is on them
  source ./var/credentials.env && aws s3 mb s3://first
      the key pair of the first start is in DIR/credentials.env

Devices, policy and device size are fixed at the first start; later starts need --data alone.
Log lines go to the error output; HOLDFAST_LOG=debug or HOLDFAST_LOG=gateway=trace shows more.")]
pub(crate) struct DevArgs {
    /// Directory for the catalog, the credentials and file-backed devices; made when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Number of file-backed devices [default: 6].
    #[arg(long, value_name = "COUNT", conflicts_with = "raw_devices")]
    pub(crate) devices: Option<u16>,
    /// Size of each file-backed device [default: 4GiB].
    #[arg(long, value_name = "SIZE", conflicts_with = "raw_devices")]
    pub(crate) device_size: Option<Size>,
    /// A raw block device to own whole, instead of files; repeat for each.
    #[arg(long = "raw-device", value_name = "PATH")]
    pub(crate) raw_devices: Vec<PathBuf>,
    /// Overwrite file systems, partition tables and labels of other clusters on raw devices.
    #[arg(long)]
    pub(crate) claim: bool,
    /// Where S3 is served [default: 127.0.0.1:9000].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) s3_addr: Option<SocketAddr>,
    /// Where health and metrics are served [default: 127.0.0.1:9001].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin_addr: Option<SocketAddr>,
    /// k: shards of a stripe that carry data [default: 4].
    #[arg(long, value_name = "K")]
    pub(crate) data_shards: Option<u8>,
    /// m: shards of a stripe that may be lost [default: 2].
    #[arg(long, value_name = "M")]
    pub(crate) parity_shards: Option<u8>,
    /// The region that requests are signed for [default: us-east-1].
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// TOML file with any of these flags as keys (`s3_addr = "..."`); flags override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log as JSON, one object a line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Draw a new access key and print it; its secret is not shown again.
    #[command(
        after_help = "Examples:\n  holdfast key create --data ./var backup-job\n  holdfast key create --as ./var/rack/operator backup-job"
    )]
    Create {
        #[command(flatten)]
        place: KeyPlace,
        /// What the key is for.
        name: String,
    },
    /// List the access keys, without their secrets.
    List {
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Delete an access key; requests signed with it are refused at once.
    #[command(after_help = "Example:\n  holdfast key delete --data ./var HFABCDEFGHIJKLMNOPQR")]
    Delete {
        #[command(flatten)]
        place: KeyPlace,
        /// The key's public id.
        access_key_id: String,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyPlace {
    /// The directory of a single host's server.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// For a rack: directory with the operator's certificate.
    #[arg(long = "as", value_name = "DIR", env = "HOLDFAST_OPERATOR")]
    pub(crate) operator: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchDevices {
    /// Devices or images of them; all of one cluster, as many as there are.
    #[arg(required = true, value_name = "DEVICE")]
    pub(crate) devices: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  holdfast dump --limit 20 /dev/sdb
  holdfast dump --space journal -o json device0.img device1.img
  holdfast dump --stripe 0000000000000007 ./var/devices/*")]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    pub(crate) bench: BenchDevices,
    /// Records shown of each device at most.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Only the shards of this stripe; its id in hexadecimal, as shown.
    #[arg(long, value_name = "ID", value_parser = stripe_id)]
    pub(crate) stripe: Option<u64>,
    /// Only records of this kind.
    #[arg(long, value_name = "SPACE", value_parser = ["stripe", "journal", "region", "fact"])]
    pub(crate) space: Option<String>,
}

fn stripe_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "a stripe's id is at most 16 hexadecimal digits".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  holdfast salvage --out ./rescued /dev/sdb /dev/sdc /dev/sde /dev/sdf
      objects go to ./rescued/BUCKET/KEY; what cannot be proven to have been completed to
      ./rescued/_uncertain, what has holes to ./rescued/_incomplete; ./rescued/manifest.jsonl
      lists everything")]
pub(crate) struct SalvageArgs {
    #[command(flatten)]
    pub(crate) bench: BenchDevices,
    /// Directory for the objects; made when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Write into a directory that is not empty; files of the same names are replaced.
    #[arg(long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_parse_and_contradictions_are_refused() {
        let cli = Cli::try_parse_from("holdfast dev --data d --device-size 64MiB -o json".split(' ')).unwrap();
        assert_eq!(cli.output, Output::Json);
        let Verb::Dev(dev) = cli.verb else { panic!("the verb is dev") };
        assert_eq!(dev.device_size, Some(Size(64 << 20)));
        for wrong in [
            "holdfast",
            "holdfast dev --data d --devices 3 --raw-device /dev/x",
            "holdfast dev --data d --device-size 4GB",
            "holdfast dev --data d --s3-addr nowhere",
            "holdfast dev --data d --data-shards 300",
            "holdfast key create --data d",
            "holdfast key list",
        ] {
            assert_eq!(Cli::try_parse_from(wrong.split(' ')).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
