"""What a client does wrong gets AWS's code, has no effect, and leaves the server well."""

import concurrent.futures
import errno
import socket
import time
import urllib.parse

import pytest
from botocore.exceptions import ClientError

from content import content
from raw import Raw, UNSIGNED, quote


def codes(answer):
    return answer.status, answer.code


def test_who_is_not_known_gets_nothing(server, bucket):
    path = f"/{bucket}/k"
    assert codes(Raw(server, secret="wrong" * 8).send("PUT", path, b"x")) == (403, "SignatureDoesNotMatch")
    assert codes(Raw(server, key="HF" + "A" * 18).send("PUT", path, b"x")) == (403, "InvalidAccessKeyId")
    anonymous = Raw(server).exchange("GET", f"/{bucket}", "list-type=2", {"host": "%s:%d" % server.address}, b"")
    assert codes(anonymous) == (403, "AccessDenied")
    # The region is part of what is signed; which one a client names is its own choice (README).
    assert codes(Raw(server, region="mars-north-1").send("GET", path)) == (404, "NoSuchKey")
    assert codes(Raw(server, region="mars-north-1", secret="wrong" * 8).send("GET", path)) == (403, "SignatureDoesNotMatch")


def test_a_skewed_clock_is_named(server, bucket):
    raw = Raw(server)
    for skew_s in (-3600, 3600, -86_400 * 30):
        assert codes(raw.send("PUT", f"/{bucket}/k", b"x", skew_s=skew_s)) == (403, "RequestTimeTooSkewed"), skew_s
    for skew_s in (-600, 600):
        assert raw.send("PUT", f"/{bucket}/k", b"x", skew_s=skew_s).status == 200, skew_s


def test_a_header_changed_after_signing_breaks_the_signature(server, bucket):
    raw = Raw(server)
    headers, _ = raw.sign("PUT", f"/{bucket}/k", "", {"x-amz-meta-a": "1"}, UNSIGNED)
    headers["x-amz-meta-a"] = "2"
    assert codes(raw.exchange("PUT", f"/{bucket}/k", "", headers, b"x")) == (403, "SignatureDoesNotMatch")
    headers, _ = raw.sign("PUT", f"/{bucket}/k", "", {}, UNSIGNED)
    assert codes(raw.exchange("PUT", f"/{bucket}/other", "", headers, b"x")) == (403, "SignatureDoesNotMatch")


def test_a_cut_off_body_never_becomes_visible(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="there", Body=b"before")
    raw = Raw(server)
    for key in ("new", "there"):
        for declared, sent in [(1000, b""), (1000, b"x" * 999), (8 << 20, b"x" * (3 << 20)), (200_000, b"x" * 199_999)]:
            raw.cut_off(f"/{bucket}/{key}", declared, sent)
    time.sleep(0.5)
    assert s3.get_object(Bucket=bucket, Key="there")["Body"].read() == b"before"
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["there"]


def test_keys_too_long_or_not_utf_8_are_refused(server, bucket):
    raw = Raw(server)
    assert codes(raw.send("PUT", f"/{bucket}/{'k' * 1025}", b"x")) == (400, "KeyTooLongError")
    assert codes(raw.send("PUT", f"/{bucket}/{quote('é' * 513)}", b"x")) == (400, "KeyTooLongError")
    assert raw.send("PUT", f"/{bucket}/%FF%FE", b"x").status == 400


def test_ranges_and_conditions_that_cannot_be(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    raw = Raw(server)
    beyond = raw.send("GET", f"/{bucket}/k", headers={"range": "bytes=5-9"})
    assert codes(beyond) == (416, "InvalidRange")
    assert codes(raw.send("GET", f"/{bucket}/empty", headers={"range": "bytes=0-0"})) == (416, "InvalidRange")
    # Not a range at all: refused by name, where AWS would pass it over and give the whole object (README).
    assert codes(raw.send("GET", f"/{bucket}/k", headers={"range": "bytes=-"})) == (416, "InvalidRange")
    for malformed in ("bytes=3-1", "bytes=a-b", "bytes=", "apples=0-1"):
        assert codes(raw.send("GET", f"/{bucket}/k", headers={"range": malformed})) == (400, "InvalidArgument"), malformed


def test_bucket_names(server):
    raw = Raw(server)
    for name in ("ab", "UPPER", "under_score", "a" * 64, "-dash", "dash-", "two..dots", "192.168.1.1", ".dot"):
        assert codes(raw.send("PUT", f"/{name}")) == (400, "InvalidBucketName"), name
    assert codes(raw.send("GET", "/no-such-bucket", query="list-type=2")) == (404, "NoSuchBucket")


XML_WRONG = [
    b"",
    b"<",
    b"not xml",
    b"<Delete>",
    b"<Delete><Object></Object></Delete>",
    b"<Other/>",
    b"<Delete><Object><Key>k</Key></Object>",
    b"<Delete>" + b"<Object><Key>k</Key></Object>" * 1001 + b"</Delete>",
    b"\xff\xfe\x00",
]

BOMB = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + number, b"&%c;" % (97 + number) * 10) for number in range(12)
)
BOMB += b"]><Delete><Object><Key>&m;</Key></Object></Delete>"
INCLUDE = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
INCLUDE += b"<Delete><Object><Key>&x;</Key></Object></Delete>"
DEEP = b"<Delete>" + b"<Object>" * 100_000 + b"</Object>" * 100_000 + b"</Delete>"


