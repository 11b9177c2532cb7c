"""What becomes of each object under each fault, as a markdown table: `python -m tests.faults.table`, about two minutes.

Our own functions read and write through tests/support/proxy.py on Ceph's S3 gateway, or on moto where that is missing.
The undisturbed run says what is right: the value, and every object that it leaves, byte for byte. A fault that passes
must leave the same. One that lasts must end in one clear error in bounded time and leave nothing that is not right.
Exit status 1 if anything else comes out. Words choose objects: `python -m tests.faults.table shard read`.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eval.store import scores
from eval.store.scores import Score
from infra import storage
from infra.s3 import objects as s3
from pipeline import dataset
from pipeline.dataset import Dataset
from pipeline.shards import Written, write_shard
from tests.support import ceph, moto_server
from tests.support.ceph import Gateway
from tests.support.drawn import samples
from tests.support.proxy import FAULTS, Proxy, Rule
from train import checkpoint

ATTEMPTS, TIMEOUT_SECONDS = 4, 3.0  # instead of 5 and 15, so that the table takes two minutes and not ten
BOUND_SECONDS = 60.0  # 4 x 3 s and 7 s between, and thrice that for a machine that does 16 cases at a time
TIMES = {"twice": 2, "for ever": None}
THREADS = 16
BUCKET = "faults"


@dataclass(frozen=True)
class Object:
    """act: under the fault, on what `prepare` put into the folder; its value must not hold the folder's name."""

    name: str
    method: str
    path: str
    act: Callable[[str], Any]
    prepare: Callable[[str], object] = lambda _: None


@dataclass(frozen=True)
class Outcome:
    right: bool
    said: str


def objects(written: list[Written], folder: Path) -> list[Object]:
    model = torch.arange(11 * 2**18, dtype=torch.float32).numpy().tobytes()  # 11 MiB: three parts
    training = {"optimizer": torch.arange(1000)}
    score = Score(
        run="run", checkpoint="step-0000007@0", dataset="d", attack=None, testset="t", task="zeroshot", metric="ca",
        k=1, value=0.5, n=10, low=0.2, high=0.8, seed=0, seconds=1.0, code_version="0",
    )  # fmt: skip

    def commit(url: str) -> Any:
        return dataset.commit(url, 0, written[0])

    def commits(url: str) -> None:
        dataset.claim(url, {"faults": True})
        for number, shard in enumerate(written):
            dataset.commit(url, number, shard)

    def whole(url: str) -> None:
        commits(url)
        dataset.finalise(url, len(written))

    def opened(url: str) -> Any:
        found = Dataset.open(url)
        return found.digest, found.shards

    def fetched(url: str) -> Any:
        data = Dataset.open(url)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            return data.fetch(data.shards[0], Path(scratch)).read_bytes()

    def indexed(url: str) -> Any:
        data = Dataset.open(url)
        return data.index(data.shards[0]).to_pylist()

    def finalised(url: str) -> Any:
        return dataset.finalise(url, len(written)).digest

    def saved(url: str, step: int = 7, weights: bytes = model[:100_000]) -> Any:
        return checkpoint.save(url, step, weights, training).files

    def found(url: str) -> Any:
        newest = checkpoint.find(url)
        return newest and (newest.name, newest.read(checkpoint.MODEL), newest.read_training()["optimizer"].tolist())

    def two(url: str) -> None:
        saved(url, 1)
        saved(url, 2)

    def removed(url: str) -> None:  # in `save` a failure is a warning: the new checkpoint is whole
        storage.remove(storage.join(url, "checkpoints", "step-0000001"))

    def scored(url: str) -> Any:
        return scores.write(storage.join(url, "cell.json"), [score])

    def score_read(url: str) -> Any:
        return scores.read_all(url)

    large = partial(saved, weights=model)
    files = r"\.(safetensors|pt|json)$"
    return [
        Object("shard, write", "PUT", "/shards/", commit),
        Object("index, write", "PUT", "/index/", commit),
        Object("commit, write", "PUT", "/commits/", commit),
        Object("commits, list and read", "GET|HEAD", "/commits/", dataset.committed, commits),
        Object("manifest, write", "PUT", r"(shards\.parquet|dataset\.json)$", finalised, commits),
        Object("manifest, read", "GET|HEAD", r"(shards\.parquet|dataset\.json)$", opened, whole),
        Object("shard, read", "GET|HEAD", "/shards/", fetched, whole),
        Object("index, read", "GET|HEAD", "/index/", indexed, whole),
        Object("checkpoint, write", "PUT|HEAD", f"/checkpoints/.*{files}", saved),
        Object("large checkpoint, begin", "POST", r"model.*\?uploads", large),
        Object("large checkpoint, parts", "PUT", "model.*partNumber=", large),
        Object("large checkpoint, complete", "POST", r"model.*\?uploadId=", large),
        Object("large checkpoint, read", "GET|HEAD", f"/checkpoints/.*{files}", found, large),
        Object("old checkpoint, remove", "DELETE", "/checkpoints/", removed, two),
        Object("scores, write", "PUT", r"cell\.json", scored),
        Object("scores, list and read", "GET|HEAD", "/", score_read, scored),
    ]


