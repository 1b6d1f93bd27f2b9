"""A rack of real processes: every endpoint gives the same answers, and processes may die."""

import concurrent.futures
import random
import signal
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from content import content
from rack import Rack

SIZES = [0, 100, 5_000, 70_000, 400_000, 3_000_000]
WRITERS = 6


@pytest.fixture
def rack():
    rack = Rack()
    try:
        yield rack.start()
    finally:
        rack.remove()


class Load:
    """Writers on every endpoint that remember what was acknowledged; each key's content tells its version."""

    def __init__(self, rack, nodes):
        self.rack, self.nodes = rack, nodes
        self.acknowledged, self.tried, self.errors = {}, {}, []
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.version = 0
        self.longest_s = 0.0

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(WRITERS)
        self.jobs = [self.pool.submit(self._write, number) for number in range(WRITERS)]
        return self

    def __exit__(self, *_):
        self.stop.set()
        for job in self.jobs:
            job.result()
        self.pool.shutdown()

    def _write(self, writer):
        dice = random.Random(writer)
        clients = [self.rack.client(node) for node in self.nodes]
        while not self.stop.is_set():
            with self.lock:
                self.version += 1
                version = self.version
            key, size = f"w{writer}/{dice.randrange(8)}", dice.choice(SIZES)
            self.tried.setdefault(key, set()).add((version, size))
            began = time.monotonic()
            try:
                dice.choice(clients).put_object(Bucket="load", Key=key, Body=content((key, version), size))
            except (BotoCoreError, ClientError) as error:
                self.errors.append((key, repr(error)))
                continue
            self.acknowledged[key] = (version, size)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            body = dice.choice(clients).get_object(Bucket="load", Key=key)["Body"].read()
            # The writer is alone with its keys: what it reads is what it wrote last.
            assert body == content((key, version), size), (key, version, len(body))

    def check(self, node):
        """Every acknowledged version, or one tried after it, is there whole by this endpoint."""
        s3 = self.rack.client(node)
        for key, (version, size) in self.acknowledged.items():
            body = s3.get_object(Bucket="load", Key=key)["Body"].read()
            later = [(v, s) for v, s in self.tried[key] if v >= version and s == len(body)]
            assert any(body == content((key, v), s) for v, s in later), (key, version, size, len(body))


