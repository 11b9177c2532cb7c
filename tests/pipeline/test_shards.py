import io
import tarfile

import pytest
import webdataset

from infra.errors import Damaged
from pipeline import shards
from pipeline.foreign import Oddities, indexed
from pipeline.shards import outcomes, read_shard, scan, write_shard
from tests.support.drawn import samples


@pytest.fixture
def pairs():
    return samples(5) + samples(1, first=5, extension="png") + samples(1, first=6, extension="webp")


def test_samples_come_back_as_they_were_written(tmp_path, pairs):
    written = write_shard(
        tmp_path / "a.tar", pairs, [{"row": 99, "outcome": "http_404", "caption": "lost", "url": "u"}]
    )
    assert list(read_shard(written.path, written.index)) == pairs
    assert outcomes(written.index) == {"http_404": 1, "success": 7}
    assert (written.samples, written.bytes) == (7, written.path.stat().st_size)


def test_the_same_samples_give_the_same_bytes(tmp_path, pairs):
    first, second = (write_shard(tmp_path / name, pairs) for name in ("a.tar", "b.tar"))
    assert first.path.read_bytes() == second.path.read_bytes()
    assert shards.content_hash(first.index) == shards.content_hash(second.index)


def test_the_content_hash_knows_captions_and_outcomes_but_not_urls(tmp_path, pairs):
    from dataclasses import replace

    base = shards.content_hash(write_shard(tmp_path / "a.tar", pairs).index)
    moved = [replace(pair, meta=pair.meta | {"url": "http://elsewhere/"}) for pair in pairs]
    assert shards.content_hash(write_shard(tmp_path / "b.tar", moved).index) == base
    edited = [replace(pairs[0], caption="another"), *pairs[1:]]
    assert shards.content_hash(write_shard(tmp_path / "c.tar", edited).index) != base


def test_plain_webdataset_reads_every_sample_once(tmp_path, pairs):
    written = write_shard(tmp_path / "a.tar", pairs)
    read = list(webdataset.WebDataset(str(written.path), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [pair.key for pair in pairs]
    assert [sample["txt"].decode() for sample in read] == [pair.caption for pair in pairs]
    assert [sample[pair.extension] for sample, pair in zip(read, pairs, strict=True)] == [pair.image for pair in pairs]


def test_a_shard_by_webdatasets_own_writer_is_indexed(tmp_path, pairs):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for pair in pairs[:3]:
            writer.write({"__key__": f"some/where/{pair.key}", "jpg": pair.image, "txt": pair.caption})
    index = indexed(tmp_path / "a.tar")
    read = list(read_shard(tmp_path / "a.tar", index))
    assert [(sample.image, sample.caption) for sample in read] == [(pair.image, pair.caption) for pair in pairs[:3]]
    assert len({sample.row for sample in read}) == 3


def test_long_names_of_both_tar_dialects_are_understood(tmp_path):
    name = "x" * 150 + ".jpg"
    for dialect in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=dialect) as tar:
            info = tarfile.TarInfo(name)
            info.size = 3
            info.mtime = 1.5  # as img2dataset does: it forces a PAX header
            tar.addfile(info, io.BytesIO(b"abc"))
        [(found, offset, length)] = scan(tmp_path / "a.tar")
        assert found == name
        assert (tmp_path / "a.tar").read_bytes()[offset : offset + length] == b"abc"


@pytest.mark.parametrize("damage", ["cut between members", "cut inside a member", "cut end", "broken header"])
def test_damage_that_tarfile_takes_for_the_end_is_found(tmp_path, pairs, damage):
    path = write_shard(tmp_path / "a.tar", pairs).path
    data = bytearray(path.read_bytes())
    members = list(scan(path))
    match damage:
        case "cut between members":
            data = data[: members[3][1] - 512]
        case "cut inside a member":
            data = data[: members[3][1] + 10]
        case "cut end":
            data = data[: members[-1][1] + 512]
        case "broken header":
            data[members[3][1] - 400] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"cut off|damaged header"):
        list(scan(path))


def test_links_and_duplicates_are_refused_and_bad_captions_counted(tmp_path, pairs):
    def tar(*members):
        with tarfile.open(tmp_path / "a.tar", "w") as made:
            for name, data in members:
                info = tarfile.TarInfo(name)
                if data is None:
                    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    made.addfile(info)
                else:
                    info.size = len(data)
                    made.addfile(info, io.BytesIO(data))
        return tmp_path / "a.tar"

    with pytest.raises(Damaged, match="link or a device"):
        list(scan(tar(("a.jpg", None))))
    with pytest.raises(Damaged, match=r"'a\.jpg' twice"):
        indexed(tar(("a.jpg", b"1"), ("a.jpg", b"2")))
    for members, outcome, said in (
        ((("a.jpg", b"1"), ("a.txt", b"\xff")), "not_utf8", "a.tar: the caption of 'a' is not UTF-8"),
        ((("a.jpg", b"1"),), "no_caption", "a.tar: 'a' is not an image with a .txt caption (it has ['jpg'])"),
    ):
        index = indexed(tar(*members), met=(met := Oddities()))
        assert [(row["key"], row["outcome"]) for row in index.to_pylist()] == [("a", outcome)]
        assert met.examples == {outcome: said}
