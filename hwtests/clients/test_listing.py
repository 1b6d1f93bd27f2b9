"""Listings, version 1 and 2: order, prefixes, delimiters, pages, encoding."""

import concurrent.futures

import pytest

from conftest import empty
from raw import Raw

KEYS = sorted(
    [f"photos/2024/{number:02}.jpg" for number in range(12)]
    + [f"photos/2025/{number:02}.jpg" for number in range(7)]
    + ["photos/index", "a", "b/c", "b/d/e", "z", "z/", "z/y", "mail//x", "umlaut/ü", "umlaut/z", "sp ace/+%"],
    key=lambda key: key.encode(),
)


@pytest.fixture(scope="module")
def filled(s3):
    name = "clients-listing"
    s3.create_bucket(Bucket=name)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=name, Key=key, Body=key.encode()), KEYS))
    yield name
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def expected(prefix="", delimiter="", after=""):
    """What a listing gives, in order: keys and common prefixes."""
    found = []
    for key in KEYS:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        item = key if cut < 0 else key[: cut + len(delimiter)]
        if item.encode() > after.encode() and (not found or found[-1] != item):
            found.append(item)
    return found


def items(page):
    keys = [found["Key"] for found in page.get("Contents", [])]
    prefixes = [found["Prefix"] for found in page.get("CommonPrefixes", [])]
    return sorted(keys + prefixes, key=lambda item: item.encode())


CASES = [("", ""), ("", "/"), ("photos/", "/"), ("photos/2024", ""), ("photos/2024/", "/"), ("b/", "/"), ("z", "/")]
CASES += [("mail/", "/"), ("umlaut/", ""), ("nothing", "/"), ("", "20"), ("photos/", "202"), ("", "ü")]


@pytest.mark.parametrize("prefix,delimiter", CASES)
def test_version_2_gives_all_of_it_in_pages_of_any_size(s3, filled, prefix, delimiter):
    for page_size in (1, 3, 1000):
        found, token = [], {}
        for _ in range(100):
            page = s3.list_objects_v2(Bucket=filled, Prefix=prefix, Delimiter=delimiter, MaxKeys=page_size, **token)
            assert page["KeyCount"] == len(items(page)) <= page_size
            found += items(page)
            if not page["IsTruncated"]:
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        assert found == expected(prefix, delimiter), page_size


@pytest.mark.parametrize("prefix,delimiter", CASES)
def test_version_1_gives_all_of_it_in_pages_of_any_size(s3, filled, prefix, delimiter):
    for page_size in (1, 4, 1000):
        found, marker = [], ""
        for _ in range(100):
            page = s3.list_objects(Bucket=filled, Prefix=prefix, Delimiter=delimiter, MaxKeys=page_size, Marker=marker)
            found += items(page)
            if not page["IsTruncated"]:
                break
            # Without a delimiter the last key is the marker, as AWS has it.
            marker = page.get("NextMarker") or page["Contents"][-1]["Key"]
        assert found == expected(prefix, delimiter), page_size


def test_start_after_and_marker(s3, filled):
    for after in ("a", "b/c", "photos/2024/05.jpg", "photos/2024/05.jpgx", "zzz", "umlaut/ü"):
        page = s3.list_objects_v2(Bucket=filled, StartAfter=after)
        assert items(page) == expected(after=after), after
        assert items(s3.list_objects(Bucket=filled, Marker=after)) == expected(after=after), after
        folded = s3.list_objects_v2(Bucket=filled, StartAfter=after, Delimiter="/")
        keys = [item for item in expected(delimiter="/", after=after)]
        assert [item for item in items(folded) if item.encode() > after.encode()] == keys, after


def test_zero_keys_and_details(s3, filled):
    page = s3.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert page["KeyCount"] == 0 and not page["IsTruncated"]
    found = s3.list_objects_v2(Bucket=filled, Prefix="photos/index", FetchOwner=True)["Contents"][0]
    head = s3.head_object(Bucket=filled, Key="photos/index")
    assert (found["Size"], found["ETag"]) == (head["ContentLength"], head["ETag"])
    assert abs((found["LastModified"] - head["LastModified"]).total_seconds()) < 1
    assert found["StorageClass"] == "STANDARD" and "Owner" in found


def test_encoding_of_keys_in_xml(server, filled):
    raw = Raw(server)
    plain = raw.send("GET", f"/{filled}", query="list-type=2&prefix=sp%20ace")
    assert b"<Key>sp ace/+%</Key>" in plain.body, plain
    encoded = raw.send("GET", f"/{filled}", query="encoding-type=url&list-type=2&prefix=sp%20ace")
    assert b"<Key>sp+ace/%2B%25</Key>" in encoded.body or b"<Key>sp%20ace/%2B%25</Key>" in encoded.body, encoded


def test_wrong_arguments_are_refused(server, filled):
    raw = Raw(server)
    for query in ("list-type=2&max-keys=-1", "list-type=2&max-keys=many", "continuation-token=nonsense&list-type=2"):
        answer = raw.send("GET", f"/{filled}", query=query)
        assert (answer.status, answer.code) == (400, "InvalidArgument"), (query, answer)


def test_more_than_a_page_is_there_at_once(s3, bucket):
    keys = [f"k{number:05}" for number in range(1100)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    first = s3.list_objects_v2(Bucket=bucket)
    assert first["IsTruncated"] and first["KeyCount"] == 1000
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    assert [found["Key"] for page in pages for found in page["Contents"]] == keys
