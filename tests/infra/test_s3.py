"""The same files on S3, spoken to a real HTTP server (moto, in a process of its own)."""

import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from drawn import drawn

from infra import storage
from pipeline.dataset import Dataset
from pipeline.verification import Verification

BUCKET = "shelf"


@pytest.fixture(scope="module")
def s3():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "reader",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-no-file-may-hold",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(endpoint, timeout=2)
                    break
                except OSError:
                    assert server.poll() is None, "moto did not start"
                    time.sleep(0.1)
            import boto3

            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}"
        finally:
            server.terminate()
            server.wait()


def test_only_the_first_create_wins(s3):
    url = storage.join(s3, "a", "commits", "00001.json")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert storage.create(url, b"first"), "a lost reply: our own bytes are there, so we won"
    assert storage.read(url) == b"first"


def test_files_are_whole_and_listed_afresh(s3, tmp_path):
    folder = storage.join(s3, "b")
    assert storage.names(folder) == []
    storage.write_json(storage.join(folder, "one.json"), {"a": 1})
    assert storage.names(folder) == ["one.json"]
    storage.write(storage.join(folder, "two"), b"2")
    assert storage.names(folder) == ["one.json", "two"]
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    storage.upload(tmp_path / "big", storage.join(folder, "big"))
    assert storage.size(storage.join(folder, "big")) == 3_000_000
    storage.download(storage.join(folder, "big"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()
    storage.remove(folder)
    assert storage.names(folder) == []


def test_a_dataset_in_a_bucket_is_the_one_on_disk(s3, tmp_path):
    made = drawn(storage.join(s3, "set"), 12, 3)
    assert made.digest == drawn(str(tmp_path / "set"), 12, 3).digest
    opened = Dataset.open(storage.join(s3, "set"))
    assert opened == made
    assert opened.fetch(opened.shards[1], tmp_path).stat().st_size == opened.shards[1].bytes
    assert Verification(dataset=made.url, backend="local").run().startswith("verified: 12 pairs")


def test_no_secret_is_written(s3):
    fs, path = storage.filesystem(storage.join(s3, "set"))
    for name in fs.find(path):
        assert b"a-secret" not in fs.cat_file(name)
