"""The same files on S3, spoken to real HTTP servers: moto, and Ceph's gateway where it is installed."""

import subprocess
import sys

import pytest

from infra import cli, storage
from pipeline.dataset import Dataset
from pipeline.verification import Verification
from tests.support.drawn import drawn
from tests.support.story import ROOT, environment, last_line


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


def test_a_stamp_changes_with_its_object_and_with_nothing_else(s3):
    folder = storage.join(s3, "stamps")
    assert storage.stamps(folder) == {}
    for name in ("b/a", "a", "._a"):
        storage.write(storage.join(folder, name), b"one")
    before = storage.stamps(folder)
    assert list(before) == storage.find(folder) == ["._a", "a", "b/a"]
    assert storage.names(folder) == ["a", "b"]
    storage.write(storage.join(folder, "a"), b"two")
    after = storage.stamps(folder)
    assert {name for name in before if before[name] != after[name]} == {"a"}


def test_a_dataset_in_a_bucket_is_the_one_on_disk(s3, tmp_path):
    made = drawn(storage.join(s3, "set"), 12, 3)
    assert made.digest == drawn(str(tmp_path / "set"), 12, 3).digest
    opened = Dataset.open(storage.join(s3, "set"))
    assert opened == made
    assert opened.fetch(opened.shards[1], tmp_path).stat().st_size == opened.shards[1].bytes
    assert Verification(dataset=made.url, backend="local").run().startswith("verified: 12 pairs")


def profile(gateway, folder, secret_key: str) -> dict[str, str]:
    """No variable but those that name a profile: endpoint, region and keys stand in its two files."""
    (folder / "config").write_text(f"[profile shelf]\nendpoint_url = {gateway.endpoint}\nregion = us-east-1\n")
    keys = f"aws_access_key_id = {gateway.access_key}\naws_secret_access_key = {secret_key}\n"
    (folder / "credentials").write_text(f"[shelf]\n{keys}")
    return {
        "AWS_PROFILE": "shelf",
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
    }


def verify(url: str, backend: str) -> subprocess.CompletedProcess[str]:
    words = ["pipeline/verify.py", "--dataset", url, "--backend", backend]
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)


def test_a_profile_is_enough(ceph_s3, speak, tmp_path):
    bucket = ceph_s3.make_bucket("profiled")
    speak(profile(ceph_s3, tmp_path, ceph_s3.secret_key))
    drawn(storage.join(bucket, "set"), 12, 3)
    assert storage.names(bucket) == ["set"]
    done = verify(f"{bucket}/set", "ray")  # through its workers too
    assert last_line(done).startswith("verified: 12 pairs"), done.stderr


def test_a_wrong_key_is_one_line_without_it(ceph_s3, speak, tmp_path):
    bucket = ceph_s3.make_bucket("forbidden")
    wrong = ceph_s3.secret_key[::-1]
    speak(profile(ceph_s3, tmp_path, wrong))
    done = verify(f"{bucket}/set", "local")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert f"{bucket}/set" in done.stderr
    assert "check AWS_ACCESS_KEY_ID" in done.stderr
    assert wrong not in done.stderr + done.stdout


@pytest.mark.parametrize("login", ["key:hunter2@", "key:hun/ter2@", ":hunter2@", "hunter2@"])
def test_credentials_in_a_url_are_refused_and_not_repeated(login, capsys):
    for place in (f"s3://{login}shelf/set", f"https://{login}host/set?token=hunter2"):
        with pytest.raises(SystemExit) as end:
            cli.main(["verify", "--dataset", place])
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert len(said.splitlines()) == 1
        assert said.startswith("error: ")
        assert "ter2" not in said
        assert ("credentials" if place.startswith("s3") else "https://...") in said
