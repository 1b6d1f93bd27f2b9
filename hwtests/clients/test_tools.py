"""The command-line clients that people use, on a real directory tree: awscli, rclone, s3cmd."""

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from content import content

SOURCES = ["/usr/share/doc", "/usr/lib/python3", "/usr/share/perl"]
FILES_MAX = 3000
BYTES_MAX = 200 << 20


def run(command, environment):
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def same(left, right):
    """Both trees have the same files with the same bytes."""
    names = [sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (left, right)]
    assert names[0] == names[1]
    _, differ, broken = filecmp.cmpfiles(left, right, [str(name) for name in names[0]], shallow=False)
    assert not differ and not broken, (differ[:5], broken[:5])
    return len(names[0])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what this machine has of documentation, within bounds; made up where it has little."""
    top = tmp_path_factory.mktemp("tree")
    count = total = 0
    for source in map(pathlib.Path, SOURCES):
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = pathlib.Path(folder) / name
                if not path.is_file() or path.is_symlink():
                    continue
                size = path.stat().st_size
                if count == FILES_MAX or total + size > BYTES_MAX:
                    continue
                to = top / path.relative_to("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
                count, total = count + 1, total + size
    for number in range(count, 1500):
        to = top / "made" / f"dir {number % 37}" / f"file-{number}.bin"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content(number, number * 37 % 70_000))
        count += 1
    (top / "made").mkdir(exist_ok=True)
    (top / "made" / "large.bin").write_bytes(content("large", 30 << 20))
    print(f"{count + 1} files, {total >> 20} MiB")
    return top


@pytest.fixture
def awscli(server, tmp_path):
    config = tmp_path / "aws-config"
    config.write_text("[default]\ns3 =\n  max_concurrent_requests = 16\n  addressing_style = path\n")
    program = pathlib.Path(sys.executable).with_name("aws")
    if not program.exists():
        pytest.skip("awscli is not installed")
    environment = server.environment() | {"AWS_CONFIG_FILE": str(config)}
    return lambda *words: run([program, *words], environment)


def test_awscli_syncs_a_tree_up_and_back(awscli, bucket, tree, tmp_path):
    awscli("s3", "sync", "--no-progress", "--only-show-errors", tree, f"s3://{bucket}/tree")
    awscli("s3", "sync", "--no-progress", "--only-show-errors", f"s3://{bucket}/tree", tmp_path / "back")
    count = same(tree, tmp_path / "back")
    assert awscli("s3", "sync", "--no-progress", tree, f"s3://{bucket}/tree") == "", "a second sync copies nothing"
    listed = awscli("s3", "ls", "--recursive", f"s3://{bucket}/tree/")
    assert len(listed.splitlines()) == count
    awscli("s3", "rm", "--recursive", "--only-show-errors", f"s3://{bucket}/tree")
    assert "made" not in awscli("s3", "ls", f"s3://{bucket}")


def test_awscli_makes_moves_and_streams(awscli, server, tmp_path):
    small = tmp_path / "small file"
    small.write_bytes(b"hello")
    awscli("s3", "mb", "s3://clients-awscli")
    awscli("s3", "cp", small, "s3://clients-awscli/a b/+.txt")
    awscli("s3", "mv", "s3://clients-awscli/a b/+.txt", "s3://clients-awscli/moved")
    assert awscli("s3", "cp", "s3://clients-awscli/moved", "-") == "hello"
    assert awscli("s3api", "head-object", "--bucket", "clients-awscli", "--key", "moved", "--query", "ContentLength") == "5\n"
    awscli("s3", "rb", "--force", "s3://clients-awscli")


def test_rclone_copies_checks_and_brings_back_a_tree(tool, server, bucket, tree, tmp_path):
    environment = server.environment() | {
        "RCLONE_CONFIG": str(tmp_path / "none"),
        "RCLONE_CONFIG_HF_TYPE": "s3",
        "RCLONE_CONFIG_HF_PROVIDER": "Other",
        "RCLONE_CONFIG_HF_ENV_AUTH": "true",
        "RCLONE_CONFIG_HF_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_HF_REGION": server.credentials["AWS_DEFAULT_REGION"],
    }
    rclone = lambda *words: run([tool("rclone"), "--transfers", "8", "--checkers", "8", *words], environment)
    remote = f"hf:{bucket}/tree"
    rclone("copy", tree, remote)
    rclone("check", tree, remote)
    rclone("copy", remote, tmp_path / "back")
    same(tree, tmp_path / "back")
    (tree / "made" / "large.bin").touch()
    rclone("sync", tree, remote)
    rclone("check", "--download", "--include", "/made/**", tree, remote)
    rclone("purge", remote)
    assert rclone("lsf", f"hf:{bucket}") == ""


def test_s3cmd_puts_lists_gets_and_deletes(tool, server, tmp_path):
    host = "%s:%d" % server.address
    words = [tool("s3cmd"), "-c", "/dev/null", "--no-ssl", f"--host={host}", f"--host-bucket={host}"]
    words += [f"--access_key={server.credentials['AWS_ACCESS_KEY_ID']}"]
    words += [f"--secret_key={server.credentials['AWS_SECRET_ACCESS_KEY']}", "--region=us-east-1"]
    s3cmd = lambda *more: run([*words, *more], server.environment())
    up = tmp_path / "up"
    for number in range(40):
        path = up / f"dir {number % 4}" / f"ü+{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number, number * 1000))
    (up / "large.bin").write_bytes(content("large", 16 << 20))
    s3cmd("mb", "s3://clients-s3cmd")
    s3cmd("sync", f"{up}/", "s3://clients-s3cmd/tree/")
    assert len(s3cmd("ls", "--recursive", "s3://clients-s3cmd").splitlines()) == 41
    s3cmd("sync", "s3://clients-s3cmd/tree/", f"{tmp_path / 'back'}/")
    assert same(up, tmp_path / "back") == 41
    s3cmd("cp", "s3://clients-s3cmd/tree/large.bin", "s3://clients-s3cmd/copy")
    s3cmd("del", "--recursive", "--force", "s3://clients-s3cmd")
    s3cmd("rb", "s3://clients-s3cmd")
