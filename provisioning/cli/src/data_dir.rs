//! The data directory: its mode, its lock, and the credentials file.
//!
//! Invariants: the directory has mode 0700 and its files 0600; one process holds the lock for as long as
//! it lives (the kernel drops it with the process, however that ends); `credentials.env` is replaced whole
//! or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use catalog::AccessKey;

use crate::error::CliError;

/// Where things are below the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir {
    dir: PathBuf,
}

impl DataDir {
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.dir.join("catalog.redb")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.dir.join("credentials.env")
    }

    /// Makes the directory when it is absent, and takes its lock.
    pub(crate) fn lock(&self) -> Result<DataLock, CliError> {
        if !self.dir.exists() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&self.dir).map_err(CliError::file(&self.dir))?;
        }
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))
            .map_err(CliError::file(&self.dir))?;
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(CliError::file(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(CliError::DataInUse { dir: self.dir.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(CliError::File { path, source }),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(CliError::file(&path))?;
        Ok(DataLock { _file: file })
    }

    /// Makes the folder of file-backed devices when the node is to make files in it.
    pub(crate) fn make_devices(&self, wanted: bool) -> Result<(), CliError> {
        let dir = self.dir.join("devices");
        if !wanted {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(CliError::file(&dir))
    }

    /// Writes the key pair and the endpoint for a shell to source.
    pub(crate) fn write_credentials(&self, key: &AccessKey, endpoint: &str, region: &str) -> Result<(), CliError> {
        let path = self.credentials();
        let text = format!(
            "# Made by `holdfast`; `source` it in a shell.\n\
             export AWS_ACCESS_KEY_ID={}\n\
             export AWS_SECRET_ACCESS_KEY={}\n\
             export AWS_ENDPOINT_URL={endpoint}\n\
             export AWS_DEFAULT_REGION={region}\n",
            key.access_key_id,
            key.secret.expose(),
        );
        replace(&path, text.as_bytes())
    }
}

/// Replaces a file whole or not at all, durably; only its owner may read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let write = || {
        // One left behind may have come with another mode.
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(CliError::file(path))
}

/// The lines of a small file that say something.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(CliError::file(path))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: File,
}

/// The URL that a client on this machine reaches `addr` by.
pub(crate) fn endpoint_url(addr: SocketAddr) -> String {
    let host = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::new(host, addr.port()))
}

#[cfg(test)]
mod tests {
    use base::{OsClock, OsEntropy};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_lock_makes_the_directory_and_excludes_a_second_holder_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::at(&parent.path().join("a/b"));
        let held = dir.lock().unwrap();
        assert_eq!((mode(dir.path()), mode(&dir.path().join("lock"))), (0o700, 0o600));
        match dir.lock() {
            Err(CliError::DataInUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        dir.lock().unwrap();
    }

    #[test]
    fn credentials_can_be_sourced_and_are_their_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::at(parent.path());
        let key = catalog::draw_key(&OsEntropy, &OsClock::new(), "root");
        dir.write_credentials(&key, "http://127.0.0.1:1", "a").unwrap();
        dir.write_credentials(&key, "http://127.0.0.1:2", "b").unwrap();
        assert_eq!(mode(&dir.credentials()), 0o600);
        let script = format!(
            ". {} && echo $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $AWS_ENDPOINT_URL $AWS_DEFAULT_REGION",
            dir.credentials().display()
        );
        let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let expected = format!("{} {} http://127.0.0.1:2 b\n", key.access_key_id, key.secret.expose());
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);
    }

    #[test]
    fn the_endpoint_is_one_that_a_client_can_reach() {
        for (addr, url) in [
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:9000", "http://[::1]:9000"),
            ("192.0.2.7:9", "http://192.0.2.7:9"),
        ] {
            assert_eq!(endpoint_url(addr.parse().unwrap()), url);
        }
    }
}
