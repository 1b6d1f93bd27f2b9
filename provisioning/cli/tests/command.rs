//! The command as a person meets it: exit codes, one-line errors, keys without a server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use base::{OsClock, OsEntropy};
use catalog::{Catalog, RedbCatalog, draw_key};
use serde_json::Value;

fn holdfast(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast")).args(line).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// One line on the error output, nothing on the other, this exit code.
fn refused(output: &Output, code: i32) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn help_and_version_succeed_and_show_examples() {
    let help = holdfast(&["dev", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    for part in ["--raw-device", "Examples:", "source ./var/credentials.env"] {
        assert!(text(&help.stdout).contains(part), "{part}");
    }
    assert!(text(&holdfast(&["--help"]).stdout).contains("Exit codes:"));
    let version: Value = serde_json::from_slice(&holdfast(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_usage_exits_2() {
    for line in [&["nonsense"][..], &["dev", "--data", "d", "--device-size", "4GB"], &["key", "list"]] {
        assert_eq!(holdfast(line).status.code(), Some(2), "{line:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("var");
    let few = refused(&holdfast(&["dev", "--data", path(&data), "--devices", "5"]), 2);
    assert!(few.contains("at least 6 devices"), "{few}");
}

#[test]
fn a_wrong_config_file_is_named_with_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("holdfast.toml");
    std::fs::write(&config, "data = \"x\"\ndevice_sise = \"4GiB\"\n").unwrap();
    let error = refused(&holdfast(&["dev", "--config", path(&config)]), 2);
    assert!(error.contains("holdfast.toml:2:") && error.contains("device_sise"), "{error}");
    let error = refused(&holdfast(&["dev", "--config", "/absent.toml"]), 2);
    assert!(error.contains("/absent.toml") && error.contains("No such file"), "{error}");
}

#[test]
fn keys_are_managed_on_the_file_when_no_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = path(dir.path());
    let absent = refused(&holdfast(&["key", "list", "--data", data]), 1);
    assert!(absent.contains("holds no catalog"), "{absent}");

    drop(RedbCatalog::open_or_create(&dir.path().join("catalog.redb")).unwrap());
    let created = holdfast(&["key", "create", "--data", data, "backup job", "-o", "json"]);
    let key: Value = serde_json::from_slice(&created.stdout).unwrap();
    let id = key["access_key_id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), key["secret_access_key"].as_str().unwrap().len()), (20, 40));

    let list = holdfast(&["key", "list", "--data", data]);
    assert!(text(&list.stdout).contains(&id) && text(&list.stdout).contains("backup job"));
    assert!(!text(&list.stdout).contains(key["secret_access_key"].as_str().unwrap()));

    assert_eq!(holdfast(&["key", "delete", "--data", data, &id]).status.code(), Some(0));
    let gone = refused(&holdfast(&["key", "delete", "--data", data, &id]), 1);
    assert!(gone.contains(&id), "{gone}");
    let named = refused(&holdfast(&["key", "create", "--data", data, ""]), 1);
    assert!(named.contains("name"), "{named}");
    let mode = std::fs::metadata(dir.path().join("catalog.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_catalog_that_is_held_without_a_socket_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = RedbCatalog::open_or_create(&dir.path().join("catalog.redb")).unwrap();
    catalog.add_key(&draw_key(&OsEntropy, &OsClock::new(), "root")).unwrap();
    let held = refused(&holdfast(&["key", "list", "--data", path(dir.path())]), 1);
    assert!(held.contains("another process holds the catalog"), "{held}");
}

#[test]
fn a_directory_of_a_running_server_is_refused_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("lock")).unwrap();
    file.lock().unwrap();
    std::fs::write(dir.path().join("lock"), "4711\n").unwrap();
    let error = refused(&holdfast(&["dev", "--data", path(dir.path())]), 1);
    assert!(error.contains("running server (process 4711)"), "{error}");
}
