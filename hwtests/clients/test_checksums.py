"""The five checksums of S3, in headers and in trailers, right and wrong, on objects and on parts."""

import base64

import pytest
from botocore.exceptions import ClientError

from content import ALGORITHMS, checksum, content, md5_header, raw_checksum
from raw import Raw, UNSIGNED

DATA = content("checksums", 150_000)


def header(name):
    return f"x-amz-checksum-{name.lower()}"


def absent(s3, bucket, key="k"):
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key=key)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def kept(s3, bucket, name, data=DATA):
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[f"Checksum{name}"] == checksum(name, data)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


@pytest.mark.parametrize("name", ALGORITHMS)
def test_in_a_header(server, s3, bucket, name):
    put = s3.put_object(Bucket=bucket, Key="k", Body=DATA, **{f"Checksum{name}": checksum(name, DATA)})
    assert put[f"Checksum{name}"] == checksum(name, DATA)
    kept(s3, bucket, name)
    s3.delete_object(Bucket=bucket, Key="k")
    wrong = Raw(server).send("PUT", f"/{bucket}/k", DATA, headers={header(name): checksum(name, DATA[1:])})
    assert (wrong.status, wrong.code) == (400, "BadDigest"), wrong
    absent(s3, bucket)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_in_a_trailer(server, s3, bucket, name, signed):
    raw = Raw(server)
    answer = raw.put_chunked(f"/{bucket}/k", DATA, {header(name): checksum(name, DATA)}, signed)
    assert answer.status == 200, answer
    kept(s3, bucket, name)
    s3.delete_object(Bucket=bucket, Key="k")
    wrong = raw.put_chunked(f"/{bucket}/k", DATA, {header(name): checksum(name, b"other")}, signed)
    assert (wrong.status, wrong.code) == (400, "BadDigest"), wrong
    absent(s3, bucket)


def test_signed_chunks_without_a_trailer_and_a_spoilt_one(server, s3, bucket):
    raw = Raw(server)
    assert raw.put_chunked(f"/{bucket}/k", DATA).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA
    s3.delete_object(Bucket=bucket, Key="k")
    for chunk in (0, 1, 3):
        spoilt = raw.put_chunked(f"/{bucket}/k", DATA, break_chunk=chunk)
        assert (spoilt.status, spoilt.code) == (403, "SignatureDoesNotMatch"), (chunk, spoilt)
        absent(s3, bucket)


def test_a_spoilt_trailer_signature_is_refused(server, s3, bucket):
    raw = Raw(server)
    trailers = {header("CRC32"): checksum("CRC32", DATA)}
    good = raw._chunks

    def spoil(*arguments):
        return good(*arguments).replace(b"x-amz-trailer-signature:", b"x-amz-trailer-signature:00")

    raw._chunks = spoil
    answer = raw.put_chunked(f"/{bucket}/k", DATA, trailers)
    assert answer.status in (400, 403), answer
    absent(s3, bucket)


def test_content_md5_and_content_sha256(server, s3, bucket):
    raw = Raw(server)
    path = f"/{bucket}/k"
    assert raw.send("PUT", path, DATA, headers={"content-md5": md5_header(DATA)}).status == 200
    s3.delete_object(Bucket=bucket, Key="k")
    wrong = raw.send("PUT", path, DATA, headers={"content-md5": md5_header(b"other")})
    assert (wrong.status, wrong.code) == (400, "BadDigest"), wrong
    broken = raw.send("PUT", path, DATA, headers={"content-md5": "not base64"})
    assert (broken.status, broken.code) == (400, "InvalidDigest"), broken
    hashed = raw.send("PUT", path, DATA, payload="0" * 64)
    assert (hashed.status, hashed.code) == (400, "XAmzContentSHA256Mismatch"), hashed
    absent(s3, bucket)
    assert raw.send("PUT", path, DATA, payload=UNSIGNED).status == 200


def test_two_checksums_or_a_malformed_one_are_refused(server, s3, bucket):
    raw = Raw(server)
    two = {header(name): checksum(name, DATA) for name in ("CRC32", "SHA1")}
    assert raw.send("PUT", f"/{bucket}/k", DATA, headers=two).status == 400
    for value in ("", "AAAA", "not base64!", checksum("SHA256", DATA)):
        answer = raw.send("PUT", f"/{bucket}/k", DATA, headers={header("CRC32"): value})
        assert answer.status == 400, (value, answer)
    absent(s3, bucket)


def multipart(s3, bucket, name, kind, parts):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=name, ChecksumType=kind)["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    done = []
    for number, data in enumerate(parts, 1):
        own = {f"Checksum{name}": checksum(name, data)}
        part = s3.upload_part(**where, PartNumber=number, Body=data, **own)
        done.append({"PartNumber": number, "ETag": part["ETag"]} | own)
    return where, {"Parts": done}


PARTS = [content("part 1", 5 << 20), content("part 2", 1000)]


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "SHA1", "SHA256"])
def test_composite_checksums_of_parts(s3, bucket, name):
    where, parts = multipart(s3, bucket, name, "COMPOSITE", PARTS)
    done = s3.complete_multipart_upload(**where, MultipartUpload=parts)
    joined = raw_checksum(name, b"".join(raw_checksum(name, part) for part in PARTS))
    expected = f"{base64.b64encode(joined).decode()}-2"
    assert done[f"Checksum{name}"] == expected
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[f"Checksum{name}"], head["ChecksumType"]) == (expected, "COMPOSITE")


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME"])
def test_full_object_checksums_of_parts(s3, bucket, name):
    where, parts = multipart(s3, bucket, name, "FULL_OBJECT", PARTS)
    whole = checksum(name, b"".join(PARTS))
    wrong = {f"Checksum{name}": checksum(name, b"other")}
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(**where, MultipartUpload=parts, **wrong)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    done = s3.complete_multipart_upload(**where, MultipartUpload=parts, **{f"Checksum{name}": whole})
    assert (done[f"Checksum{name}"], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(PARTS)
