//! What the operator sees while the node starts and once it is ready.

use std::net::SocketAddr;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::Output;
use crate::data_dir::{DataDir, endpoint_url};
use crate::error::CliError;
use crate::output;

/// A node that takes requests.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    event: &'static str,
    s3_endpoint: String,
    admin_endpoint: String,
    region: String,
    data_shards: u8,
    parity_shards: u8,
    devices: usize,
    credentials: Option<String>,
}

impl Ready {
    pub(crate) fn new(
        addrs: (SocketAddr, SocketAddr),
        region: &str,
        policy: (u8, u8),
        devices: usize,
        data: &DataDir,
    ) -> Self {
        let credentials = data.credentials();
        Self {
            event: "ready",
            s3_endpoint: endpoint_url(addrs.0),
            admin_endpoint: endpoint_url(addrs.1),
            region: region.to_owned(),
            data_shards: policy.0,
            parity_shards: policy.1,
            devices,
            credentials: credentials.exists().then(|| shell_word(&credentials)),
        }
    }

    pub(crate) fn print(&self, format: Output) -> Result<(), CliError> {
        output::print(format, self, || self.text())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\nHoldfast is ready: {} devices, {}+{} erasure coding.\n  S3     {}  (region {})\n  admin  {}  (/health/ready, /metrics)\n",
            self.devices, self.data_shards, self.parity_shards, self.s3_endpoint, self.region, self.admin_endpoint,
        );
        if let Some(credentials) = &self.credentials {
            text += &format!(
                "\nTry it:\n  source {credentials}\n  aws s3 mb s3://first\n  aws s3 cp README.md s3://first/\n  aws s3 ls s3://first/\n"
            );
        }
        text
    }
}

/// A path as one word of a shell's command line.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The bar shown while devices are formatted or recovered; nothing where the error output is no terminal.
#[derive(Debug)]
pub(crate) struct DeviceBar(ProgressBar);

impl DeviceBar {
    /// A bar for the first start, which formats, or for a later one, which recovers.
    pub(crate) fn new(first_start: bool) -> Self {
        let bar = ProgressBar::new(0);
        let verb = if first_start { "formatting" } else { "recovering" };
        let style = ProgressStyle::with_template(&format!("{verb} devices {{bar:32}} {{pos}}/{{len}} {{elapsed}}"));
        bar.set_style(style.expect("the template is legal"));
        Self(bar)
    }

    /// Shows how many devices are ready; all of them ends the bar.
    pub(crate) fn show(&self, ready: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(ready as u64);
        if ready >= total {
            self.0.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_can_be_pasted_whatever_the_path() {
        for (path, word) in [
            ("./var/credentials.env", "./var/credentials.env"),
            ("/a b/c", "'/a b/c'"),
            ("/it's", r"'/it'\''s'"),
            ("$(x)", "'$(x)'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn the_text_names_endpoint_and_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::at(dir.path());
        let ready = |data: &DataDir| {
            let addrs = (([0, 0, 0, 0], 9000).into(), ([127, 0, 0, 1], 9001).into());
            Ready::new(addrs, "us-east-1", (4, 2), 6, data)
        };
        assert!(!ready(&data).text().contains("source"), "no credentials, no snippet");
        std::fs::write(data.credentials(), "").unwrap();
        let text = ready(&data).text();
        for part in ["http://127.0.0.1:9000", "http://127.0.0.1:9001", "credentials.env", "aws s3 mb", "4+2"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