def test_every_endpoint_gives_the_same_answers(rack):
    rack.client(1).create_bucket(Bucket="same")
    for number, size in enumerate(SIZES):
        node = 1 + number % rack.nodes
        rack.client(node).put_object(Bucket="same", Key=f"k{number}", Body=content(number, size))
        for other in range(1, rack.nodes + 1):
            s3 = rack.client(other)
            assert s3.get_object(Bucket="same", Key=f"k{number}")["Body"].read() == content(number, size)
            assert s3.head_object(Bucket="same", Key=f"k{number}")["ContentLength"] == size
    listings = [
        [found["Key"] for found in rack.client(node).list_objects_v2(Bucket="same")["Contents"]]
        for node in range(1, rack.nodes + 1)
    ]
    assert all(listing == [f"k{number}" for number in range(len(SIZES))] for listing in listings)
    # A condition is judged in one place, whichever endpoint it comes by.
    with pytest.raises(ClientError) as refused:
        rack.client(3).put_object(Bucket="same", Key="k1", Body=b"x", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    rack.client(4).delete_object(Bucket="same", Key="k0")
    with pytest.raises(ClientError):
        rack.client(5).head_object(Bucket="same", Key="k0")
    status = rack.ask("status")
    assert (status["nodes"], status["nodes_up"], status["devices"]) == (6, 6, 18)
    assert status["groups"] > 0 and not status["at_risk"], status
    rack.stop()


def test_a_node_dies_under_load_and_comes_back(rack):
    rack.client(1).create_bucket(Bucket="load")
    keeper = rack.partition_node()
    victim = next(f"n{number}" for number in range(1, rack.nodes + 1) if f"n{number}" != keeper)
    others = [number for number in range(1, rack.nodes + 1) if f"n{number}" != victim]
    with Load(rack, others) as load:
        time.sleep(2)
        rack.kill(victim)
        time.sleep(6)
        before = len(load.acknowledged)
        rack.wait_for("the controller sees the death", lambda: rack.nodes_up() == rack.nodes - 1)
        rack.restart(victim)
        rack.wait_for("the node is back", lambda: rack.nodes_up() == rack.nodes)
        time.sleep(2)
    assert not load.errors, load.errors[:3]
    assert before > 10 and len(load.acknowledged) >= before
    for node in (1, int(victim[1:])):
        load.check(node)
    print(f"the longest put took {load.longest_s:.2f} s")


def test_the_partitions_node_dies_and_comes_back_whole(rack):
    rack.client(1).create_bucket(Bucket="load")
    keeper = rack.partition_node()
    others = [number for number in range(1, rack.nodes + 1) if f"n{number}" != keeper]
    with Load(rack, others) as load:
        time.sleep(2)
        rack.kill(keeper)
        time.sleep(1)
        rack.restart(keeper)
        rack.wait_for("it is back", lambda: rack.client(others[0]).list_objects_v2(Bucket="load")["KeyCount"] > 0)
        time.sleep(2)
    # A pause is allowed, and an error after the client's own retries; nothing lost, nothing stale.
    load.check(others[0])
    load.check(int(keeper[1:]))


def test_the_controller_is_not_on_the_path_of_data(rack):
    rack.client(1).create_bucket(Bucket="load")
    rack.kill("controller")
    with Load(rack, range(1, rack.nodes + 1)) as load:
        time.sleep(4)
    assert not load.errors, load.errors[:3]
    load.check(2)
    # A node starts and serves without it, from what it has kept.
    victim = next(f"n{number}" for number in range(1, 7) if f"n{number}" != rack.partition_node())
    rack.kill(victim)
    rack.restart(victim)
    rack.wait_for("it serves", lambda: rack.client(int(victim[1:])).list_objects_v2(Bucket="load")["KeyCount"] > 0)
    load.check(int(victim[1:]))
    rack.restart("controller")
    rack.wait_for("the controller is back", lambda: rack.nodes_up() == rack.nodes)


def test_a_node_that_hangs_does_not_stop_the_others(rack):
    rack.client(1).create_bucket(Bucket="load")
    keeper = rack.partition_node()
    victim = next(f"n{number}" for number in range(1, rack.nodes + 1) if f"n{number}" != keeper)
    others = [number for number in range(1, rack.nodes + 1) if f"n{number}" != victim]
    with Load(rack, others) as load:
        time.sleep(2)
        rack.signal(victim, signal.SIGSTOP)
        time.sleep(8)
        rack.signal(victim, signal.SIGCONT)
        time.sleep(2)
    assert not load.errors, load.errors[:3]
    load.check(others[0])
    load.check(int(victim[1:]))


def test_strangers_are_refused(rack):
    import socket

    ports = [rack.port + 9, rack.port + 2]
    for port in ports:
        for text in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 8, b""):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(text)
                stranger.settimeout(15)
                if text:
                    try:
                        while stranger.recv(4096):
                            pass
                    except ConnectionResetError:
                        pass
    token = rack.ask("token", "create")["token"]
    used = token[:-2] + ("00" if token[-2:] != "00" else "11")
    import subprocess

    from server import BINARY

    for wrong in (used, "hf1.no.token.at-all"):
        command = [BINARY, "node", "run", "--data", rack.home / "stranger", "--join", wrong, "--name", "x"]
        command += ["--controller", f"127.0.0.1:{rack.port + 9}", "--devices", "1", "--device-size", "1GiB"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2), done.stderr
        assert done.stderr.strip(), "a refusal says why"
    assert rack.ask("status")["nodes"] == rack.nodes
