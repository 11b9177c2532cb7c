"""All of tests/support/hostile_http.py in one real download (17 seconds), judged from several sides."""

import tarfile
from pathlib import Path

import pytest

from pipeline.dataset import Dataset
from pipeline.images import decode
from pipeline.shards import read_shard
from pipeline.verification import Verification
from tests.support import hostile_http
from tests.support.hostile_http import SECRET, cases, download, hang_ups, shown, wrong
from tests.support.hostile_pictures import PAYLOAD

MIB_OVER_IMPORTS = 900  # one image of MAX_PIXELS takes 560; 32 bodies wait at most, of 20 MB each at worst
SECONDS = 90


@pytest.fixture(scope="module")
def table():
    return cases()


@pytest.fixture(scope="module")
def found(table, tmp_path_factory):
    return download(tmp_path_factory.mktemp("hostile") / "web", table)


def test_every_case_ends_as_it_should(table, found):
    assert len(table) >= 100
    assert len({case.name for case in table}) == len(table)
    assert not wrong(table, found), shown(table, found)


def test_every_row_has_one_outcome_and_the_counts_add_up(table, found):
    assert len(found.outcomes) == len(table)
    assert sum(found.counted.values()) == len(table)
    ended = list(found.outcomes.values())
    assert found.counted == {name: ended.count(name) for name in sorted(set(ended))}


def test_no_refused_address_saw_a_request(found):
    assert found.requests_to_others == []
    assert len(found.requests) > 100


def test_a_name_is_resolved_once_a_hop(found):
    assert found.about["asked"].count("rebinding.hostile.test") == 1


def test_memory_and_time_are_bounded(table, found):
    about = found.about
    assert about["peak_mib"] - about["before_mib"] < MIB_OVER_IMPORTS, shown(table, found)
    assert about["seconds"] < SECONDS, shown(table, found)


def test_nothing_is_written_outside_the_dataset_and_nothing_is_started(found, tmp_path_factory):
    assert found.appeared == [], "in the home folder, in the folder of temporary files or in the working one"
    inside = (str(found.out), str(found.out.parent / "tmp"), "/dev/null")
    assert [path for path in found.about["written"] if not path.isdigit() and not path.startswith(inside)] == []
    assert found.about["started"] == []
    assert not list(found.out.rglob("*HOSTILE*"))


def test_only_images_are_kept_and_nothing_that_hid_in_them(table, found):
    captions = b"".join((case.caption or "").encode() for case in table)
    assert PAYLOAD not in captions
    for path in found.out.rglob("*.tar"):
        assert PAYLOAD not in path.read_bytes()
        with tarfile.open(path) as tar:
            assert all(member.isreg() and "/" not in member.name for member in tar)
    made = Dataset.open(str(found.out))
    for shard in made.shards:
        for sample in read_shard(Path(made.tar_url(shard)), made.index(shard)):
            assert min(decode(sample.image).shape[:2]) >= 16
    assert Verification(dataset=str(found.out), backend="local", decode=True).run().startswith("verified")


def test_an_image_of_16_bits_is_not_a_white_one(found):
    """OpenCV cuts 16 bits off at 255, so that nearly every pixel of one is white."""
    made = Dataset.open(str(found.out))
    wanted = ("plain jpeg", "png of 16 bits", "grey png of 16 bits")
    means = {}
    for shard in made.shards:
        for sample in read_shard(Path(made.tar_url(shard)), made.index(shard)):
            if sample.caption in wanted:
                means[sample.caption] = decode(sample.image).mean()
    assert abs(means["png of 16 bits"] - means["plain jpeg"]) < 5
    assert means["grey png of 16 bits"] < 100


def test_captions_come_back_as_they_were_given(table, found):
    for case in table:
        assert found.captions[case.name] == hostile_http.name_of(case)


def test_a_secret_in_a_url_goes_nowhere(found):
    assert not any(SECRET.encode() in request for request in found.requests + found.requests_to_others)
    assert SECRET not in found.said
    made = Dataset.open(str(found.out))
    stored = [url for shard in made.shards for url in made.index(shard)["url"].to_pylist()]
    assert not any(SECRET in url for url in stored)
    assert sum("//...@" in url for url in stored) == 2
    assert not any(SECRET.encode() in path.read_bytes() for path in found.out.rglob("*") if path.is_file())


def test_connections_that_break_are_counted_too(tmp_path):
    table = hang_ups()
    found = download(tmp_path / "hang-ups", table, own_server=False)
    assert not wrong(table, found), shown(table, found)
