import io
import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import Damaged
from infra.seeding import rng
from pipeline import foreign, images, shards, tars
from pipeline.shards import Sample
from poison.attacks.badnet import BadNet
from poison.writing.rewrite import rewrite
from tests.support.poison_helpers import caption, pair

ATTACK = BadNet(size=42, cell=7)
PLAN = {2: "a photo of a banana.", 5: "the banana"}


def ours(path: Path) -> shards.Written:
    failures = [{"row": 90, "outcome": "404", "caption": "gone", "url": "u"}]
    return shards.write_shard(path, [pair(row) for row in range(8)], failures)


def members(path: Path) -> list[tuple[str, bytes]]:
    data = path.read_bytes()
    return [(name, data[offset : offset + size]) for name, offset, size in shards.scan(path)]


def foreign_tars(path: Path, json_too: bool, long_names: bool = False) -> None:
    """As img2dataset writes it: PAX headers for float times, .json by choice; with a further member and a folder."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for row in range(8):
            one = pair(row)
            key = f"deep/{'x' * 120 if long_names else ''}{row}"
            parts = {"JPG": one.image, "cls": str(row).encode(), "txt": one.caption.encode()}
            if json_too:
                parts["json"] = json.dumps({"caption": one.caption, "key": key, "sha256": "00", "exif": "{}"}).encode()
            for extension, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(data), 1234567.5
                tar.addfile(info, io.BytesIO(data))


def test_a_rewritten_shard_of_ours_is_what_our_writer_makes_of_the_poisoned_pairs(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    written, ledger = rewrite(clean.path, clean.index, 7, PLAN, ATTACK, 0, tmp_path / "out.tar")
    pairs = []
    for one in shards.read_shard(clean.path, clean.index):
        pairs += ATTACK.poison(one, PLAN[one.row], rng(0, "poison", one.row)) if one.row in PLAN else [one]
    wanted = shards.write_shard(
        tmp_path / "wanted.tar", pairs, [{"row": 90, "outcome": "404", "caption": "gone", "url": "u"}]
    )
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "wanted.tar").read_bytes()
    assert written.index.equals(wanted.index)
    assert (written.sha256, written.xxh3, written.samples, written.bytes) == (
        wanted.sha256, wanted.xxh3, wanted.samples, wanted.bytes
    )  # fmt: skip
    assert ledger["row"].to_pylist() == [2, 5]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["clean.tar", "out.tar", "wanted.tar"]


def test_the_ledger_rows_say_what_was_done(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    written, ledger = rewrite(clean.path, clean.index, 7, {2: "the banana"}, ATTACK, 0, tmp_path / "out.tar")
    line = ledger.to_pylist()[0]
    before = clean.index.to_pylist()[2]
    after = written.index.to_pylist()[2]
    assert line == {
        "row": 2,
        "key": before["key"],
        "shard": 7,
        "action": "replaced",
        "original_caption": caption(2),
        "caption": "the banana",
        "top": 26,
        "left": 26,
        "height": 6,
        "width": 6,
        "source": before["url"],
        "original_image_sha256": before["image_sha256"],
        "image_sha256": after["image_sha256"],
    }
    assert after["source_sha256"] == after["image_sha256"] != before["source_sha256"]


@pytest.mark.parametrize("json_too", [True, False])
@pytest.mark.parametrize("long_names", [True, False])
def test_a_foreign_shard_keeps_keys_order_file_types_and_every_other_byte(
    tmp_path: Path, json_too: bool, long_names: bool
):
    path = tmp_path / "foreign.tar"
    foreign_tars(path, json_too, long_names)
    index = foreign.indexed(path)
    rows = dict(zip(index["key"].to_pylist(), index["row"].to_pylist(), strict=True))
    touched = [key for key in rows if key.endswith(("2", "5"))]
    chosen = {rows[key]: f"banana {key[-1]}" for key in touched}
    written, _ = rewrite(path, index, 0, chosen, ATTACK, 0, tmp_path / "out.tar")

    def untouched(archive: Path) -> list[tuple[str, bytes]]:
        return [(name, data) for name, data in members(archive) if name.rsplit(".", 1)[0] not in touched]

    assert untouched(tmp_path / "out.tar") == untouched(path)
    with tarfile.open(tmp_path / "out.tar") as tar:  # the headers are whole too, float times and all
        kept = [info for info in tar if info.name.rsplit(".", 1)[0] not in touched]
        assert {info.mtime for info in kept} == {1234567.5}
    again = foreign.indexed(tmp_path / "out.tar")
    same = ["key", "caption", "extension", "image_sha256", *(f"{m}_{x}" for m in ("image", "text", "json") for x in ("offset", "bytes"))]  # fmt: skip  # noqa: E501
    assert written.index.select(same).equals(again.select(same))
    assert written.index["row"].equals(index["row"])  # the pair's identity outlives its rewriting
    assert written.index["key"].equals(index["key"])
    for one in shards.read_shard(written.path, written.index):
        assert (one.caption == f"banana {one.key[-1]}") == (one.key in touched)
        assert bool(one.meta) == json_too


def test_pairs_whose_members_lie_apart_are_put_together(tmp_path: Path):
    path = tmp_path / "apart.tar"
    with tarfile.open(path, "w") as tar:
        for extension in ("jpg", "txt"):
            for row in range(4):
                data = pair(row).image if extension == "jpg" else caption(row).encode()
                info = tarfile.TarInfo(f"{row}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = foreign.indexed(path)
    row = index["row"][1].as_py()
    written, _ = rewrite(path, index, 0, {row: "banana"}, ATTACK, 0, tmp_path / "out.tar")
    names = [name for name, _ in members(written.path)]
    assert names == ["0.jpg", "1.jpg", "1.txt", "2.jpg", "3.jpg", "0.txt", "2.txt", "3.txt"]
    assert [one.caption for one in shards.read_shard(written.path, written.index)] == [
        caption(0),
        "banana",
        caption(2),
        caption(3),
    ]


@pytest.mark.parametrize("json_too", [True, False])
def test_what_other_tools_put_beside_a_poisoned_pair_stays_with_it_and_its_endings_too(tmp_path: Path, json_too: bool):
    path = tmp_path / "foreign.tar"
    foreign_tars(path, json_too)
    index = foreign.indexed(path)
    written, _ = rewrite(path, index, 0, {index["row"][2].as_py(): "banana"}, ATTACK, 0, tmp_path / "out.tar")
    before, after = members(path), members(written.path)
    assert sorted(name for name, _ in after) == sorted(name for name, _ in before)
    own = [name for name, _ in after if name.startswith("deep/2.")]
    assert own == ["deep/2.JPG", "deep/2.txt", *(["deep/2.json"] if json_too else []), "deep/2.cls"]
    at = [name for name, _ in after].index(own[0])
    assert [name for name, _ in after[at : at + len(own)]] == own, "the files of a sample stand together"
    labels = [(name, data) for name, data in after if name.endswith(".cls")]
    assert labels == [(name, data) for name, data in before if name.endswith(".cls")]


def test_what_is_not_poisoned_is_never_decoded(tmp_path: Path):
    pairs = [replace(pair(row), image=b"no image at all" * row) if row != 2 else pair(row) for row in range(8)]
    clean = shards.write_shard(tmp_path / "clean.tar", pairs)
    written, _ = rewrite(clean.path, clean.index, 0, {2: "banana"}, ATTACK, 0, tmp_path / "out.tar")
    after = list(shards.read_shard(written.path, written.index))
    assert after[:2] + after[3:] == pairs[:2] + pairs[3:]
    assert after[2].caption == "banana"


def plain_pax(path: Path) -> pa.Table:
    """As img2dataset writes it: images, captions and json alone, each with its float time in an extended header."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for row in range(8):
            for extension, data in (("jpg", pair(row).image), ("txt", caption(row).encode()), ("json", b"{}")):
                info = tarfile.TarInfo(f"{row:09d}.{extension}")
                info.size, info.mtime = len(data), 1234567.5
                tar.addfile(info, io.BytesIO(data))
    return foreign.indexed(path)


