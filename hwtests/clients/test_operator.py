"""What an operator does: keys, a second instance, health, metrics, signals, refusals in one line."""

import json
import signal
import socket
import subprocess
import time

import pytest
from botocore.exceptions import ClientError

from content import content
from raw import Raw
from server import BINARY, MIB


def key(server, *words):
    return json.loads(server.holdfast("key", words[0], "--data", server.data, "-o", "json", *words[1:]).stdout)


def one_line(done, code):
    assert done.returncode == code, (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def forbidden(client, code):
    with pytest.raises(ClientError) as caught:
        client.list_buckets()
    assert caught.value.response["Error"]["Code"] == code


def test_keys_come_and_go_while_the_server_runs_and_while_it_does_not(own_server):
    server = own_server(448 * MIB).start()
    made = key(server, "create", "app one")
    app = server.client(made["access_key_id"], made["secret_access_key"])
    app.create_bucket(Bucket="apps")
    listed = key(server, "list")["keys"]
    assert {row["name"] for row in listed} == {"root", "app one"}
    assert made["secret_access_key"] not in json.dumps(listed)
    key(server, "delete", made["access_key_id"])
    forbidden(app, "InvalidAccessKeyId")
    one_line(server.holdfast("key", "delete", "--data", server.data, made["access_key_id"], check=False), 1)

    server.stop()
    offline = key(server, "create", "offline")
    assert {row["name"] for row in key(server, "list")["keys"]} == {"root", "offline"}
    server.start()
    server.client(offline["access_key_id"], offline["secret_access_key"]).head_bucket(Bucket="apps")
    for name in ("catalog.redb", "credentials.env", "admin.sock", "lock"):
        assert (server.data / name).stat().st_mode & 0o077 == 0, name
    assert server.data.stat().st_mode & 0o077 == 0
    log = (server.home / "log").read_text()
    for secret in (server.credentials["AWS_SECRET_ACCESS_KEY"], made["secret_access_key"]):
        assert secret not in log


def test_a_second_instance_runs_beside_the_first_and_not_on_its_directory(server, s3, bucket, own_server):
    second = own_server(448 * MIB).start()
    client = second.client()
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="k", Body=b"second")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    forbidden(second.client(server.credentials["AWS_ACCESS_KEY_ID"], "x" * 40), "InvalidAccessKeyId")

    same = second.holdfast("dev", "--data", second.data, "--s3-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", check=False)
    assert f"process {second.process.pid}" in one_line_of_refusal(same)
    taken = "%s:%d" % second.address
    other = second.home / "other"
    small = ["--device-size", "448MiB", "--admin-addr", "127.0.0.1:0"]
    port = second.holdfast("dev", "--data", other, "--s3-addr", taken, *small, check=False)
    assert taken in one_line_of_refusal(port)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"


def one_line_of_refusal(done):
    """Log lines may come before it; the refusal is the last line and begins with the command's name."""
    assert done.returncode == 1, (done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines()
    refusals = [line for line in lines if line.startswith("holdfast: ")]
    assert refusals == lines[-1:], done.stderr
    return refusals[0]


def test_health_and_metrics(server, s3, bucket):
    assert server.admin("/health/live")[0] == 200
    assert server.admin("/health/ready")[0] == 200
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    status, text = server.admin("/metrics")
    assert status == 200
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(samples) > 20 and all(line.startswith("holdfast_") for line in samples), samples[:5]
    for line in samples:
        float(line.rsplit(" ", 1)[1])
    assert server.admin("/v1/keys")[0] == 404


def test_credentials_can_be_sourced_by_a_shell(server):
    script = f". {server.data}/credentials.env && echo $AWS_ENDPOINT_URL $AWS_ACCESS_KEY_ID"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert shown == [server.endpoint, server.credentials["AWS_ACCESS_KEY_ID"]]


def test_sigterm_is_orderly_and_a_restart_finds_everything(own_server):
    server = own_server(448 * MIB).start()
    s3 = server.client()
    s3.create_bucket(Bucket="kept")
    sizes = [0, 1, 1000, 70_000, 3_000_000, 20_000_000]
    for size in sizes:
        s3.put_object(Bucket="kept", Key=str(size), Body=content(size, size), Metadata={"size": str(size)})
    upload = s3.create_multipart_upload(Bucket="kept", Key="parts")
    where = {"Bucket": "kept", "Key": "parts", "UploadId": upload["UploadId"]}
    part = s3.upload_part(**where, PartNumber=1, Body=content("part", 6 << 20))["ETag"]

    late = content("late", 2 << 20)
    with Raw(server).begin_put("/kept/late", len(late)) as connection:
        connection.sendall(late[: 1 << 20])
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None, "the server waits for what is under way"
        with pytest.raises(OSError):
            socket.create_connection(server.address, timeout=5)
        connection.sendall(late[1 << 20 :])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 "), "what was under way at SIGTERM is finished"
    assert server.wait() == 0
    for _ in range(2):
        server.start()
        s3 = server.client()
        for size in sizes:
            got = s3.get_object(Bucket="kept", Key=str(size))
            assert got["Body"].read() == content(size, size) and got["Metadata"] == {"size": str(size)}
        assert s3.get_object(Bucket="kept", Key="late")["Body"].read() == late
        server.stop()
    server.start()
    s3 = server.client()
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    assert s3.get_object(Bucket="kept", Key="parts")["Body"].read() == content("part", 6 << 20)


def test_a_second_signal_ends_at_once(own_server):
    server = own_server(448 * MIB).start()
    s3 = server.client()
    s3.create_bucket(Bucket="ends")
    s3.put_object(Bucket="ends", Key="k", Body=b"x")
    idle = socket.create_connection(server.address)
    idle.sendall(b"PUT /ends/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n")
    server.signal(signal.SIGINT)
    time.sleep(0.2)
    if server.process.poll() is None:
        server.signal(signal.SIGINT)
    assert server.wait(5) in (0, 130)
    idle.close()
    server.start()
    assert server.client().get_object(Bucket="ends", Key="k")["Body"].read() == b"x"


def test_flags_that_contradict_the_cluster_are_refused(own_server):
    server = own_server(448 * MIB).start()
    server.stop()
    for words in (["--data-shards", "3"], ["--devices", "7"], ["--device-size", "1GiB"]):
        done = server.holdfast("dev", "--data", server.data, *words, check=False)
        assert done.returncode == 2 and words[0] in done.stderr, done.stderr
    assert subprocess.run([str(BINARY), "dev"], capture_output=True).returncode == 2
