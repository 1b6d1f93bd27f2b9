"""Multipart uploads: large ones, parts replaced and listed, and everything that completion refuses."""

import hashlib
import io

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from content import content

MIB = 1 << 20
FIVE = 5 * MIB


def refused(status, code, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response
    assert (error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]) == (status, code)


def begin(s3, bucket, key="k"):
    return {"Bucket": bucket, "Key": key, "UploadId": s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]}


def put_parts(s3, where, parts):
    """Uploads `{number: data}`; returns what completion wants."""
    tag = lambda number, data: s3.upload_part(**where, PartNumber=number, Body=data)["ETag"]
    return [{"PartNumber": number, "ETag": tag(number, data)} for number, data in sorted(parts.items())]


def test_100_mib_up_and_down(s3, bucket):
    data = content("100 MiB", 100 * MIB)
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), bucket, "large", Config=config)
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ContentLength"] == len(data)
    tags = b"".join(hashlib.md5(data[at : at + 8 * MIB]).digest() for at in range(0, len(data), 8 * MIB))
    assert head["ETag"] == f'"{hashlib.md5(tags).hexdigest()}-13"'
    back = io.BytesIO()
    s3.download_fileobj(bucket, "large", back, Config=config)
    assert back.getvalue() == data
    for start, end in [(0, 10), (8 * MIB - 5, 8 * MIB + 5), (50_000_000, 70_000_000), (len(data) - 1, len(data))]:
        got = s3.get_object(Bucket=bucket, Key="large", Range=f"bytes={start}-{end - 1}")
        assert got["Body"].read() == data[start:end], (start, end)
    third = s3.get_object(Bucket=bucket, Key="large", PartNumber=3)
    assert third["Body"].read() == data[16 * MIB : 24 * MIB]
    assert third["PartsCount"] == 13


def test_nothing_is_visible_before_completion_and_nothing_is_left_after_an_abort(s3, bucket):
    where = begin(s3, bucket)
    put_parts(s3, where, {1: content(1, FIVE)})
    refused(404, "NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(found["Key"], found["UploadId"]) for found in uploads] == [("k", where["UploadId"])]
    s3.abort_multipart_upload(**where)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    refused(404, "NoSuchUpload", s3.list_parts, **where)
    refused(404, "NoSuchUpload", s3.upload_part, **where, PartNumber=1, Body=b"x")


def test_parts_are_replaced_listed_and_chosen_at_completion(s3, bucket):
    where = begin(s3, bucket)
    put_parts(s3, where, {2: b"old", 1: content(1, FIVE), 7: b"left out", 10000: content("last", 10)})
    replaced = s3.upload_part(**where, PartNumber=2, Body=content(2, FIVE))["ETag"]
    listed = s3.list_parts(**where)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, FIVE), (2, FIVE), (7, 8), (10000, 10)]
    assert listed[1]["ETag"] == replaced
    page = s3.list_parts(**where, MaxParts=2)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 2
    rest = s3.list_parts(**where, PartNumberMarker=page["NextPartNumberMarker"])
    assert [part["PartNumber"] for part in rest["Parts"]] == [7, 10000]
    chosen = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed if part["PartNumber"] != 7]
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": chosen})
    assert done["ETag"].endswith('-3"')
    expected = content(1, FIVE) + content(2, FIVE) + content("last", 10)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == expected


def test_completion_refuses_what_is_wrong_and_the_upload_goes_on(s3, bucket):
    where = begin(s3, bucket)
    one, two, three = put_parts(s3, where, {1: content(1, FIVE), 2: b"small", 3: b"end"})
    complete = s3.complete_multipart_upload
    refused(400, "InvalidPartOrder", complete, **where, MultipartUpload={"Parts": [two, one]})
    refused(400, "EntityTooSmall", complete, **where, MultipartUpload={"Parts": [one, two, three]})
    refused(400, "InvalidPart", complete, **where, MultipartUpload={"Parts": [one, {"PartNumber": 9, "ETag": '"x"'}]})
    spoilt = {"PartNumber": 1, "ETag": two["ETag"]}
    refused(400, "InvalidPart", complete, **where, MultipartUpload={"Parts": [spoilt, two]})
    refused(400, "MalformedXML", complete, **where, MultipartUpload={"Parts": []})
    complete(**where, MultipartUpload={"Parts": [one, three]})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == content(1, FIVE) + b"end"


def test_part_numbers_and_uploads_that_do_not_exist(s3, bucket):
    where = begin(s3, bucket)
    for number in (0, 10001):
        refused(400, "InvalidArgument", s3.upload_part, **where, PartNumber=number, Body=b"x")
    for upload in ("nonsense", "0" * 32):
        absent = where | {"UploadId": upload}
        refused(404, "NoSuchUpload", s3.upload_part, **absent, PartNumber=1, Body=b"x")
        refused(404, "NoSuchUpload", s3.abort_multipart_upload, **absent)


def test_copied_parts(s3, bucket):
    source = {"Bucket": bucket, "Key": "source"}
    data = content("source", 12 * MIB)
    s3.put_object(**source, Body=data)
    where = begin(s3, bucket)
    copy = lambda number, start, end: {
        "PartNumber": number,
        "ETag": s3.upload_part_copy(
            **where, PartNumber=number, CopySource=source, CopySourceRange=f"bytes={start}-{end - 1}"
        )["CopyPartResult"]["ETag"],
    }
    parts = [copy(1, MIB, 7 * MIB), copy(2, 0, 100)]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[MIB : 7 * MIB] + data[:100]


def test_a_second_completion_agrees_with_the_first_or_is_refused(s3, bucket):
    where = begin(s3, bucket)
    parts = {"Parts": put_parts(s3, where, {1: b"only"})}
    first = s3.complete_multipart_upload(**where, MultipartUpload=parts)
    try:
        assert s3.complete_multipart_upload(**where, MultipartUpload=parts)["ETag"] == first["ETag"]
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload", error
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"only"
