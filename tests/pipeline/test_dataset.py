import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from infra import storage
from infra.errors import Damaged, Lost
from pipeline import dataset
from pipeline.dataset import Dataset
from pipeline.shards import write_shard
from pipeline.verification import Verification
from tests.support.drawn import drawn, samples


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    return str(tmp_path / "made") if request.param == "disk" else f"memory://{tmp_path.name}"


def test_a_dataset_opens_as_it_was_finalised(place, tmp_path):
    made = drawn(place, 10, 3)
    assert Dataset.open(place) == made
    assert made.samples == 10
    assert made.index_of_samples(["row"])["row"].to_pylist() == list(range(10))
    for shard in made.shards:
        assert made.fetch(shard, tmp_path).stat().st_size == shard.bytes


def test_the_digest_is_of_content_not_of_place(tmp_path):
    assert drawn(str(tmp_path / "a"), 10, 3).digest == drawn("memory://digest", 10, 3).digest
    assert drawn(str(tmp_path / "b"), 10, 3, seed=1).digest != drawn(str(tmp_path / "c"), 10, 3).digest


def test_without_its_manifest_a_dataset_is_not_complete(tmp_path):
    url = str(tmp_path / "a")
    drawn(url, 4, 2)
    storage.remove(storage.join(url, "dataset.json"))
    with pytest.raises(ValueError, match="is not complete"):
        Dataset.open(url)
    with pytest.raises(ValueError, match="no dataset at"):
        Dataset.open(str(tmp_path / "nowhere"))


def test_finalising_with_a_shard_missing_is_refused(tmp_path):
    url = str(tmp_path / "a")
    dataset.claim(url, {})
    dataset.commit(url, 0, write_shard(tmp_path / "s.tar", samples(2)))
    with pytest.raises(Lost, match="1 of 2 shards"):
        dataset.finalise(url, 2)


def test_the_first_commit_of_a_shard_counts(tmp_path, capsys):
    url = str(tmp_path / "a")
    first = dataset.commit(url, 0, write_shard(tmp_path / "s.tar", samples(2)))
    assert dataset.commit(url, 0, write_shard(tmp_path / "s.tar", samples(2))) == first
    assert capsys.readouterr().err == ""
    assert dataset.commit(url, 0, write_shard(tmp_path / "s.tar", samples(3))) == first
    assert "another attempt with other bytes" in capsys.readouterr().err
    assert dataset.finalise(url, 1).samples == 2


