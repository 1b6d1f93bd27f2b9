//! `holdfast rack`: a controller and several nodes as processes on loopback, one directory each. The same verbs, one
//! after the other, that an operator would use; nothing is shared between the processes but the network.
//!
//! A process that dies is not started again: what a rack does then is what one wants to see. Ending this one ends all.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use catalog::{AccessKey, Secret};
use serde::Serialize;
use wire::controller::{CreateKeyRequest, CreateTokenRequest, Empty};

use super::connect::ask_controller;
use crate::args::Output;
use crate::data_dir::{DataDir, endpoint_url};
use crate::error::CliError;
use crate::rack_args::RackArgs;
use crate::{logging, output, signals};

/// Ports of one node: S3, admin, peers; the controller has the last of the first ten.
const PORTS_PER_NODE: u16 = 10;
const CONTROLLER_PORT: u16 = 9;
/// What requests are signed for.
const REGION: &str = "us-east-1";
/// How long the whole may take to serve: devices are made, formatted and recovered.
const READY_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a process may take to end in order.
const END_MAX: Duration = Duration::from_secs(30);

struct Process {
    name: String,
    child: Child,
}

/// Everything that runs; dropped, it is ended.
struct Running {
    processes: Vec<Process>,
}

#[derive(Serialize)]
struct Ready {
    event: &'static str,
    s3_endpoints: Vec<String>,
    controller: String,
    operator: PathBuf,
    credentials: PathBuf,
    processes: Vec<(String, u32)>,
}

/// Runs the rack until a signal ends it.
pub(crate) fn run(args: &RackArgs, format: Output) -> Result<(), CliError> {
    logging::start(false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Node(format!("the process's threads cannot be started: {e}")))?;
    runtime.block_on(async {
        let mut stop = signals::stop_on_signal().map_err(|e| CliError::Node(format!("signals: {e}")))?;
        let mut running = Running { processes: Vec::new() };
        let done = tokio::select! {
            done = start(args, &mut running) => done,
            _ = stop.wait_for(|stop| *stop) => Ok(None),
        };
        let shown = match done {
            Ok(None) => return running.end().await,
            Ok(Some(ready)) => output::print(format, &ready, || text(&ready)),
            Err(error) => Err(error),
        };
        if shown.is_ok() {
            let mut dead = Vec::new();
            while !*stop.borrow() {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => break,
                    () = tokio::time::sleep(LOOK_EVERY) => running.tell_deaths(&mut dead),
                }
            }
        }
        let ended = running.end().await;
        shown.and(ended)
    })
}

async fn start(args: &RackArgs, running: &mut Running) -> Result<Option<Ready>, CliError> {
    let data = DataDir::at(&args.data);
    let (operator, credentials) = (args.data.join("operator"), data.credentials());
    let controller_dir = args.data.join("controller");
    let controller = addr(args.port, CONTROLLER_PORT)?;
    std::fs::create_dir_all(&args.data).map_err(CliError::file(&args.data))?;
    if !operator.exists() {
        create_cluster(args, &controller_dir, &operator, controller)?;
    }
    let logs = args.data.join("logs");
    std::fs::create_dir_all(&logs).map_err(CliError::file(&logs))?;
    let mut serve = holdfast()?;
    serve.arg("controller").arg("--data").arg(&controller_dir);
    running.spawn("controller", serve, &logs)?;
    let until = Instant::now() + READY_MAX;
    wait(until, running, "the controller", async || {
        ask_controller(&operator, |mut admin| async move { admin.status(Empty {}).await }).await.map(drop)
    })
    .await?;
    let mut endpoints = Vec::new();
    for number in 1..=args.nodes {
        endpoints.push(start_node(args, running, number, &operator, controller, &logs).await?);
    }
    wait(until, running, "the nodes", async || {
        let status = ask_controller(&operator, |mut admin| async move { admin.status(Empty {}).await }).await?;
        let ready = status.nodes_up == u32::from(args.nodes) && status.groups > 0;
        if ready { Ok(()) } else { Err(CliError::Node([status.risks, status.doing].concat().join("; "))) }
    })
    .await?;
    for (name, s3) in &endpoints {
        let addr = *s3;
        wait(until, running, name, async || {
            let connected = tokio::net::TcpStream::connect(addr).await;
            connected.map(drop).map_err(|e| CliError::Node(format!("{addr}: {e}")))
        })
        .await?;
    }
    if !credentials.exists() {
        let ask = CreateKeyRequest { name: "root".into() };
        let key = ask_controller(&operator, |mut admin| async move { admin.create_key(ask).await }).await?;
        let secret = Secret::new(key.secret);
        let key = AccessKey { access_key_id: key.id, secret, name: key.name, created_ms: key.created_ms };
        data.write_credentials(&key, &endpoint_url(endpoints[0].1), REGION)?;
    }
    Ok(Some(Ready {
        event: "ready",
        s3_endpoints: endpoints.iter().map(|(_, addr)| endpoint_url(*addr)).collect(),
        controller: controller.to_string(),
        operator,
        credentials,
        processes: running.processes.iter().map(|process| (process.name.clone(), process.child.id())).collect(),
    }))
}

