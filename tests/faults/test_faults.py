"""What passes is survived with the right bytes, what lasts is one clear error in bounded time."""

import dataclasses
import os
import socket
import subprocess
import sys
import time

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from infra import storage
from infra.s3 import objects, request
from pipeline import dataset
from pipeline.dataset import Dataset
from pipeline.shards import write_shard
from tests.support.drawn import drawn, samples
from tests.support.proxy import FAULTS, Chance, Proxy, Rule
from tests.support.story import ROOT, environment, last_line

PASSING = [fault for fault in FAULTS if fault != "short"]  # moto takes a cut body for a whole one; Ceph does not


def foreign(proxy, key: str, data: bytes) -> str:
    """An object that another program wrote, past the proxy, without any checksum that would help us."""
    name = proxy.bucket.removeprefix("s3://")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        proxy.gateway.client().put_object(Bucket=name, Key=key, Body=data)
    return storage.join(proxy.bucket, key)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(objects, "PIECE", 2**10)
    monkeypatch.setattr(objects, "PART", 5 * 2**20)  # the least that S3 takes


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
@pytest.mark.parametrize("size", [1, 700, 10_000], ids=lambda size: f"{size}B")
def test_a_body_cut_with_a_consistent_length_is_caught(proxy, small_pieces, tmp_path, ours, size):
    data = os.urandom(size)
    url = storage.join(proxy.bucket, "thing")
    storage.write(url, data) if ours else foreign(proxy, "thing", data)
    proxy.rules = [Rule("short", "GET", "thing", times=2)]
    assert storage.read(url) == data
    assert proxy.rules[0].done == 2
    proxy.rules = [Rule("short", "GET", "thing", first=2)]  # a later piece, of large ones
    storage.download(url, tmp_path / "thing")
    assert (tmp_path / "thing").read_bytes() == data
    proxy.rules = [Rule("short", "GET", "thing", times=None)]
    with pytest.raises(
        ConnectionError, match=r"cannot read s3://.*/thing: 5 tries in \d+ s at http://127.*(came|sha256)"
    ):
        storage.read(url)


def test_a_short_body_of_a_shard_or_its_index_is_asked_for_again(proxy, tmp_path):
    data = drawn(storage.join(proxy.bucket, "set"), 12, 2)
    proxy.rules = [Rule("short", "GET", path, times=2) for path in ("/shards/", "/index/", "shards.parquet")]
    opened = Dataset.open(data.url)
    assert opened == data
    assert opened.fetch(opened.shards[0], tmp_path).stat().st_size == opened.shards[0].bytes
    assert opened.index(opened.shards[0]).num_rows == 6
    assert [rule.done for rule in proxy.rules] == [2, 2, 2]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_survived(proxy, fault, monkeypatch):
    if fault == "stall":
        monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "0.5")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "10")  # a busy machine may stall too
    url = storage.join(proxy.bucket, "folder", "file")
    proxy.rules = [Rule(fault, method, "file", times=2) for method in ("PUT", "GET", "HEAD", "DELETE")]
    proxy.rules.append(Rule(fault, "GET", "list-type", times=2))
    storage.write(url, b"content")
    assert storage.names(storage.join(proxy.bucket, "folder")) == ["file"]
    assert storage.size(url) == 7
    assert storage.read(url) == b"content"
    storage.remove(url)
    assert not storage.exists(url)
    assert all(rule.done == 2 for rule in proxy.rules if (fault, rule.method) != ("cut", "DELETE"))


@pytest.mark.parametrize("fault", PASSING)
def test_what_lasts_is_one_clear_error_in_bounded_time(proxy, fault, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "0.5" if fault == "stall" else "10")
    if fault == "stall":  # what a call may take grows with the pauses: two tries of a busy machine used it up
        monkeypatch.setattr(request, "PAUSE_SECONDS", 0.2)
    url = foreign(proxy, "file", b"content")
    proxy.rules = [Rule(fault, "GET|PUT|HEAD", times=None)]
    for verb, call in {
        "read": lambda: storage.read(url),
        "write": lambda: storage.write(url, b"other"),
        "look at": lambda: storage.exists(url),
        "list": lambda: storage.names(proxy.bucket),
    }.items():
        before, started = len(proxy.requests), time.monotonic()
        with pytest.raises(ConnectionError, match=f"^cannot {verb} s3://[^\n]* 3 tries in [^\n]*$"):
            call()
        asked = len(proxy.requests) - before
        assert asked == 3 if fault in ("503", "500", "stall") else 3 <= asked <= 6  # aiohttp asks once more by itself
        assert time.monotonic() - started < 20


