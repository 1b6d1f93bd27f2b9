"""Full devices and large objects: refused in time, bounded in memory."""

import concurrent.futures
import hashlib
import os
import shutil
import time

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from content import content
from server import GIB, MIB, ROOT

LARGE_MIB = int(os.environ.get("CLIENTS_LARGE_MIB", 2048))
MEMORY_BYTES_MAX = 512 * MIB


def test_full_devices_refuse_writes_and_go_on_with_everything_else(own_server):
    server = own_server(448 * MIB).start()
    s3 = server.client(retries={"max_attempts": 0})
    s3.create_bucket(Bucket="full")
    kept = []
    refusal = None
    for number in range(300):
        data = content(number, 8 * MIB)
        try:
            s3.put_object(Bucket="full", Key=f"k{number:03}", Body=data)
            kept.append(number)
        except ClientError as error:
            refusal = error.response
            break
    assert refusal is not None, f"{len(kept)} objects of 8 MiB fit in 2.6 GiB of devices"
    assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 507, refusal
    assert len(kept) > 20, "a useful part of the devices was filled"
    listed = [found["Key"] for found in s3.list_objects_v2(Bucket="full")["Contents"]]
    assert listed == [f"k{number:03}" for number in kept]
    for number in (kept[0], kept[len(kept) // 2], kept[-1]):
        assert s3.get_object(Bucket="full", Key=f"k{number:03}")["Body"].read() == content(number, 8 * MIB)

    half = len(kept) // 2
    for number in kept[:half]:
        s3.delete_object(Bucket="full", Key=f"k{number:03}")
    deadline = time.monotonic() + 60
    while True:
        try:
            s3.put_object(Bucket="full", Key="again", Body=content("again", 8 * MIB))
            break
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507), error
            assert time.monotonic() < deadline, "space of deleted objects did not come back in 60 s"
            time.sleep(0.5)
    again = 0
    while again < half // 2:
        s3.put_object(Bucket="full", Key=f"again{again}", Body=content(("again", again), 8 * MIB))
        again += 1
    server.stop()
    server.start()
    s3 = server.client()
    for number in kept[half:]:
        assert s3.get_object(Bucket="full", Key=f"k{number:03}")["Body"].read() == content(number, 8 * MIB)
    for number in range(again):
        assert s3.get_object(Bucket="full", Key=f"again{number}")["Body"].read() == content(("again", number), 8 * MIB)


class Endless:
    """`size` bytes that repeat one random MiB, numbered so that no two MiB are the same; hashed as they are read."""

    def __init__(self, size):
        self.size = size
        self.at = 0
        self.block = content("endless", MIB)
        self.hash = hashlib.sha1()

    def read(self, size=-1):
        end = self.size if size < 0 else min(self.at + size, self.size)
        pieces = []
        while self.at < end:
            number, offset = divmod(self.at, MIB)
            block = number.to_bytes(8, "big") + self.block[8:]
            piece = block[offset : offset + end - self.at]
            pieces.append(piece)
            self.at += len(piece)
        data = b"".join(pieces)
        self.hash.update(data)
        return data


def test_a_large_upload_is_bounded_in_memory(own_server):
    free = shutil.disk_usage(ROOT / "target").free
    size = min(LARGE_MIB * MIB, free // 4)
    if size < 256 * MIB:
        pytest.skip(f"only {free >> 20} MiB are free on this disk")
    # 4+2 takes 1.5 times the bytes over six devices; the rest is for logs and reserves.
    server = own_server((size // 4 // (64 * MIB) + 8) * 64 * MIB).start()
    s3 = server.client()
    s3.create_bucket(Bucket="large")
    source = Endless(size)
    config = TransferConfig(multipart_threshold=16 * MIB, multipart_chunksize=32 * MIB, max_concurrency=6)
    started = time.monotonic()
    s3.upload_fileobj(source, "large", "k", Config=config)
    up_s = time.monotonic() - started
    assert s3.head_object(Bucket="large", Key="k")["ContentLength"] == size
    started = time.monotonic()
    back = hashlib.sha1()
    for piece in s3.get_object(Bucket="large", Key="k")["Body"].iter_chunks(MIB):
        back.update(piece)
    down_s = time.monotonic() - started
    assert back.hexdigest() == source.hash.hexdigest()
    peak = server.memory_peak_bytes()
    print(f"{size >> 20} MiB: up {up_s:.1f} s, down {down_s:.1f} s, peak memory {peak >> 20} MiB")
    assert peak < MEMORY_BYTES_MAX, f"VmHWM is {peak >> 20} MiB"
    server.stop()


def test_many_large_uploads_at_once_are_bounded_in_memory(own_server):
    server = own_server(512 * MIB).start()
    s3 = server.client(max_pool_connections=32, retries={"max_attempts": 5})
    s3.create_bucket(Bucket="many")
    data = content("many", 24 * MIB)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: s3.put_object(Bucket="many", Key=str(number), Body=data), range(40)))
    for number in range(0, 40, 7):
        assert s3.get_object(Bucket="many", Key=str(number))["Body"].read() == data
    peak = server.memory_peak_bytes()
    print(f"40 objects of 24 MiB, 32 at once: peak memory {peak >> 20} MiB")
    assert peak < MEMORY_BYTES_MAX, f"VmHWM is {peak >> 20} MiB"
