"""Fixtures: a server shared by the tests that only speak S3, servers of their own for those that break things."""

import itertools
import shutil

import pytest

from server import BINARY, GIB, Server


def pytest_sessionstart(session):
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is absent: make build", returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the servers' logs with a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        servers = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Server)]
        for server in {id(server): server for server in servers}.values():
            report.sections.append(("server log", server.log_tail()))


@pytest.fixture(scope="session")
def shared_server():
    server = Server(2 * GIB)
    try:
        yield server.start()
        server.stop()
    finally:
        server.remove()


@pytest.fixture
def server(shared_server):
    """The shared server; it has to survive every test."""
    yield shared_server
    assert shared_server.process.poll() is None, f"the server died\n{shared_server.log_tail()}"


@pytest.fixture
def own_server():
    """Makes servers that the test may stop, kill and damage."""
    made = []

    def make(*arguments):
        made.append(Server(*arguments))
        return made[-1]

    yield make
    for server in made:
        server.remove()


@pytest.fixture(scope="session")
def s3(shared_server):
    return shared_server.client()


_numbers = itertools.count()


@pytest.fixture
def bucket(server, s3):
    """A new bucket, emptied and deleted afterwards."""
    name = f"clients-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    yield name
    empty(s3, name)
    s3.delete_bucket(Bucket=name)


def empty(s3, name):
    for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
        if keys:
            answer = s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
            assert not answer.get("Errors"), answer["Errors"]


@pytest.fixture
def tool():
    """Finds a program, or skips the test by its name."""

    def find(name):
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find