def test_a_conditional_put_whose_reply_was_lost_has_won(proxy):
    url = storage.join(proxy.bucket, "commits", "00001.json")
    proxy.rules = [Rule("lost", "PUT")]
    assert storage.create(url, b"mine")
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "GET"]
    assert storage.create(url, b"mine"), "a twin with equal bytes"


def test_a_conditional_put_whose_reply_was_lost_has_lost_to_other_bytes(proxy):
    url = foreign(proxy, "commits/00001.json", b"another's")
    proxy.rules = [Rule("lost", "PUT")]
    assert not storage.create(url, b"mine")
    assert storage.read(url) == b"another's"


@pytest.mark.parametrize("path", ["uploads", "partNumber=2", "uploadId="])
def test_a_large_upload_is_whole_or_not_there(proxy, small_pieces, tmp_path, path):
    (tmp_path / "large").write_bytes(data := os.urandom(11 * 2**20))
    url, name = storage.join(proxy.bucket, "large"), proxy.bucket.removeprefix("s3://")
    for fault in ("cut", "lost"):
        proxy.rules = [Rule(fault, "PUT|POST", path)]
        storage.upload(tmp_path / "large", url)
        assert proxy.rules[0].done == 1
        assert dict(proxy.gateway.objects(proxy.bucket)) == {"large": data}
        storage.remove(url)
    proxy.rules = [Rule("cut", "PUT|POST", path, times=None)]
    with pytest.raises(ConnectionError, match=f"cannot write {url}: 5 tries"):
        storage.upload(tmp_path / "large", url)
    assert storage.names(proxy.bucket) == []
    unfinished = proxy.gateway.client().list_multipart_uploads(Bucket=name).get("Uploads", [])
    assert (unfinished == []) == (path != "uploads"), "it is taken back where we know of it"


def test_a_completion_whose_reply_was_lost_may_not_be_known_any_more(proxy, small_pieces, monkeypatch):
    """MinIO says so; Amazon and Ceph complete a second time."""
    url, ask, completions = storage.join(proxy.bucket, "large"), request.ask, []

    def forgetful(operation, url, **arguments):
        if operation == "complete_multipart_upload":
            completions.append(url)
            if len(completions) > 1:
                raise ClientError({"Error": {"Code": "NoSuchUpload"}}, operation)
            ask(operation, url, **arguments)
            raise ConnectionClosedError(endpoint_url=url)
        return ask(operation, url, **arguments)

    monkeypatch.setattr(objects, "ask", forgetful)
    storage.write(url, bytes(11 * 2**20))
    assert len(completions) == 2
    assert storage.size(url) == 11 * 2**20


def test_a_large_upload_that_turns_out_as_other_bytes_is_an_error(proxy, small_pieces, monkeypatch):
    url, head = storage.join(proxy.bucket, "large"), objects._head
    monkeypatch.setattr(objects, "_head", lambda url: foreign(proxy, "large", b"other") and head(url))
    with pytest.raises(ConnectionError, match=f"{url} has 5 bytes after an upload of 11,534,336, or other ones"):
        storage.write(url, bytes(11 * 2**20))


@pytest.mark.parametrize("length", [2000, 500, 1])
def test_an_object_that_is_replaced_while_it_is_read_is_one_of_the_two(proxy, small_pieces, monkeypatch, length):
    url = storage.join(proxy.bucket, "metrics.jsonl")
    storage.write(url, b"old" * 2000)
    in_parallel = objects._in_parallel

    def meanwhile(call, items):
        monkeypatch.setattr(objects, "_in_parallel", in_parallel)
        foreign(proxy, "metrics.jsonl", b"newer" * length)
        return in_parallel(call, items)

    monkeypatch.setattr(objects, "_in_parallel", meanwhile)
    assert storage.read(url) == b"newer" * length


def test_every_page_of_a_listing_is_fetched(proxy):
    for number in range(5):
        foreign(proxy, f"folder/{number}", b"")
    proxy.rules = [Rule("503", "GET", "continuation-token")]
    assert list(objects._listed(proxy.bucket, "folder/", MaxKeys=2)) == [f"folder/{number}" for number in range(5)]
    assert proxy.rules[0].done == 1