def outcome(gateway: Gateway, proxy: Proxy, thing: Object, fault: str, times: int | None, right: Any) -> Outcome:
    name = re.sub(r"\W+", "-", f"{thing.name} {fault} {times}")
    url = f"s3://{BUCKET}/{name}"
    thing.prepare(url)
    before = count(proxy, name)
    rule = Rule(fault, thing.method, f"{name}/.*{thing.path}|{name}{thing.path}", times=times)
    proxy.rules.append(rule)
    started = time.monotonic()
    try:
        value = thing.act(url)
        error = None
    except Exception as caught:  # whatever comes out is what the table is about
        value, error = None, caught
    seconds = time.monotonic() - started
    proxy.rules.remove(rule)
    requests = count(proxy, name) - before
    left = stored(gateway, name)
    took = f"{requests} requests, {seconds:.1f} s"
    if not rule.done:
        return Outcome(False, "THE FAULT NEVER CAME")
    if seconds > BOUND_SECONDS:
        return Outcome(False, f"TOO LONG: {took}")
    if error is None:
        if (value, left) != right:
            return Outcome(False, f"WRONG BYTES, {took}")
        return Outcome(True, f"right bytes, {took}")
    wrong = {key for key, data in left.items() if right[1].get(key, data) != data}
    said = str(error)
    if wrong or not isinstance(error, ConnectionError) or "\n" in said or url not in said or times is not None:
        return Outcome(False, f"NOT ONE CLEAR ERROR, {took}: {type(error).__name__}: {said[:300]} {sorted(wrong)}")
    return Outcome(True, f"one clear error, {took}: {said.split('the last one: ')[-1][:60]}")


def undisturbed(gateway: Gateway, thing: Object) -> Any:
    name = re.sub(r"\W+", "-", f"{thing.name} undisturbed")
    thing.prepare(f"s3://{BUCKET}/{name}")
    return thing.act(f"s3://{BUCKET}/{name}"), stored(gateway, name)


def stored(gateway: Gateway, name: str) -> dict[str, bytes]:
    """What anybody sees in a folder, past the proxy."""
    client = gateway.client()
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
    keys = [item["Key"] for item in listed]
    return {key.removeprefix(f"{name}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


def count(proxy: Proxy, name: str) -> int:
    return sum(name in path for _, path in list(proxy.requests))


def table(gateway: Gateway, real: bool, words: list[str]) -> Iterator[tuple[str, str, dict[str, Outcome]]]:
    """(object, fault, outcome by how long the fault lasts), in order, of the objects whose names hold the words.

    real: a server that checks what it is sent.
    """
    gateway.make_bucket(BUCKET)
    s3.PIECE, s3.PART = 2**16, 5 * 2**20  # the least part that S3 takes, so that small files are large ones
    pool, scratch = ThreadPoolExecutor(THREADS), tempfile.TemporaryDirectory()
    with Proxy(gateway.endpoint) as proxy, scratch, pool:
        os.environ |= gateway.environment | {
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_MAX_ATTEMPTS": str(ATTEMPTS),
            "ANTIDOTE_S3_TIMEOUT": str(TIMEOUT_SECONDS),
        }
        folder = Path(scratch.name)
        written = [write_shard(folder / f"{n}.tar", samples(60, first=60 * n)) for n in range(2)]
        things = [thing for thing in objects(written, folder) if all(word in thing.name for word in words)]
        rights = list(pool.map(lambda thing: undisturbed(gateway, thing), things))
        cases = {
            (thing.name, fault, lasting): pool.submit(outcome, gateway, proxy, thing, fault, times, right)
            for lasting, times in reversed(TIMES.items())
            for thing, right in zip(things, rights, strict=True)
            for fault in faults(thing, real)
        }
        for thing in things:
            for fault in faults(thing, real):
                yield thing.name, fault, {lasting: cases[thing.name, fault, lasting].result() for lasting in TIMES}


def faults(thing: Object, real: bool) -> list[str]:
    return [fault for fault in FAULTS if real or fault != "short" or "GET" in thing.method]


def main() -> int:
    started = time.monotonic()
    real = not ceph.missing()
    print("Server: " + ("Ceph RADOS Gateway" if real else "moto, which takes cut bodies for whole ones; install Ceph"))
    print(f"{ATTEMPTS} tries, {TIMEOUT_SECONDS} s without a byte (by default 5 and 15)\n")
    print("\n".join(f"- `{fault}`: {meaning}" for fault, meaning in FAULTS.items()), end="\n\n")
    print("| object | fault | " + " | ".join(TIMES) + " |\n|---|---|" + "---|" * len(TIMES))
    wrong = num_cells = 0
    with (ceph if real else moto_server).gateway() as gateway:
        for thing, fault, cells in table(gateway, real, sys.argv[1:]):
            print(f"| {thing} | {fault} | " + " | ".join(cell.said for cell in cells.values()) + " |", flush=True)
            wrong += sum(not cell.right for cell in cells.values())
            num_cells += len(cells)
    print(f"\n{num_cells - wrong} of {num_cells} as they should be, in {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