def test_a_folder_is_claimed_by_one_recipe(tmp_path):
    url = str(tmp_path / "a")
    dataset.claim(url, {"seed": 0})
    dataset.claim(url, {"seed": 0})
    with pytest.raises(ValueError, match="made by a different command"):
        dataset.claim(url, {"seed": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not ours \(it holds 'thesis.txt'\)"):
        dataset.claim(str(tmp_path / "mine"), {})


@pytest.mark.parametrize("damage", ["flipped", "short", "swapped", "missing"])
def test_a_damaged_shard_is_not_fetched(tmp_path, damage):
    made = drawn(str(tmp_path / "a"), 8, 2)
    one, other = (Path(made.tar_url(shard)) for shard in made.shards)
    data = bytearray(one.read_bytes())
    match damage:
        case "flipped":
            data[700] ^= 1
            one.write_bytes(data)
        case "short":
            one.write_bytes(data[:-512])
        case "swapped":
            shutil.copyfile(other, one)
        case "missing":
            one.unlink()
    with pytest.raises(Damaged, match="shard 0"):
        made.fetch(made.shards[0], tmp_path)


def test_a_damaged_index_is_not_read(tmp_path):
    made = drawn(str(tmp_path / "a"), 8, 2)
    Path(made.index_url(made.shards[1])).write_bytes(b"PAR1")
    with pytest.raises(Damaged, match="not the index that the manifest names"):
        made.index_of_samples()


def test_foreign_shards_are_adopted_and_told_apart_by_content(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number in range(2):
        write_shard(folder / f"{number:05d}.tar", samples(3, first=3 * number))
    made = Dataset.open(str(folder))
    assert made.samples == 6
    assert sorted(path.name for path in folder.iterdir()) == ["00000.tar", "00001.tar"], (
        "nothing is added to their folder"
    )
    assert made.fetch(made.shards[1], tmp_path) == folder / "00001.tar"
    rows = made.index_of_samples(["row"])["row"].to_pylist()
    assert len(set(rows)) == 6
    assert Dataset.open(str(folder)) == made


def test_hidden_tars_and_members_of_foreign_shards_are_passed_over_and_counted(tmp_path, capsys):
    folder = tmp_path / "foreign"
    folder.mkdir()
    pairs = samples(3)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for pair in pairs:
            for name, data in (
                (f"./._{pair.key}.jpg", b"\0\5\x16\7"),
                (f"./{pair.key}.jpg", pair.image),
                (f"./__MACOSX/{pair.key}.txt", b"x"),
                (f"./{pair.key}.txt", pair.caption.encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "._0.tar").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"x")
    made = Dataset.open(str(folder))
    assert made.index_of_samples(["caption"])["caption"].to_pylist() == [pair.caption for pair in pairs]
    assert capsys.readouterr().err.count("passed over 8 hidden files in ") == 1
    assert Verification(dataset=str(folder), backend="local", decode=True).run().startswith("verified: 3 pairs")


def test_a_caption_in_a_foreign_shard_stays_byte_for_byte(tmp_path):
    """Row id and digest go by it, others see the same, and open_clip's tokenizer drops the mark."""
    pair = replace(samples(1)[0], caption="\ufeffa cat")
    (tmp_path / "foreign").mkdir()
    write_shard(tmp_path / "foreign" / "0.tar", [pair])
    assert Dataset.open(str(tmp_path / "foreign")).index_of_samples()["caption"].to_pylist() == ["\ufeffa cat"]
    assert Verification(dataset=str(tmp_path / "foreign"), backend="local").run().startswith("verified: 1 pairs")


def test_a_foreign_tar_that_was_replaced_by_one_of_the_same_size_is_indexed_anew(tmp_path):
    pair = replace(samples(1)[0], caption="a cat")
    sizes = set()
    (tmp_path / "foreign").mkdir()
    for caption in ("a cat", "a dog"):
        write_shard(tmp_path / "foreign" / "0.tar", [replace(pair, caption=caption)])
        sizes.add((tmp_path / "foreign" / "0.tar").stat().st_size)
        assert Dataset.open(str(tmp_path / "foreign")).index_of_samples()["caption"].to_pylist() == [caption]
    assert len(sizes) == 1


@pytest.mark.parametrize("where", ["ANTIDOTE_CACHE", "HOME", "no home at all"])
def test_a_cache_that_cannot_be_written_is_said_with_the_variable_that_moves_it(where, tmp_path, monkeypatch):
    tar = write_shard(tmp_path / "some.tar", samples(2))
    (tmp_path / "foreign").mkdir()
    tar.path.rename(tmp_path / "foreign" / "0.tar")
    (tmp_path / "file").write_text("")
    if where != "ANTIDOTE_CACHE":
        monkeypatch.delenv("ANTIDOTE_CACHE")
    if where == "no home at all":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError))
    else:
        monkeypatch.setenv(where, str(tmp_path / "file" / "below"))
    with pytest.raises(ValueError, match=r"cache.*set ANTIDOTE_CACHE to a folder that can") as refused:
        Dataset.open(str(tmp_path / "foreign"))
    assert "\n" not in str(refused.value)


def test_the_cache_may_be_named_by_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTIDOTE_CACHE", "~/kept")
    assert dataset.cache_folder() == tmp_path / "kept"
    monkeypatch.delenv("ANTIDOTE_CACHE")
    assert dataset.cache_folder() == tmp_path / ".cache" / "antidote"