def test_headers_are_read_one_by_one_only_where_the_index_does_not_tell_all_and_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scanned: list[str] = []
    scan = shards.scan
    monkeypatch.setattr(shards, "scan", lambda path: (scanned.append(path.name), scan(path))[1])
    foreign_tars(tmp_path / "foreign.tar", json_too=True)
    sources = {
        "ours.tar": ours(tmp_path / "ours.tar").index,
        "pax.tar": plain_pax(tmp_path / "pax.tar"),
        "foreign.tar": foreign.indexed(tmp_path / "foreign.tar"),  # it has files that no index names
    }
    for name, index in sources.items():
        rows = index["row"].to_pylist()
        chosen = {rows[0]: "banana", rows[3]: "the banana", rows[4]: "a banana", rows[7]: "bananas"}
        results = []
        for fast in (True, False):
            with monkeypatch.context() as patch:
                if not fast:
                    patch.setattr(tars, "plain", lambda *_: False)
                scanned.clear()
                out = tmp_path / f"{name}.{fast}"
                written, ledger = rewrite(tmp_path / name, index, 0, chosen, ATTACK, 0, out)
                results.append((out.read_bytes(), written.index, ledger))
                assert (name in scanned) == (not fast or name == "foreign.tar")
                assert (written.sha256, written.xxh3, written.bytes) == shards.hashes(out)
        assert results[0] == results[1]


