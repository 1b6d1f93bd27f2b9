//! Logs: to the error output, filtered by `HOLDFAST_LOG`, as text or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// The variable that filters: `debug`, or `gateway=trace,info`.
const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// Starts logging for the life of the process.
pub(crate) fn start(json: bool) -> Result<(), CliError> {
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::builder()
        .parse(allowed(&wanted))
        .map_err(|e| CliError::Usage(format!("{FILTER_VARIABLE}={wanted}: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// The filter as wanted, less what would log signatures: s3s does at its debug level.
fn allowed(wanted: &str) -> String {
    let kept = wanted.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.starts_with("s3s"));
    kept.chain(["s3s=off"]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_lets_signatures_out() {
        for (wanted, filter) in [
            ("info", "info,s3s=off"),
            ("trace,s3s=trace", "trace,s3s=off"),
            ("s3s::auth=debug, gateway=trace", "gateway=trace,s3s=off"),
            ("", "s3s=off"),
        ] {
            assert_eq!(allowed(wanted), filter);
            EnvFilter::builder().parse(filter).unwrap();
        }
    }
}