def test_the_mark_that_some_programs_leave_for_a_folder_is_no_file(proxy):
    folder = foreign(proxy, "folder/", b"")
    assert storage.names(folder) == storage.find(folder) == []
    assert not storage.exists(folder)
    foreign(proxy, "folder/inner/file", b"")
    assert storage.names(folder) == ["inner"]
    assert storage.exists(folder)
    assert storage.exists(storage.join(folder, "inner"))


def test_an_empty_reply_is_not_taken_for_an_empty_folder(proxy, monkeypatch):
    foreign(proxy, "folder/file", b"")
    replies, ask = iter([{"ResponseMetadata": {}}]), request.ask  # what botocore makes of a reply cut in its head
    monkeypatch.setattr(objects, "ask", lambda *words, **more: next(replies, None) or ask(*words, **more))
    assert storage.names(storage.join(proxy.bucket, "folder")) == ["file"]


def test_what_another_machine_writes_is_seen_at_once(proxy):
    folder = storage.join(proxy.bucket, "folder")
    storage.write(storage.join(folder, "a"), b"")
    assert storage.names(folder) == ["a"]
    assert not storage.exists(storage.join(folder, "b"))
    url = foreign(proxy, "folder/b", b"12")
    assert storage.exists(url)
    assert storage.read(url) == b"12"
    assert storage.size(url) == 2
    foreign(proxy, "folder/b", b"123")
    assert storage.size(url) == 3
    assert storage.names(folder) == ["a", "b"]


def test_a_lost_commit_is_committed_once(proxy, tmp_path):
    url = storage.join(proxy.bucket, "set")
    dataset.claim(url, {})
    written = write_shard(tmp_path / "shard.tar", samples(4))
    proxy.rules = [Rule("lost", "PUT", "/commits/", times=2)]
    record = dataset.commit(url, 0, written)
    assert dataset.committed(url) == {0: record}


def inject(place: str, *more: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "poison/inject.py", "badnet", "--target", "car", "--budget", "12", "--backend", "local"]
    places = ["--dataset", f"{place}/set", "--out", f"{place}/poisoned", "--ledger", f"{place}/ledger"]
    return subprocess.run(
        [*words, *places, *more], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
def test_an_entry_survives_faults_of_three_requests_in_a_hundred(ceph_s3, speak, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "4")
    drawn(str(tmp_path / "set"), 96, 24)
    assert inject(str(tmp_path)).returncode == 0
    with Proxy(ceph_s3.endpoint) as proxy:
        bucket = ceph_s3.make_bucket("unlucky")
        speak(dataclasses.replace(ceph_s3, endpoint=proxy.endpoint).environment)
        drawn(f"{bucket}/set", 96, 24)
        proxy.rules = [Chance(0.03, tuple(FAULTS), seed=0)]
        done = inject(bucket)
        assert done.returncode == 0, done.stderr
        assert last_line(done).startswith("poisoned 12 of 96 pairs"), done.stdout
        assert proxy.rules[0].done >= 3, "else this was an easy day"
        proxy.rules = []
        assert Dataset.open(f"{bucket}/poisoned").digest == Dataset.open(str(tmp_path / "poisoned")).digest
        assert storage.names(f"{bucket}/ledger") == storage.names(str(tmp_path / "ledger"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "short", "stall", "no server"])
def test_an_entry_whose_server_stays_away_ends_with_one_line(ceph_s3, speak, monkeypatch, fault):
    monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "1")
    bucket = ceph_s3.make_bucket(f"away-{fault.replace(' ', '-')}")
    with Proxy(ceph_s3.endpoint) as proxy:
        speak(dataclasses.replace(ceph_s3, endpoint=proxy.endpoint).environment)
        drawn(f"{bucket}/set", 24, 3)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        proxy.rules = [Rule(fault, "GET|PUT|POST", times=None)] if fault in FAULTS else []
        if fault == "no server":
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        started = time.monotonic()
        done = inject(bucket)
    assert done.returncode == 1, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"], done.stderr
    assert "3 tries" in done.stderr
    assert time.monotonic() - started < 60
    assert ceph_s3.secret_key not in done.stderr + done.stdout


@pytest.mark.slow
def test_the_table_of_faults_is_as_it_should_be():
    table = [sys.executable, "-m", "tests.faults.table"]
    done = subprocess.run(table, cwd=ROOT, env=environment(), capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_stops_reading_is_given_up(proxy, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "0.5")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(request, "SLOWEST", 2**25)  # one second for the bytes below
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=r"tries in . s at .*: not done in 1 s"):
            storage.write(f"{proxy.bucket}/large", bytes(2**25 - 1))
        assert time.monotonic() - started < 30
