"""Keys, session tokens and passwords end nowhere: not in output, logs, files or process lists."""

import base64
import io
import json
import subprocess
import sys
import tarfile
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import cli
from pipeline.dataset import Dataset
from pipeline.picturebook import server
from tests.support.both import files, holding, spellings, watching
from tests.support.ports import free_port
from tests.support.story import ROOT, command, environment, run


@pytest.fixture
def session(both, speak) -> None:
    speak(both.variables)


@pytest.mark.slow
def test_a_whole_story_says_no_secret(both):
    assert set(both.said) == {"s3", "again", "disk"}
    said = [
        (f"{name} {stream}", text.encode())
        for name in both.said
        for stream, text in zip(("stdout", "stderr"), both.said[name], strict=True)
    ]
    assert all(text for _, text in said)
    assert holding(said, both.secrets) == []


@pytest.mark.slow
def test_a_whole_story_logs_no_secret(both):
    lines = [json.loads(line) for line in both.events.read_text().splitlines()]
    assert len(lines) > 10
    assert holding([("log", both.events.read_bytes())], both.secrets) == []


@pytest.mark.slow
def test_a_whole_story_leaves_no_secret_in_a_file(both):
    secrets = (*both.secrets, both.gateway.access_key.encode())
    stored = list(both.gateway.objects(both.bucket))
    for kind in ("config.json", "environment.json", "events.out", "report.html", ".parquet", "ledger", "training.pt"):
        assert any(kind in name for name, _ in stored), kind
    assert holding(stored, secrets) == []
    assert holding(files(both.disk.parent), secrets) == []


@pytest.mark.slow
def test_rays_own_logs_hold_no_secret(both):
    left = list(files(both.temp))
    assert any("/logs/worker-" in name for name, _ in left)
    assert any("/logs/raylet" in name for name, _ in left)
    assert holding(left, (*both.secrets, both.gateway.access_key.encode())) == []


@pytest.mark.slow
def test_no_process_of_a_whole_story_shows_a_secret(both):
    assert {"antidote", "torchrun", "raylet", "radosgw", "pretrain.py"} <= both.watch.seen
    assert both.watch.exposed == set()


@pytest.mark.slow
def test_a_failing_command_says_no_secret(both, session, tmp_path):
    """No such bucket; a folder that is no dataset; a run that torchrun itself reports on."""
    nowhere, here = "s3://there-is-none/x", f"{both.bucket}/x"
    pretrain = ["torchrun", "--standalone", "--nproc-per-node", 2, "train/pretrain.py", "clip", "--preset", "tiny"]
    for words, status in (
        (["pipeline/prepare.py", "picturebook", "--port", free_port(), "--rows", 20, "--out", nowhere], (1, 2)),
        (["pipeline/verify.py", "--dataset", f"{here}/runs"], (2,)),
        ([*pretrain, "--dataset", nowhere, "--out", f"{here}/none"], (1, 2)),
    ):
        done = subprocess.run(command(*words), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)
        assert done.returncode in status, done.stderr
        assert done.stderr
        assert holding([("stdout", done.stdout.encode()), ("stderr", done.stderr.encode())], both.secrets) == []


TOKENS = ("hunter2", "sesame3")


@pytest.fixture
def table(tmp_path):
    """A url table with logins and tokens in it, as a person with a presigned export may have; two are served."""
    port = free_port()
    with server.serving(server.Faults(total=0), port=port):
        plain = [address for _, address in server.table(0, 0, 2, port)]
        addresses = [
            *plain,
            plain[0].replace("http://", "http://user:hunter2@"),
            plain[0].replace("http://", "http://hunter2@"),
            f"{plain[0]}?token=sesame3",
            f"{plain[0]}.missing?token=sesame3",
            "http://127.0.0.1:1/gone.jpg?token=sesame3",
            "http://user:hunter2@nowhere.invalid/x.jpg",
            "http://user:hunter2@[malformed/x.jpg",
        ]
        path = tmp_path / "table.tsv"
        path.write_text("".join(f"a caption\t{address}\n" for address in addresses))
        yield path


def test_what_stands_in_a_url_table_is_kept_as_data_and_said_nowhere(table, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_LOG", str(tmp_path / "events.jsonl"))
    out = tmp_path / "out"
    words = ["cc3m", "--urls", table, "--allow-private", "--timeout-seconds", 2, "--backend", "local", "--out", out]
    done = run("pipeline/prepare.py", *words)
    made = Dataset.open(str(out))
    assert made.samples == 2, made.outcomes
    assert sum(made.outcomes.values()) == 9
    secrets = [token.encode() for token in TOKENS]
    said = [("stdout", done.stdout.encode()), ("stderr", done.stderr.encode())]
    assert holding([*said, ("log", (tmp_path / "events.jsonl").read_bytes())], secrets) == []
    found = holding(files(out), secrets)
    assert [name for name in found if name.split("/")[0] not in ("index", "shards")] == []


def test_a_malformed_line_of_a_url_table_is_shown_without_secrets(tmp_path, capsys):
    table = tmp_path / "table.tsv"
    table.write_text("a caption\tftp://user:hunt/er2@host/x.jpg?token=sesame3\n")
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "cc3m", "--urls", str(table), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "line 1: 'ftp://...@host/x.jpg' is not an http(s) address" in said
    assert not any(secret in said for secret in ("er2", "sesame3"))


def test_the_search_finds_a_secret_wherever_it_is_planted(tmp_path):
    secret = uuid.uuid4().hex
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.json").write_text(json.dumps({"key": secret}))
    for shift in range(3):
        said = json.dumps({"key": "=" * shift + secret}).encode()
        (tmp_path / f"base64-{shift}").write_bytes(base64.b64encode(said))
    for codec in ("zstd", "snappy"):
        pq.write_table(pa.table({"url": [f"http://x/{secret}"] * 99}), tmp_path / f"{codec}.parquet", compression=codec)
    described = pa.table({"a": [1]}).replace_schema_metadata({"note": secret})
    pq.write_table(described, tmp_path / "schema.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "innocent.parquet")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        member = tarfile.TarInfo("0.txt")
        member.size = len(secret)
        tar.addfile(member, io.BytesIO(secret.encode()))
    found = holding(files(tmp_path), spellings(secret))
    encoded = ["base64-0", "base64-1", "base64-2"]
    assert sorted(found) == [*encoded, "logs/a.json", "schema.parquet", "shard.tar", "snappy.parquet", "zstd.parquet"]


def test_the_watch_sees_a_command_line(tmp_path):
    secret = uuid.uuid4().hex
    with watching([secret.encode()]) as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)", f"--key={secret}"], check=True)
    assert [line for line in watch.exposed if secret in line]
    assert len(watch.exposed) == 1
