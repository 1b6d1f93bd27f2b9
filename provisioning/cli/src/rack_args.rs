//! The command line of a rack: cluster, controller, node, device, token, status.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::size::Size;

/// The credentials of an operator.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Directory with the operator's certificate, as `cluster create` made it.
    #[arg(long = "as", value_name = "DIR", env = "HOLDFAST_OPERATOR", default_value = "./var/operator")]
    pub(crate) operator: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelName {
    /// Slots on distinct devices.
    Device,
    /// Slots on distinct nodes.
    Node,
    /// Slots in distinct racks.
    Rack,
    /// Slots in distinct sites.
    Site,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Make a new cluster: its authority, its controller's state and an administrator's certificate.
    #[command(after_help = "Example:
  holdfast cluster create --data /var/lib/holdfast --controller 10.0.0.5:9100
      then `holdfast controller --data /var/lib/holdfast` serves it, and
      `holdfast token create` admits nodes")]
    Create(ClusterCreate),
}

#[derive(Debug, Args)]
pub(crate) struct ClusterCreate {
    /// Directory for the controller's state; must not hold a cluster yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Address at which nodes and operators reach the controller; repeat for each.
    #[arg(long = "controller", value_name = "ADDR:PORT", required = true)]
    pub(crate) controllers: Vec<SocketAddr>,
    /// Directory for the administrator's certificate [default: DIR/operator].
    #[arg(long, value_name = "DIR")]
    pub(crate) operator: Option<PathBuf>,
    /// k: shards of a stripe that carry data.
    #[arg(long, value_name = "K", default_value_t = 4)]
    pub(crate) data_shards: u8,
    /// m: shards of a stripe that may be lost.
    #[arg(long, value_name = "M", default_value_t = 2)]
    pub(crate) parity_shards: u8,
    /// Level at which the slots of a group are kept apart.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LevelName::Node)]
    pub(crate) level: LevelName,
    /// Slots of a group that may share one domain of that level; up to m on a small rack.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) slots_per_domain: u8,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Directory that `cluster create` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where to listen [default: the first address given to `cluster create`].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Log as JSON, one object a line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Run this host's daemon; joins at the first start, with a token.
    #[command(after_help = "Example:
  holdfast node run --data /var/lib/holdfast --join hf1.... --controller 10.0.0.5:9100 \\
      --raw-device /dev/nvme0n1 --raw-device /dev/nvme1n1 --claim
      later starts need --data alone")]
    Run(Box<NodeRun>),
    /// List the nodes.
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Show one node and its devices.
    Show {
        #[command(flatten)]
        access: Access,
        /// Name, id or a unique start of the id.
        node: String,
    },
    /// Take no new data on a node's devices; --undo takes it back.
    Drain {
        #[command(flatten)]
        access: Access,
        /// Name, id or a unique start of the id.
        node: String,
        /// Back to normal.
        #[arg(long)]
        undo: bool,
    },
    /// End a node's membership; its certificate is refused from then on.
    Remove {
        #[command(flatten)]
        access: Access,
        /// Name, id or a unique start of the id.
        node: String,
        /// Even when its devices hold shards that are nowhere else.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeRun {
    /// The node's directory: its certificate, the last map, file-backed devices.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// One-time token; `-` reads it from the standard input.
    #[arg(long, value_name = "TOKEN", requires = "controllers")]
    pub(crate) join: Option<String>,
    /// Address of a controller; repeat for each.
    #[arg(long = "controller", value_name = "ADDR:PORT")]
    pub(crate) controllers: Vec<SocketAddr>,
    /// What the node is called [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The site it stands in.
    #[arg(long, value_name = "NAME", default_value = "site")]
    pub(crate) site: String,
    /// The rack it stands in.
    #[arg(long, value_name = "NAME", default_value = "rack")]
    pub(crate) rack: String,
    /// Where other nodes reach this one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9200")]
    pub(crate) peer_addr: SocketAddr,
    /// Where S3 is served.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    pub(crate) s3_addr: SocketAddr,
    /// Where health and metrics are served.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9001")]
    pub(crate) admin_addr: SocketAddr,
    /// Number of file-backed devices, made at the first start.
    #[arg(long, value_name = "COUNT", conflicts_with = "raw_devices")]
    pub(crate) devices: Option<u16>,
    /// Size of each file-backed device [default: 4GiB].
    #[arg(long, value_name = "SIZE", conflicts_with = "raw_devices")]
    pub(crate) device_size: Option<Size>,
    /// A raw block device to own whole; repeat for each.
    #[arg(long = "raw-device", value_name = "PATH")]
    pub(crate) raw_devices: Vec<PathBuf>,
    /// Overwrite file systems, partition tables and labels of other clusters on raw devices.
    #[arg(long)]
    pub(crate) claim: bool,
    /// Log as JSON, one object a line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceVerb {
    /// List the devices of all nodes.
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Show one device.
    Show {
        #[command(flatten)]
        access: Access,
        /// Id, or a unique start of it.
        device: String,
    },
    /// Say where a device is: node, rack, path, model and serial number.
    Locate {
        #[command(flatten)]
        access: Access,
        /// Id, or a unique start of it.
        device: String,
    },
    /// Take no new data on a device; --undo takes it back.
    Drain {
        #[command(flatten)]
        access: Access,
        /// Id, or a unique start of it.
        device: String,
        /// Back to normal.
        #[arg(long)]
        undo: bool,
    },
    /// Give a device up for ever.
    Remove {
        #[command(flatten)]
        access: Access,
        /// Id, or a unique start of it.
        device: String,
        /// Even when it holds shards that are nowhere else.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a one-time token with which one node may join; it is not shown again.
    Create {
        #[command(flatten)]
        access: Access,
        /// Hours until it expires.
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        hours: u64,
        /// What it is for.
        #[arg(default_value = "")]
        comment: String,
    },
    /// List tokens that have not expired.
    List {
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  holdfast rack --data ./var/rack --nodes 6 --devices-per-node 3
      a controller and six nodes as processes on loopback; S3 on 127.0.0.1:9000, 9010, 9020, ...")]
pub(crate) struct RackArgs {
    /// Directory for everything.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 6)]
    pub(crate) nodes: u16,
    /// File-backed devices of each node.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) devices_per_node: u16,
    /// Size of each device.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub(crate) device_size: Size,
    /// Port of the first node's S3 endpoint; the others follow in steps of ten.
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    pub(crate) port: u16,
    /// k: shards of a stripe that carry data.
    #[arg(long, value_name = "K", default_value_t = 4)]
    pub(crate) data_shards: u8,
    /// m: shards of a stripe that may be lost.
    #[arg(long, value_name = "M", default_value_t = 2)]
    pub(crate) parity_shards: u8,
}