@pytest.mark.parametrize("body", [*XML_WRONG, BOMB, INCLUDE, DEEP], ids=lambda body: ascii(body[:30]))
def test_xml_that_is_wrong_or_hostile(server, s3, bucket, body):
    from content import md5_header

    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    before = server.memory_peak_bytes()
    started = time.monotonic()
    answer = Raw(server).send("POST", f"/{bucket}", body, query="delete=", headers={"content-md5": md5_header(body)})
    assert answer.status == 400 and answer.code in ("MalformedXML", "InvalidRequest", "MissingRequestBodyError"), answer
    assert b"root:" not in answer.body
    assert time.monotonic() - started < 5
    assert server.memory_peak_bytes() - before < 64 << 20
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_completion_with_wrong_xml(server, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    raw = Raw(server)
    for body in (b"", b"<CompleteMultipartUpload>", b"<x/>", BOMB):
        answer = raw.send("POST", f"/{bucket}/k", body, query=f"uploadId={urllib.parse.quote(upload, safe='')}")
        assert answer.status == 400, (body[:40], answer)


def test_xml_beyond_the_bound_is_refused_without_being_read(server, bucket):
    body = b"<Delete>" + b" " * (8 << 20) + b"</Delete>"
    try:
        answer = Raw(server).send("POST", f"/{bucket}", body, query="delete=", payload=UNSIGNED)
        assert answer.status in (400, 413), answer
    except (BrokenPipeError, ConnectionResetError):
        pass  # Refused while the body was still on its way.


def test_what_is_not_there_is_refused_by_name_and_not_ignored(server, s3, bucket):
    for query in ("policy=", "lifecycle=", "replication=", "website="):
        answer = Raw(server).send("PUT", f"/{bucket}", b"<x/>", query=query)
        assert codes(answer) == (501, "NotImplemented"), (query, answer)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=b")
    assert caught.value.response["Error"]["Code"] == "NotImplemented"
    versioning = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert Raw(server).send("PUT", f"/{bucket}", versioning, query="versioning=").status == 501


def test_errors_carry_a_request_id(server, bucket):
    answer = Raw(server).send("GET", f"/{bucket}/absent")
    assert codes(answer) == (404, "NoSuchKey")
    assert answer.headers.get("x-amz-request-id") and b"<RequestId>" in answer.body


@pytest.mark.parametrize(
    "text",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(5000)) + b"\r\n",
        b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_no_request_ends_its_connection_alone(server, s3, text):
    with socket.create_connection(server.address, timeout=20) as connection:
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except OSError as error:
            # Refused while still being sent: the reset shows in whichever call comes next.
            assert error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN), error
            answer = b""
        assert not answer.startswith(b"HTTP/1.1 2") and not answer.startswith(b"HTTP/1.1 5"), answer[:80]
    s3.list_buckets()


def test_many_idle_connections_do_not_keep_a_request_out(server, s3):
    idle = [socket.create_connection(server.address, timeout=20) for _ in range(300)]
    try:
        s3.list_buckets()
    finally:
        for connection in idle:
            connection.close()


def test_a_reader_that_goes_away_harms_nobody(server, s3, bucket):
    data = content("reader", 20 << 20)
    s3.put_object(Bucket=bucket, Key="k", Body=data)

    def leave(number):
        body = s3.get_object(Bucket=bucket, Key="k")["Body"]
        body.read(1 + number * 1000)
        body.close()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(32)))
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data