fn create_cluster(
    args: &RackArgs,
    controller_dir: &Path,
    operator: &Path,
    controller: SocketAddr,
) -> Result<(), CliError> {
    let width = u16::from(args.data_shards) + u16::from(args.parity_shards);
    // With fewer nodes than slots some nodes hold several, at most m: then one node may die.
    let per_node = width.div_ceil(args.nodes.max(1)).max(1);
    let level = if args.nodes == 1 || per_node > u16::from(args.parity_shards) { "device" } else { "node" };
    let per_domain = if level == "device" { 1 } else { per_node };
    let mut create = holdfast()?;
    create.args(["cluster", "create", "--data"]).arg(controller_dir);
    create.arg("--operator").arg(operator).args(["--controller", &controller.to_string(), "--level", level]);
    create.args(["--slots-per-domain", &per_domain.to_string()]);
    create.args(["--data-shards", &args.data_shards.to_string(), "--parity-shards", &args.parity_shards.to_string()]);
    let done = create.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(CliError::file("holdfast"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(CliError::Node(format!("the cluster cannot be made: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

async fn start_node(
    args: &RackArgs,
    running: &mut Running,
    number: u16,
    operator: &Path,
    controller: SocketAddr,
    logs: &Path,
) -> Result<(String, SocketAddr), CliError> {
    let name = format!("n{number}");
    let dir = args.data.join(&name);
    let base = (number - 1) * PORTS_PER_NODE;
    let s3 = addr(args.port, base)?;
    let mut node = holdfast()?;
    node.args(["node", "run", "--name", &name, "--data"]).arg(&dir);
    node.args(["--s3-addr", &s3.to_string(), "--admin-addr", &addr(args.port, base + 1)?.to_string()]);
    node.args(["--peer-addr", &addr(args.port, base + 2)?.to_string()]);
    node.args(["--controller", &controller.to_string()]);
    let mut token = None;
    if !dir.join("identity.pem").exists() {
        let ask = CreateTokenRequest { ttl_s: 3600, comment: name.clone() };
        let made = ask_controller(operator, |mut admin| async move { admin.create_token(ask).await }).await?;
        // By the standard input: arguments are everyone's to read.
        token = Some(made.token);
        node.args(["--join", "-"]);
    }
    if !dir.join("devices").exists() {
        node.args(["--devices", &args.devices_per_node.to_string(), "--device-size", &args.device_size.to_string()]);
    }
    running.spawn_with(&name, node, logs, token.as_deref())?;
    Ok((name, s3))
}

fn addr(port: u16, offset: u16) -> Result<SocketAddr, CliError> {
    let port = port.checked_add(offset).ok_or_else(|| CliError::Usage("the ports end at 65535".into()))?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

fn holdfast() -> Result<Command, CliError> {
    Ok(Command::new(std::env::current_exe().map_err(CliError::file("holdfast"))?))
}

/// Tries until it is done, a process has died, or time is over.
async fn wait<T>(
    until: Instant,
    running: &mut Running,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, CliError>,
) -> Result<T, CliError> {
    loop {
        let last = match look().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if let Some((name, status)) = running.dead() {
            return Err(CliError::Node(format!("{name} ended early ({status}); its log is in the logs directory")));
        }
        if Instant::now() > until {
            return Err(CliError::Node(format!("{what} did not come up in time: {last}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Running {
    fn spawn(&mut self, name: &str, command: Command, logs: &Path) -> Result<(), CliError> {
        self.spawn_with(name, command, logs, None)
    }

    fn spawn_with(
        &mut self,
        name: &str,
        mut command: Command,
        logs: &Path,
        input: Option<&str>,
    ) -> Result<(), CliError> {
        let path = logs.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path).map_err(CliError::file(&path))?;
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let started = command.stdin(stdin).stdout(Stdio::null()).stderr(log).spawn();
        let mut child = started.map_err(CliError::file("holdfast"))?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            writeln!(pipe, "{input}").map_err(CliError::file("the node's standard input"))?;
        }
        self.processes.push(Process { name: name.to_owned(), child });
        Ok(())
    }

    /// A process that has ended.
    fn dead(&mut self) -> Option<(String, ExitStatus)> {
        self.processes
            .iter_mut()
            .find_map(|process| process.child.try_wait().ok().flatten().map(|status| (process.name.clone(), status)))
    }

    fn tell_deaths(&mut self, told: &mut Vec<String>) {
        for process in &mut self.processes {
            if !told.contains(&process.name)
                && let Ok(Some(status)) = process.child.try_wait()
            {
                tracing::warn!(process = process.name, %status, "ended; the others go on");
                told.push(process.name.clone());
            }
        }
    }

    /// Ends nodes first and the controller last, in order.
    async fn end(mut self) -> Result<(), CliError> {
        for process in self.processes.iter().rev() {
            signals::terminate(process.child.id());
        }
        let until = Instant::now() + END_MAX;
        for process in &mut self.processes {
            while let Ok(None) = process.child.try_wait() {
                if Instant::now() > until {
                    tracing::warn!(process = process.name, "did not end in time and is killed");
                    let _ = process.child.kill();
                    let _ = process.child.wait();
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.processes.clear();
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn text(ready: &Ready) -> String {
    let mut text = format!("\nThe rack is ready: {} nodes.\n", ready.s3_endpoints.len());
    for (number, endpoint) in (1..).zip(&ready.s3_endpoints) {
        text += &format!("  n{number}  S3 {endpoint}\n");
    }
    text += &format!("  controller  {}\n", ready.controller);
    let (operator, credentials) = (ready.operator.display(), ready.credentials.display());
    text += &format!(
        "\nTry it:\n  source {credentials} && aws s3 mb s3://first\n  holdfast status --as {operator}\n  holdfast node \
         list --as {operator}\n"
    );
    text
}
