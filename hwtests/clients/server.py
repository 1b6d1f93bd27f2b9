"""One real `holdfast dev` process on free ports and a directory of its own, stopped by its process id.

Left out: anything that knows how the server works inside; a test sees S3, the command, the admin
endpoint, signals and the device files, as an operator does.
"""

import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

import boto3
from botocore.config import Config

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("HOLDFAST", ROOT / "target/release/holdfast"))
MIB = 1 << 20
GIB = 1 << 30
START_S = 60
STOP_S = 60


class Server:
    """A server and its data directory; `start` again after `stop` or `kill` finds the same data."""

    def __init__(self, device_size=GIB, *flags):
        (ROOT / "target").mkdir(exist_ok=True)
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="clients-", dir=ROOT / "target"))
        self.data = self.home / "var"
        self.device_size = device_size
        self.flags = list(flags)
        self.process = None
        self.ready = {}

    def start(self, *flags):
        assert self.process is None
        first = not self.data.exists()
        command = [BINARY, "dev", "--data", self.data, "-o", "json", "--s3-addr", "127.0.0.1:0"]
        command += ["--admin-addr", "127.0.0.1:0", *self.flags, *flags]
        if first:
            command += ["--device-size", str(self.device_size)]
        self.log = open(self.home / "log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, text=True
        )
        lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout, lines), daemon=True).start()
        deadline = time.monotonic() + START_S
        while True:
            try:
                line = lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise AssertionError(f"not ready after {START_S} s\n{self.log_tail()}") from None
            if line is None:
                code = self.process.wait()
                self.process = None
                raise AssertionError(f"the server ended with {code} before it was ready\n{self.log_tail()}")
            self.ready = json.loads(line)
            if self.ready.get("event") == "ready":
                break
        self.credentials = self._credentials()
        return self

    @staticmethod
    def _read(stdout, lines):
        for line in stdout:
            lines.put(line)
        lines.put(None)

    def _credentials(self):
        text = (self.data / "credentials.env").read_text()
        pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines() if line.startswith("export "))
        return dict(pairs)

    @property
    def endpoint(self):
        return self.ready["s3_endpoint"]

    @property
    def address(self):
        host, port = self.endpoint.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    @property
    def devices(self):
        return sorted((self.data / "devices").iterdir())

    def environment(self):
        """What a shell has after `source credentials.env`, and no other AWS setting."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        nowhere = {"AWS_CONFIG_FILE": str(self.home / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "none")}
        return kept | self.credentials | nowhere | {"AWS_EC2_METADATA_DISABLED": "true"}

    def client(self, key=None, secret=None, **config):
        settings = {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}, "read_timeout": 120}
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key or self.credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secret or self.credentials["AWS_SECRET_ACCESS_KEY"],
            region_name=self.credentials["AWS_DEFAULT_REGION"],
            config=Config(**(settings | config)),
        )

    def holdfast(self, *words, check=True):
        """Runs the command and returns what it did."""
        command = [str(BINARY), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stderr
        return done

    def admin(self, path):
        """Status and text of the admin endpoint."""
        try:
            with urllib.request.urlopen(self.ready["admin_endpoint"] + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def memory_peak_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=STOP_S):
        code = self.process.wait(timeout=seconds)
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return code

    def stop(self):
        """An orderly end; it has to succeed."""
        self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the server in {STOP_S} s\n{self.log_tail()}") from None
        assert code == 0, f"SIGTERM ended the server with {code}\n{self.log_tail()}"

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()

    def remove(self):
        """Ends the process if it still runs, and deletes everything."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self, lines=12):
        path = self.home / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
