//! `holdfast salvage`: rebuilt objects as files below a directory.
//!
//! No path leads out of the directory: names come from [`SafePath`], and what lies in the way as a link is
//! never followed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::salvage::{ManifestEntry, Progress, SafePath, SalvageSummary, Sink, rescue};
use serde::Serialize;

use crate::args::{Output, SalvageArgs};
use crate::bench::{self, Bench, bar, table};
use crate::error::CliError;
use crate::output;

const BAR: &str = "rebuilding {bar:30} {pos}/{len} keys {msg} {eta}";
const MANIFEST: &str = "manifest.jsonl";

#[derive(Serialize)]
struct Report {
    out: String,
    devices: usize,
    /// Devices left out, and why.
    refused: Vec<String>,
    #[serde(flatten)]
    summary: SalvageSummary,
}

/// Runs the verb and prints its summary.
pub(crate) fn run(args: &SalvageArgs, format: Output) -> Result<(), CliError> {
    ready(&args.out, args.force)?;
    let report = bench::with(&args.bench.devices, async |bench| rebuild(bench, &args.out).await)?;
    output::print(format, &report, || report.text())?;
    let losses = report.summary.has_losses() || !report.refused.is_empty();
    if losses { Err(CliError::Damage("not everything could be rebuilt".into())) } else { Ok(()) }
}

/// An empty directory, or one that may be written into.
fn ready(out: &Path, force: bool) -> Result<(), CliError> {
    fs::create_dir_all(out).map_err(CliError::file(out))?;
    let mut entries = fs::read_dir(out).map_err(CliError::file(out))?;
    if entries.next().is_some() && !force {
        return Err(CliError::Refused(format!("{} is not empty; --force writes into it all the same", out.display())));
    }
    Ok(())
}

async fn rebuild(bench: &Bench, out: &Path) -> Result<Report, CliError> {
    let stores: Vec<_> = bench.devices.iter().map(|device| device.store.clone()).collect();
    let mut sink = Files::new(out).map_err(CliError::file(out.join(MANIFEST)))?;
    let bar = bar(0, BAR);
    let summary = rescue(&stores, &mut sink, |Progress { keys, keys_total, bytes }| {
        bar.set_length(keys_total);
        bar.set_position(keys);
        bar.set_message(format!("{} MiB", bytes >> 20));
    });
    let summary = summary.await.map_err(|error| CliError::Refused(format!("{}: {error}", out.display())))?;
    bar.finish_and_clear();
    sink.close().map_err(CliError::file(out.join(MANIFEST)))?;
    let (devices, refused) = (stores.len(), bench.refused.clone());
    Ok(Report { out: out.display().to_string(), devices, refused, summary })
}

impl Report {
    fn text(&self) -> String {
        let s = &self.summary;
        let row = |name: &str, count: u64| vec![name.to_owned(), count.to_string()];
        let rows = [
            vec!["OBJECTS".to_owned(), "COUNT".to_owned()],
            row("whole", s.whole),
            row("only an older version whole", s.older),
            row("deleted, nothing written", s.deleted),
            row("uncertain, in _uncertain", s.uncertain),
            row("incomplete, in _incomplete", s.incomplete),
        ];
        let mut lines = vec![
            format!("{} devices, {} stripes, {} commands of the journal", self.devices, s.stripes, s.journal_commands),
            String::new(),
            table(&rows),
            String::new(),
            format!("{} bytes rebuilt in {}; {MANIFEST} lists every key", s.bytes, self.out),
        ];
        if s.undescribed_stripes > 0 {
            lines.push(format!("{} stripes do not say what they are", s.undescribed_stripes));
        }
        if s.journal_gaps > 0 {
            lines.push(format!("{} records of the journal are gone: deletes may be missed", s.journal_gaps));
        }
        lines.extend(self.refused.iter().chain(&s.trouble).cloned());
        lines.join("\n")
    }
}

/// Files below a directory.
struct Files {
    root: PathBuf,
    manifest: BufWriter<File>,
    current: Option<(PathBuf, File, u64)>,
}

impl Files {
    fn new(root: &Path) -> io::Result<Self> {
        let manifest = BufWriter::new(create(&root.join(MANIFEST))?);
        Ok(Self { root: root.to_owned(), manifest, current: None })
    }

    fn close(mut self) -> io::Result<()> {
        self.manifest.flush()?;
        self.manifest.get_ref().sync_all()
    }

    fn current(&mut self) -> &mut (PathBuf, File, u64) {
        self.current.as_mut().expect("a file was begun")
    }
}

/// A new file in the place of whatever is there; a link is replaced, not followed.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

impl Sink for Files {
    fn begin(&mut self, path: &SafePath) -> io::Result<()> {
        let (name, above) = path.components().split_last().expect("a path has a name");
        let mut at = self.root.clone();
        for directory in above {
            at.push(directory);
            match fs::create_dir(&at) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&at)?.is_dir() {
                        return Err(io::Error::new(error.kind(), format!("{} is in the way", at.display())));
                    }
                }
                made => made?,
            }
        }
        at.push(name);
        let file = create(&at).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", at.display())))?;
        self.current = Some((at, file, 0));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (_, file, len) = self.current();
        *len += bytes.len() as u64;
        file.write_all(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let (_, file, len) = self.current();
        *len += bytes;
        file.seek(SeekFrom::Start(*len)).map(drop)
    }

    fn finish(&mut self) -> io::Result<()> {
        let (_, file, len) = self.current.take().expect("a file was begun");
        file.set_len(len)
    }

    fn discard(&mut self) -> io::Result<()> {
        let (path, ..) = self.current.take().expect("a file was begun");
        fs::remove_file(path)
    }

    fn entry(&mut self, entry: &ManifestEntry) -> io::Result<()> {
        serde_json::to_writer(&mut self.manifest, entry)?;
        self.manifest.write_all(b"\n")
    }
}
