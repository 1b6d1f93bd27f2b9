"""A rack of real processes on loopback, as `holdfast rack` starts it: a controller and nodes, each killed by its own
process id.

Processes that a test has killed are started again with the node's own verb, as an operator's init would.
"""

import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import boto3
from botocore.config import Config

from server import BINARY, GIB, ROOT

START_S = 120
STOP_S = 60
PORTS_PER_NODE = 10


def free_ports(count):
    """The first of `count` ports in a row that nobody listens on now. Below the range from which the system takes
    ports for outgoing connections: one of those may sit on a dead node's port when it comes back."""
    steps = range(60)
    for step in steps:
        first = 20000 + (os.getpid() + step) % len(steps) * 200
        taken = []
        try:
            for port in range(first, first + count):
                probe = socket.socket()
                taken.append(probe)
                probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for probe in taken:
                probe.close()
    raise AssertionError("no ports are free")


class Rack:
    """The rack and its directory."""

    def __init__(self, nodes=6, devices_per_node=3, device_size=GIB, *flags):
        (ROOT / "target").mkdir(exist_ok=True)
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="rack-", dir=ROOT / "target"))
        self.data = self.home / "rack"
        self.nodes, self.port = nodes, free_ports(nodes * PORTS_PER_NODE)
        self.words = ["--nodes", nodes, "--devices-per-node", devices_per_node, "--device-size", device_size]
        self.words += ["--port", self.port, *flags]
        self.process, self.children, self.again = None, {}, {}

    def start(self):
        command = [BINARY, "rack", "--data", self.data, "-o", "json", *self.words]
        self.log = open(self.home / "log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, text=True
        )
        lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout, lines), daemon=True).start()
        try:
            line = lines.get(timeout=START_S)
        except queue.Empty:
            line = None
        if line is None:
            self.remove_processes()
            raise AssertionError(f"the rack is not ready\n{self.log_tail()}")
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready"
        self.children = dict(self.ready["processes"])
        text = (self.data / "credentials.env").read_text()
        pairs = (l.removeprefix("export ").split("=", 1) for l in text.splitlines() if l.startswith("export "))
        self.credentials = dict(pairs)
        return self

    @staticmethod
    def _read(stdout, lines):
        for line in stdout:
            lines.put(line)
        lines.put(None)

    def client(self, node=1, **config):
        """A client of one node's endpoint. Retries as an SDK does by default unless told otherwise."""
        settings = {"s3": {"addressing_style": "path"}, "read_timeout": 60, "connect_timeout": 5}
        settings["retries"] = {"max_attempts": 10, "mode": "standard"}
        return boto3.client(
            "s3",
            endpoint_url=self.ready["s3_endpoints"][node - 1],
            aws_access_key_id=self.credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.credentials["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(**(settings | config)),
        )

    def ask(self, *words):
        """A verb of the command, as JSON."""
        command = [str(BINARY), *map(str, words), "--as", str(self.data / "operator"), "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def partition_node(self):
        """The node that holds the partition: the one whose log says so."""
        holders = [name for name in self.children if name != "controller" and "partition is here" in self.node_log(name)]
        assert len(holders) == 1, holders
        return holders[0]

    def node_log(self, name):
        path = self.data / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, name, number):
        os.kill(self.children[name], number)

    def kill(self, name):
        self.signal(name, signal.SIGKILL)
        self._gone(name)

    def _gone(self, name):
        pid = self.children.pop(name)
        again = self.again.pop(name, None)
        if again is not None:
            again.wait()
            return
        # A child of the rack's own process, which notices and reaps it.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} (process {pid}) did not end")

    def restart(self, name):
        """Starts a killed process again, in its own directory."""
        if name == "controller":
            command = [BINARY, "controller", "--data", self.data / "controller"]
        else:
            base = self.port + (int(name[1:]) - 1) * PORTS_PER_NODE
            command = [BINARY, "node", "run", "--data", self.data / name, "--name", name]
            for flag, offset in (("--s3-addr", 0), ("--admin-addr", 1), ("--peer-addr", 2)):
                command += [flag, f"127.0.0.1:{base + offset}"]
        log = open(self.data / "logs" / f"{name}.log", "ab")
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()
        self.children[name], self.again[name] = process.pid, process

    def wait_for(self, what, look, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if look():
                    return
            except Exception as error:  # whatever it is, it may pass
                last = error
            else:
                last = "not yet"
            time.sleep(0.1)
        raise AssertionError(f"{what}: {last}\n{self.log_tail()}")

    def nodes_up(self):
        return self.ask("status")["nodes_up"]

    def stop(self):
        for process in self.again.values():
            process.terminate()
        for process in self.again.values():
            process.wait(timeout=STOP_S)
        self.again = {}
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=STOP_S)
        self.process.stdout.close()
        self.log.close()
        self.process, self.children = None, {}
        assert code == 0, self.log_tail()

    def remove_processes(self):
        for process in self.again.values():
            process.kill()
            process.wait()
        self.again = {}
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                for pid in self.children.values():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.log.close()
            self.process = None

    def remove(self):
        self.remove_processes()
        shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self, lines=8):
        parts = []
        for path in [self.home / "log", *sorted((self.data / "logs").glob("*.log"))]:
            if path.exists():
                tail = "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
                parts.append(f"--- {path.name}\n{tail}")
        return "\n".join(parts)
