"""Everything on S3: demo.sh with s3:// in front gives what it gives on disk, to the bit, and knows that it is done."""

import re

import pytest

from eval.store import scores
from infra import storage
from pipeline.dataset import Dataset
from poison.ledger import Ledger
from tests.support.both import files
from train import checkpoint

pytestmark = pytest.mark.slow

RUNS = ("poisoned", "clean", "cleanclip", "mmcl")


@pytest.fixture(autouse=True)
def on_s3(both, speak):
    speak(both.variables)


@pytest.fixture
def places(both):
    """The two roots: of the story in the bucket, and of that on disk."""
    return f"{both.bucket}/x", str(both.disk)


def in_bucket(both, folder: str = "") -> dict[str, bytes]:
    prefix = f"x/{folder}"
    return {key.removeprefix("x/"): data for key, data in both.gateway.objects(both.bucket) if key.startswith(prefix)}


def on_disk(both, folder: str = "") -> dict[str, bytes]:
    return {name: data for name, data in files(both.disk) if name.startswith(folder)}


def test_the_datasets_are_the_same(places):
    for name in ("train", "clean", "poisoned"):
        there, here = (Dataset.open(storage.join(place, name)) for place in places)
        assert there.digest == here.digest, name
    assert here.samples > 1000
    there, here = (Ledger.open(storage.join(place, "ledger")) for place in places)
    assert there.rows.equals(here.rows)
    assert here.rows.num_rows > 8


def test_the_same_files_lie_in_both(both):
    assert sorted(in_bucket(both)) == sorted(on_disk(both))
    assert not [name for name in in_bucket(both) if storage.ATTEMPT in name]


@pytest.mark.parametrize(
    "folder", ["train/shards", "poisoned/shards", "ledger/ledger", "test", "preview", "scores/about/e"]
)
def test_these_files_are_the_same(both, folder):
    assert on_disk(both, folder)
    assert in_bucket(both, folder) == on_disk(both, folder)


@pytest.mark.parametrize("run", RUNS)
def test_the_weights_are_the_same(both, places, run):
    there, here = (checkpoint.find(f"{place}/runs/{run}").read(checkpoint.MODEL) for place in places)
    assert there == here, "bit for bit"
    assert in_bucket(both, f"runs/{run}/open_clip") == on_disk(both, f"runs/{run}/open_clip") != {}


def test_the_scores_are_the_same(places):
    def numbers(place):
        found = scores.read_all(f"{place}/scores")
        return [(score.run, score.metric, score.k, score.value, score.low, score.high, score.n) for score in found]

    there, here = map(numbers, places)
    assert there == here
    assert {line[0] for line in here} == {f"../runs/{run}" for run in RUNS}


def test_the_report_opened_from_s3_says_the_same(places):
    there, here = (storage.read(f"{place}/report/tables.md").decode() for place in places)
    assert there == here
    assert all(run in here for run in RUNS)
    there, here = (storage.read(f"{place}/report/report.html").decode() for place in places)
    assert there.rstrip().endswith("</html>")
    pictures = re.findall(r'src="data:image/png;base64,[^"]+"', there)
    assert len(pictures) >= 3, "the report has its images in it"
    assert there.replace(*places) == here, "but for the places in the commands that it repeats"


def test_the_same_command_again_has_nothing_to_do(both):
    said = both.said["again"][0].splitlines()
    results = [line for line in said if f"{both.bucket}/x/" in line]
    assert len(results) == 11, said
    assert [line for line in results if not line.startswith("nothing to do: ")] == []
    assert dict(both.gateway.objects(both.bucket)) == both.before
