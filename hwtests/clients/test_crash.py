"""Power cuts and lost devices: what was acknowledged is there whole, and nothing is there in half."""

import collections
import concurrent.futures
import random
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from content import content
from server import GIB, MIB

ROUNDS = 4
WRITERS = 8
SIZES = [0, 100, 5_000, 70_000, 400_000, 3_000_000]


class Writers:
    """Concurrent clients that remember what was acknowledged and what was merely tried.

    A key's content is decided by the key and the attempt's number, so a reader can tell a whole old
    version from a mixture.
    """

    def __init__(self):
        self.acknowledged = {}
        self.tried = collections.defaultdict(set)
        self.lock = threading.Lock()
        self.attempt = 0

    def run(self, server, seconds):
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            jobs = [pool.submit(self._write, server, number, stop) for number in range(WRITERS)]
            time.sleep(seconds)
            server.kill()
            stop.set()
            for job in jobs:
                job.result()

    def _write(self, server, writer, stop):
        dice = random.Random(f"{writer} {self.attempt}")
        s3 = server.client(retries={"max_attempts": 0}, connect_timeout=5)
        while not stop.is_set():
            with self.lock:
                self.attempt += 1
                attempt = self.attempt
            # Half of the keys are a writer's own and overwritten again and again.
            key = f"writer-{writer}/{dice.randrange(6)}" if dice.random() < 0.5 else f"once/{attempt:06}"
            size = dice.choice(SIZES)
            self.tried[key].add((attempt, size))
            try:
                if dice.random() < 0.15:
                    size = self._multipart(s3, key, attempt)
                else:
                    s3.put_object(Bucket="crash", Key=key, Body=content((key, attempt), size))
                self.acknowledged[key] = (attempt, size)
            except (BotoCoreError, ClientError):
                if not stop.is_set():
                    time.sleep(0.01)

    def _multipart(self, s3, key, attempt):
        size = (5 << 20) + 1000
        self.tried[key].add((attempt, size))
        data = content((key, attempt), size)
        where = {"Bucket": "crash", "Key": key}
        where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
        parts = []
        for number, piece in enumerate((data[: 5 << 20], data[5 << 20 :]), 1):
            parts.append({"PartNumber": number, "ETag": s3.upload_part(**where, PartNumber=number, Body=piece)["ETag"]})
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        return size

    def check(self, server):
        """Every acknowledged version, or one tried after it, is there whole; nothing else is."""
        s3 = server.client()
        listed = {}
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="crash"):
            listed |= {found["Key"]: found["Size"] for found in page.get("Contents", [])}
        missing = sorted(set(self.acknowledged) - set(listed))
        assert not missing, f"acknowledged and lost: {missing[:5]} of {len(missing)}"

        def whole(key):
            body = s3.get_object(Bucket="crash", Key=key)["Body"].read()
            assert len(body) == listed[key], key
            least = self.acknowledged.get(key, (0, 0))[0]
            versions = [(attempt, size) for attempt, size in self.tried[key] if attempt >= least and size == len(body)]
            assert any(body == content((key, attempt), size) for attempt, size in versions), (key, least, len(body))

        with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(whole, listed))
        return len(listed)


def test_kill_9_during_uploads_again_and_again(own_server):
    server = own_server(GIB).start()
    server.client().create_bucket(Bucket="crash")
    writers = Writers()
    for number in range(ROUNDS):
        writers.run(server, 1.0 + 0.7 * number)
        server.start()
        count = writers.check(server)
        assert count >= len(writers.acknowledged)
    assert len(writers.acknowledged) > 50, "the rounds wrote something"
    # What a crash left behind of uploads under way does not keep the bucket from being emptied.
    from conftest import empty

    s3 = server.client()
    empty(s3, "crash")
    s3.delete_bucket(Bucket="crash")
    server.stop()


def fill(server, count=60):
    s3 = server.client()
    s3.create_bucket(Bucket="degraded")
    sizes = {f"k{number}": SIZES[number % len(SIZES)] + number for number in range(count)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket="degraded", Key=key, Body=content(key, sizes[key])), sizes))
    return sizes


def all_there(server, sizes):
    s3 = server.client()
    listed = {found["Key"]: found["Size"] for found in s3.list_objects_v2(Bucket="degraded")["Contents"]}
    assert listed == sizes
    for key, size in sizes.items():
        assert s3.get_object(Bucket="degraded", Key=key)["Body"].read() == content(key, size), key


def remove(path):
    path.unlink()


def truncate(path):
    with open(path, "r+b") as file:
        file.truncate(0)


def halve(path):
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size // 2)


def overwrite(path):
    """Every byte of the first 300 MiB, label included, becomes another one."""
    with open(path, "r+b") as file:
        for _ in range(min(path.stat().st_size, 300 * MIB) // MIB):
            file.write(b"\xa5" * MIB)


def rot(path):
    """A spoilt byte in every 64 KiB from 1 MiB on: label and layout stay, data does not."""
    with open(path, "r+b") as file:
        for at in range(MIB + 777, min(path.stat().st_size, 300 * MIB), 64 * 1024):
            file.seek(at)
            old = file.read(1)
            if old:
                file.seek(at)
                file.write(bytes([old[0] ^ 0x55]))


DAMAGES = [(remove, remove), (truncate, halve), (overwrite, overwrite), (rot, rot), (remove, rot)]


@pytest.mark.parametrize("damages", DAMAGES, ids=lambda pair: " and ".join(damage.__name__ for damage in pair))
def test_two_damaged_devices_of_six_lose_nothing(own_server, damages):
    server = own_server(448 * MIB).start()
    sizes = fill(server)
    server.stop()
    for damage, path in zip(damages, (server.devices[1], server.devices[4])):
        damage(path)
    server.start()
    all_there(server, sizes)
    server.stop()
    server.start()
    all_there(server, sizes)


def test_more_than_two_lost_devices_give_errors_and_never_other_bytes(own_server):
    server = own_server(448 * MIB).start()
    sizes = fill(server, 30)
    server.stop()
    for path in server.devices[:3]:
        overwrite(path)
    try:
        server.start()
    except AssertionError as refusal:
        assert "ended with 1" in str(refusal), refusal
        return
    s3 = server.client(retries={"max_attempts": 0})
    for key, size in sizes.items():
        try:
            assert s3.get_object(Bucket="degraded", Key=key)["Body"].read() == content(key, size), key
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, error
