//! `holdfast cluster create` and `holdfast controller`.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use base::{Clock, Entropy, OsClock, OsEntropy};
use catalog::{Facts, RedbFacts};
use controller::{ControllerConfig, CreateError, ServeError};
use placement::map::{Level, Policy};
use serde::Serialize;

use super::connect::{read_identity, write_operator};
use crate::args::Output;
use crate::data_dir::replace;
use crate::error::CliError;
use crate::rack_args::{ClusterCreate, ControllerArgs, LevelName};
use crate::{logging, output, signals};

const FACTS: &str = "facts.redb";
const IDENTITY: &str = "identity.pem";
const LISTEN: &str = "listen";
/// What the first controller and the first administrator are called.
const CONTROLLER: &str = "controller";
const ADMINISTRATOR: &str = "admin";

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| CliError::Node(format!("the process's threads cannot be started: {e}")))
}

fn store(dir: &Path) -> Result<Arc<dyn Facts>, CliError> {
    let path = dir.join(FACTS);
    let facts = RedbFacts::open_or_create(&path);
    Ok(Arc::new(facts.map_err(|error| CliError::Node(format!("{}: {error}", path.display())))?))
}

/// `holdfast cluster create`.
pub(crate) fn create(args: &ClusterCreate, format: Output) -> Result<(), CliError> {
    let mut make = std::fs::DirBuilder::new();
    make.recursive(true).mode(0o700).create(&args.data).map_err(CliError::file(&args.data))?;
    let operator = args.operator.clone().unwrap_or_else(|| args.data.join("operator"));
    if operator.exists() {
        return Err(CliError::Usage(format!("{} is there already", operator.display())));
    }
    let policy = Policy {
        data_shards: args.data_shards,
        parity_shards: args.parity_shards,
        level: match args.level {
            LevelName::Device => Level::Device,
            LevelName::Node => Level::Node,
            LevelName::Rack => Level::Rack,
            LevelName::Site => Level::Site,
        },
        slots_per_domain: args.slots_per_domain,
    };
    let facts = store(&args.data)?;
    let made = runtime()?.block_on(async {
        let (clock, entropy) = (OsClock::new(), OsEntropy);
        controller::create(facts, policy, CONTROLLER, ADMINISTRATOR, &clock, &entropy).await
    });
    let made = made.map_err(|error| match error {
        CreateError::Exists | CreateError::Refused(_) => CliError::Refused(error.to_string()),
        other => CliError::Node(other.to_string()),
    })?;
    replace(&args.data.join(LISTEN), format!("{}\n", args.controllers[0]).as_bytes())?;
    replace(&args.data.join(IDENTITY), made.controller.to_pem().as_bytes())?;
    let addresses: Vec<String> = args.controllers.iter().map(ToString::to_string).collect();
    write_operator(&operator, &made.administrator, &addresses)?;
    #[derive(Serialize)]
    struct Made<'a> {
        cluster: String,
        operator: &'a Path,
        controller: String,
    }
    let shown =
        Made { cluster: made.cluster.to_string(), operator: &operator, controller: args.controllers[0].to_string() };
    output::print(format, &shown, || {
        let data = args.data.display();
        format!(
            "cluster {} is made\n  holdfast controller --data {data}\n      serves it on {}\n  export \
             HOLDFAST_OPERATOR={}\n  holdfast token create && holdfast status",
            shown.cluster,
            shown.controller,
            operator.display()
        )
    })
}

/// `holdfast controller`.
pub(crate) fn controller(args: &ControllerArgs) -> Result<(), CliError> {
    logging::start(args.log_json)?;
    if !args.data.join(FACTS).exists() {
        return Err(CliError::Node(ServeError::NoCluster.to_string()));
    }
    let facts = store(&args.data)?;
    let identity = read_identity(&args.data.join(IDENTITY))?;
    let listen = match args.listen {
        Some(listen) => listen,
        None => listen_address(&args.data.join(LISTEN))?,
    };
    let clock: Arc<dyn Clock> = Arc::new(OsClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let config = ControllerConfig { facts, name: CONTROLLER.into(), identity, listen, clock, entropy };
    runtime()?.block_on(async {
        let mut stop = signals::stop_on_signal().map_err(|e| CliError::Node(format!("signals: {e}")))?;
        let stopped = async move { _ = stop.wait_for(|stop| *stop).await };
        let ready = |address| tracing::info!(%address, "the controller listens");
        controller::serve(config, ready, stopped).await.map_err(|error| CliError::Node(error.to_string()))
    })
}

fn listen_address(path: &Path) -> Result<SocketAddr, CliError> {
    let text = std::fs::read_to_string(path).map_err(CliError::file(path))?;
    text.trim().parse().map_err(|_| CliError::Node(format!("{} holds no address", path.display())))
}
