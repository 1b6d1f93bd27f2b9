//! The operator's way to the controller: a directory with a certificate and the controllers' addresses.

use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::OsClock;
use wire::Fault;
use wire::controller::{AdminClient, MESSAGE_BYTES_MAX};
use wire::dial::{Dialer, Settings};
use wire::identity_key::Identity;
use wire::tls::Credentials;

use crate::data_dir::{lines, replace};
use crate::error::CliError;

/// The admin service over one connection.
pub(crate) type AdminLink = AdminClient<tonic::transport::Channel>;

/// How long the controller may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

const IDENTITY: &str = "identity.pem";
const CONTROLLERS: &str = "controllers";

/// Makes an operator's directory.
pub(crate) fn write_operator(dir: &Path, identity: &Identity, controllers: &[String]) -> Result<(), CliError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(CliError::file(dir))?;
    replace(&dir.join(CONTROLLERS), (controllers.join("\n") + "\n").as_bytes())?;
    replace(&dir.join(IDENTITY), identity.to_pem().as_bytes())
}

/// Reads a certificate with its key.
pub(crate) fn read_identity(path: &Path) -> Result<Identity, CliError> {
    let text = std::fs::read_to_string(path).map_err(CliError::file(path))?;
    Identity::from_pem(&text).map_err(|e| CliError::Node(format!("{}: {e}", path.display())))
}

fn open(operator: &Path) -> Result<AdminLink, CliError> {
    let controllers = operator.join(CONTROLLERS);
    if !controllers.exists() {
        return Err(CliError::Usage(format!(
            "{} is no operator's directory: `holdfast cluster create` makes one; give it with --as or HOLDFAST_OPERATOR",
            operator.display()
        )));
    }
    let addresses = lines(&controllers)?;
    let identity = read_identity(&operator.join(IDENTITY))?;
    let refused = |e: &dyn std::fmt::Display| CliError::Node(format!("the operator's certificate: {e}"));
    let credentials = Credentials::new(&identity, Arc::new(OsClock::new())).map_err(|e| refused(&e))?;
    let dialer = Dialer::new(credentials, Settings::default()).map_err(|e| refused(&e))?;
    Ok(AdminClient::new(dialer.controller(&addresses)).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Asks the controller once, on the runtime that there is.
pub(crate) async fn ask_controller<T, F, Fut>(operator: &Path, ask: F) -> Result<T, CliError>
where
    F: FnOnce(AdminLink) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let admin = open(operator)?;
    match tokio::time::timeout(ANSWER_MAX, ask(admin)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(match Fault::from(status) {
            Fault::Unreachable(reason) => CliError::Node(format!("no controller can be reached: {reason}")),
            other => CliError::Refused(other.to_string()),
        }),
        Err(_) => Err(CliError::Node(format!("the controller did not answer within {ANSWER_MAX:?}"))),
    }
}

/// As [`ask_controller`], where there is no runtime yet.
pub(crate) fn with_controller<T, F, Fut>(operator: &Path, ask: F) -> Result<T, CliError>
where
    F: FnOnce(AdminLink) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Node(format!("the process's threads cannot be started: {e}")))?;
    runtime.block_on(ask_controller(operator, ask))
}
