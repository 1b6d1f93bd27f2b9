//! Logs: to the error output, filtered by `HOLDFAST_LOG`, as text or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// The variable that filters: `debug`, or `gateway=trace,info`.
const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// Starts logging for the life of the process.
pub(crate) fn start(json: bool) -> Result<(), CliError> {
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter =
        EnvFilter::builder().parse(&wanted).map_err(|e| CliError::Usage(format!("{FILTER_VARIABLE}={wanted}: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}