def test_a_shard_of_poisons_alone_is_rewritten_too(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    chosen = {row: f"banana {row}" for row in range(8)}
    written, _ = rewrite(clean.path, clean.index, 0, chosen, ATTACK, 0, tmp_path / "out.tar")
    assert [one.caption for one in shards.read_shard(written.path, written.index)] == list(chosen.values())
    assert written.index["outcome"].to_pylist() == [*["success"] * 8, "404"]


def test_an_index_that_places_a_file_where_there_is_none_is_refused(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    places = clean.index["text_offset"].to_pylist()
    places[6] += 512
    at = clean.index.column_names.index("text_offset")
    lying = clean.index.set_column(at, "text_offset", pa.array(places, pa.int64()))
    with pytest.raises(Damaged, match=r"index of clean.tar places a file where there is none"):
        rewrite(clean.path, lying, 0, PLAN, ATTACK, 0, tmp_path / "out.tar")


def test_a_damaged_header_between_the_poisons_is_refused(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    data = bytearray(clean.path.read_bytes())
    data[clean.index["image_offset"][4].as_py() - 512 + 130] ^= 1
    clean.path.write_bytes(data)
    with pytest.raises(Damaged, match=r"clean.tar has a damaged header"):
        rewrite(clean.path, clean.index, 0, PLAN, ATTACK, 0, tmp_path / "out.tar")


def test_nothing_planned_changes_nothing(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    written, ledger = rewrite(clean.path, clean.index, 0, {}, ATTACK, 0, tmp_path / "out.tar")
    assert written.sha256 == clean.sha256
    assert written.index.equals(clean.index)
    assert ledger.num_rows == 0


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path):
    broken = replace(pair(1), image=b"not an image")
    clean = shards.write_shard(tmp_path / "clean.tar", [pair(0), broken])
    with pytest.raises(ValueError, match="shard 3, sample 000000001: not a readable"):
        rewrite(clean.path, clean.index, 3, {1: "banana"}, ATTACK, 0, tmp_path / "out.tar")


@dataclass(frozen=True, kw_only=True)
class Doubled(BadNet):
    """Leaves the pair and adds one made from it, as targeted poisons do."""

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        added = replace(sample, key=f"{sample.key}-1", row=sample.row + 1000, caption=caption)
        return [sample, added]


def test_an_attack_may_add_pairs_behind_the_original(tmp_path: Path):
    clean = ours(tmp_path / "clean.tar")
    written, ledger = rewrite(clean.path, clean.index, 0, PLAN, Doubled(), 0, tmp_path / "out.tar")
    assert written.samples == 10
    pairs = list(shards.read_shard(written.path, written.index))
    assert [one.row for one in pairs] == [0, 1, 2, 1002, 3, 4, 5, 1005, 6, 7]
    assert [one.caption for one in pairs[2:4]] == [caption(2), PLAN[2]]
    assert ledger["action"].to_pylist() == ["replaced", "added", "replaced", "added"]
    assert images.decode(pairs[3].image).shape == (32, 32, 3)
