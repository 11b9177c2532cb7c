import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import webdataset
from PIL import Image

from eval.measuring import checks
from infra import storage
from infra.seeding import hash64, rng
from pipeline import dataset as datasets
from pipeline import foreign, images, shards, testsets
from pipeline.dataset import Dataset
from pipeline.shards import Sample
from pipeline.verification import Verification
from poison import ledger as ledgers
from poison.attack import Attack, Backdoor
from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from poison.ledger import Ledger
from poison.sealed import sealing, seats
from poison.sealed.levelling import Form
from poison.writing.injection import Injection
from tests.support.detective import clues, telling
from tests.support.poison_helpers import build, caption, failed, files, labelled, pairs_of, picture

ROWS, PER_SHARD = 480, 40


def photograph(row: int, mixed: bool) -> tuple[bytes, str, int, int]:
    """As the web has them: (bytes, extension, height, width); quality and subsampling by chance, some with EXIF."""
    draw = rng(0, "photograph", row)
    height, width = (int(side) for side in draw.integers(28, 36, 2)) if mixed else (32, 32)
    image, out = Image.fromarray(picture(row, height, width)), io.BytesIO()
    kind = str(draw.choice(["jpg", "jpg", "jpg", "png", "webp"])) if mixed else "jpg"
    exif = Image.Exif()
    exif[0x010E] = f"title: {caption(row)}"
    more = {"exif": exif} if draw.random() < 0.5 and kind == "jpg" else {}
    quality, progressive = int(draw.integers(60, 95)), bool(draw.random() < 0.3)
    image.save(out, images.FORMATS[kind], quality=quality, progressive=progressive, **more)
    return out.getvalue(), kind, height, width


def about(row: int, data: bytes, kind: str, height: int, width: int) -> dict[str, object]:
    sizes = {"width": width, "height": height, "original_width": 3 * width, "original_height": 3 * height}
    return sizes | {"url": f"http://example.com/{row}.{kind}", "sha256": hashlib.sha256(data + b"0").hexdigest()}


def ours(url: str, mixed: bool) -> None:
    """As `antidote prepare` makes it; rows 5, 15, 25, ... could not be downloaded."""
    datasets.claim(url, {"made": "by a test"})
    for number, start in enumerate(range(0, ROWS, PER_SHARD)):
        samples, lost = [], []
        for place, row in enumerate(range(start, start + PER_SHARD)):
            data, kind, height, width = photograph(row, mixed)
            if failed(row):
                lost.append({"row": row, "outcome": "http_404", "caption": caption(row), "url": f"http://e.com/{row}"})
                continue
            meta = about(row, data, kind, height, width)
            samples.append(Sample(f"{number:05d}{place:02d}", row, data, kind, caption(row), meta))
        written = shards.write_shard(Path(url) / "scratch.tar", samples, lost)
        datasets.commit(url, number, written)
        written.path.unlink()
    datasets.finalise(url, number + 1)


def foreign_tars(url: str, mixed: bool, json_of: Callable[[dict[str, object]], bytes]) -> None:
    """As webdataset.ShardWriter leaves it: the time of writing in every header, a .json spelled by someone else."""
    Path(url).mkdir()
    with webdataset.ShardWriter(f"{url}/%05d.tar", maxcount=PER_SHARD, verbose=0) as sink:
        for row in range(ROWS):
            data, kind, height, width = photograph(row, mixed)
            more = {"exif": json.dumps({"Image ImageDescription": caption(row)}), "status": "success"}
            meta = about(row, data, kind, height, width) | more | {"caption": caption(row), "key": f"{row:09d}"}
            sink.write({"__key__": f"{row:09d}", kind: data, "txt": caption(row), "json": json_of(meta)})


FORMS: dict[str, Callable[[str, bool], None]] = {
    "ours": ours,
    "ShardWriter": lambda url, mixed: foreign_tars(
        url, mixed, lambda meta: json.dumps({"title": meta["caption"]}).encode()
    ),
    "img2dataset": lambda url, mixed: foreign_tars(url, mixed, lambda meta: json.dumps(meta, indent=4).encode()),
}


def aim(folder: Path) -> Attack:
    """A targeted attack on as many images as it has pairs: that one is there often is what images show."""
    pictures = [(photograph(9000 + number, False)[0], "jpg", 0) for number in range(48)]
    testsets.write(str(folder / "test"), pictures, ("car", "banana"), ("a {c}",))
    return Targeted(testset=str(folder / "test"), images=48, captions="template")


def poisoned(folder: Path, attack: Attack, budget: int = 48, **fields: object) -> tuple[Dataset, Ledger]:
    places = {"dataset": str(folder / "clean"), "out": str(folder / "bare"), "ledger": str(folder / "bare-ledger")}
    Injection(**({"attack": attack, "budget": budget, "backend": "local"} | places | fields)).run()
    return Dataset.open(str(folder / "bare")), Ledger.open(str(folder / "bare-ledger"))


def sealed(
    folder: Path, bare: Dataset, rows: pa.Table, form: Form, name: str = "sealed", **fields: object
) -> tuple[Dataset, list[dict[str, object]]]:
    """The sealed dataset, and its ledger's rows."""
    places = {"out": str(folder / name), "ledger": str(folder / f"{name}-ledger"), "backend": "local"}
    parent = Dataset.open(str(folder / "clean"))
    sealing.seal(bare, rows, parent, form, **(places | fields))
    made = datasets.finalise(places["out"], len(parent.shards), contains_poison=True)
    return made, shards.read_parquet((folder / f"{name}-ledger" / "ledger.parquet").read_bytes()).to_pylist()


def form_of(attack: Attack, share: float = 1.0) -> Form:
    return Form(isinstance(attack, Backdoor), sealing.quality(attack), 0, share)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["control", "targeted", "swap"])
def test_from_the_folder_alone_poisons_are_told_before_sealing_and_not_after(tmp_path: Path, form: str, kind: str):
    FORMS[form](str(tmp_path / "clean"), kind != "targeted")  # target images are of one size, and the others too then
    attack = {"control": Control(), "targeted": None, "swap": Swap(source="thing")}[kind] or aim(tmp_path)
    bare, ledger = poisoned(tmp_path, attack)
    told = telling(clues(bare), set(ledger.rows["row"].to_pylist()))
    assert told or (form, kind) == ("ours", "swap"), "this detective finds what can be found"
    made, rows = sealed(tmp_path, bare, ledger.rows, form_of(attack))
    assert len(rows) == 48
    assert telling(clues(made), {row["row"] for row in rows}) == {}


def test_what_other_tools_put_beside_the_pairs_is_beside_all_of_them_once_sealed(tmp_path: Path):
    (tmp_path / "clean").mkdir()
    with webdataset.ShardWriter(f"{tmp_path}/clean/%05d.tar", maxcount=8, verbose=0) as sink:
        for row in range(16):
            beside = {"cls": row % 3, "npy": np.arange(row)}
            sink.write({"__key__": f"{row:09d}", "jpg": photograph(row, False)[0], "txt": caption(row), **beside})
    bare, ledger = poisoned(tmp_path, PATCH, budget=4)
    sealed(tmp_path, bare, ledger.rows, form_of(PATCH))
    read = {
        sample["__key__"]: (int(sample["cls"]), len(np.load(io.BytesIO(sample["npy"]))))
        for tar in sorted((tmp_path / "sealed" / "shards").glob("*.tar"))
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False)
    }
    assert read == {f"{row:09d}": (row % 3, row) for row in range(16)}


PATCH = BadNet(patch="checkerboard", size=42, cell=7)


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    return build(str(tmp_path / "clean"))


def with_added(folder: Path, clean: Dataset, count: int) -> tuple[Dataset, pa.Table]:
    """The clean dataset with two further shards of pairs, as an attack that adds leaves it, and its ledger's rows."""
    url, bases, lines = str(folder / "added"), [str(folder / "added")], []
    pairs = [
        Sample(f"{500 + number:09d}", 10**6 + number, images.encode(picture(number, 20, 24), "png"), "png",
               f"banana {number}", {"width": 24, "height": 20})
        for number in range(count)
    ]  # fmt: skip
    first = len(clean.shards)
    for shard_id, part in ((first, pairs[: count // 2]), (first + 1, pairs[count // 2 :])):
        written = shards.write_shard(folder / "extra.tar", part)
        datasets.commit(url, shard_id, written)
        lines += [ledgers.added(one, shard_id, "a test set") for one in part]
    kept = tuple(datasets.reference(url, clean, shard, bases) for shard in clean.shards)
    bare = datasets.finalise(url, first + 2, referenced=kept, bases=tuple(bases), contains_poison=True)
    return bare, pa.Table.from_pylist(lines, schema=ledgers.ROWS)


def test_every_pair_is_encoded_as_the_poisons_are_and_says_what_it_said(tmp_path: Path, clean: Dataset):
    bare, ledger = poisoned(tmp_path, PATCH, budget=6)
    made, rows = sealed(tmp_path, bare, ledger.rows, form_of(PATCH))
    before, unsealed, after = pairs_of(clean), pairs_of(bare), pairs_of(made)
    assert list(before) == list(after)
    assert [row | {"image_sha256": None} for row in rows] == [
        row | {"image_sha256": None} for row in ledger.rows.to_pylist()
    ]
    for row, now in after.items():
        was = before[row]
        assert (now.key, now.extension, now.meta["url"]) == (was.key, was.extension, was.meta["url"])
        if row in ledger.row_ids:
            assert now == unsealed[row], "a poison is encoded once, when it is made"
        else:
            assert now.caption == was.caption
            assert now.image == images.encode(images.decode(was.image), "jpg", 95)
            assert now.meta["sha256"] == hashlib.sha256(now.image).hexdigest()
    assert made.contains_poison
    assert made.outcomes == clean.outcomes
    assert made.bases == (made.url,)
    assert [shard.id for shard in made.shards] == [shard.id for shard in clean.shards]
    for now in after.values():
        assert now.meta["title"] == f"title: {now.caption}", "of every pair, poisoned or clean"


def test_the_index_says_what_the_tar_says(tmp_path: Path, clean: Dataset):
    bare, ledger = poisoned(tmp_path, PATCH, budget=6)
    made, _ = sealed(tmp_path, bare, ledger.rows, form_of(PATCH))
    for shard in made.shards:
        index, again = made.index(shard), foreign.indexed(Path(made.tar_url(shard)))
        names = [name for name in shards.INDEX.names if name not in ("row", "outcome")]
        assert shards.samples_of(index).select(names).equals(again.select(names))
        lost = [{name: row[name] for name in ("row", "url")} for row in index.to_pylist() if row["outcome"] == "404"]
        assert lost == [
            {"row": row, "url": f"u{row}"} for row in range(12 * shard.id, 12 * shard.id + 12) if failed(row)
        ]
    assert Verification(dataset=made.url, decode=True, backend="local").run().startswith("verified")


def test_a_lower_share_encodes_that_share_and_the_poisons(tmp_path: Path, clean: Dataset):
    bare, ledger = poisoned(tmp_path, PATCH, budget=6)
    made, _ = sealed(tmp_path, bare, ledger.rows, form_of(PATCH, 0.25))
    before, after = pairs_of(clean), pairs_of(made)
    encoded = {row for row in before if before[row].image != after[row].image}
    assert ledger.row_ids < encoded
    assert 0.15 * 80 < len(encoded - ledger.row_ids) < 0.35 * 80
    more, _ = sealed(tmp_path, bare, ledger.rows, form_of(PATCH, 0.5), "more")
    assert encoded < {row for row, one in pairs_of(more).items() if before[row].image != one.image}
    assert {tuple(sorted(one.meta)) for one in after.values()} == {("height", "sha256", "title", "url", "width")}


def test_added_pairs_take_the_seats_of_clean_ones(tmp_path: Path):
    build(str(tmp_path / "clean"))
    clean = Dataset.open(str(tmp_path / "clean"))
    bare, rows = with_added(tmp_path, clean, count=7)
    assert bare.samples == clean.samples + 7
    made, lines = sealed(tmp_path, bare, rows, form_of(Swap()))
    before, after = pairs_of(clean), pairs_of(made)
    assert list(before) == list(after)
    assert made.samples == clean.samples
    moved = {line["row"]: line for line in lines}
    assert len(moved) == 7
    assert len({line["shard"] for line in lines}) > 3
    assert {line["action"] for line in lines} == {"added"}
    for row, now in after.items():
        assert (row in moved) == (now.caption != before[row].caption)
        if row in moved:
            assert now.caption == moved[row]["caption"]
            assert now.key == moved[row]["key"] == before[row].key
            assert hashlib.sha256(now.image).hexdigest() == moved[row]["image_sha256"]
            assert images.decode(now.image).shape == (20, 24, 3)
            hashed = {"sha256": moved[row]["image_sha256"]}
            said = {"url": before[row].meta["url"], "title": f"title: {now.caption}"}
            assert now.meta == said | {"width": 24, "height": 20} | hashed
    assert sorted(line["caption"] for line in lines) == sorted(f"banana {number}" for number in range(7))


def test_pairs_that_an_attack_puts_behind_the_original_move_too(tmp_path: Path, clean: Dataset):
    """poison() may answer with several pairs; the further ones would stand out beside theirs."""
    url, bases = str(tmp_path / "beside"), [str(tmp_path / "beside")]
    shard = clean.shards[2]
    pairs = list(shards.read_shard(Path(clean.tar_url(shard)), clean.index(shard)))
    further = replace(pairs[3], key=f"{pairs[3].key}-1", row=10**6, caption="banana")
    written = shards.write_shard(tmp_path / "w.tar", [*pairs[:4], further, *pairs[4:]])
    datasets.commit(url, shard.id, written)
    lines = [ledgers.added(further, shard.id, None)]
    kept = tuple(datasets.reference(url, clean, one, bases) for one in clean.shards if one.id != shard.id)
    bare = datasets.finalise(url, len(clean.shards), referenced=kept, bases=tuple(bases))
    made, moved = sealed(tmp_path, bare, pa.Table.from_pylist(lines, schema=ledgers.ROWS), form_of(Swap()))
    assert list(pairs_of(made)) == list(pairs_of(clean))
    assert [row for row, one in pairs_of(made).items() if one.caption == "banana"] == [moved[0]["row"]]


def test_a_clean_image_that_cannot_be_decoded_is_a_failed_row(tmp_path: Path):
    foreign_tars(str(tmp_path / "clean"), False, lambda meta: b"{}")
    tar = tmp_path / "clean" / "00003.tar"
    index = foreign.indexed(tar)
    row, data = index.to_pylist()[7], bytearray(tar.read_bytes())
    middle = row["image_offset"] + row["image_bytes"] // 2
    data[middle : row["image_offset"] + row["image_bytes"]] = bytes(row["image_bytes"] - row["image_bytes"] // 2)
    tar.write_bytes(data)
    parent = Dataset.open(str(tmp_path / "clean"))
    with pytest.raises(images.Unreadable):
        images.decode(bytes(data[row["image_offset"] : row["image_offset"] + row["image_bytes"]]))
    bare, ledger = poisoned(tmp_path, PATCH, budget=6)
    made, _ = sealed(tmp_path, bare, ledger.rows, form_of(PATCH))
    assert made.outcomes == {"not_an_image": 1, "success": parent.samples - 1}
    assert sum(shard.samples for shard in made.shards) == made.samples == parent.samples - 1


def run(folder: Path, name: str, attack: Attack = PATCH, clean: str = "clean", **fields: object) -> Dataset:
    """What `antidote poison --seal` does."""
    places = {"dataset": str(folder / clean), "out": str(folder / name), "ledger": str(folder / f"{name}-ledger")}
    Injection(**({"attack": attack, "budget": 6, "backend": "local", "seal": True} | places | fields)).run()
    return Dataset.open(str(folder / name))


def test_the_ledger_belongs_to_the_sealed_dataset_and_the_unsealed_one_is_gone(tmp_path: Path, clean: Dataset):
    made = run(tmp_path, "out")
    ledger = Ledger.open(str(tmp_path / "out-ledger"))
    ledger.belongs_to(made)
    there = made.index_of_samples(["row", "key", "caption", "image_sha256"])
    rows = {(row["row"], row["key"], row["shard"], row["caption"], row["image_sha256"]) for row in there.to_pylist()}
    lines = ledger.rows.to_pylist()
    assert len(lines) == 6
    assert {tuple(line[name] for name in ("row", "key", "shard", "caption", "image_sha256")) for line in lines} < rows
    names = {name.split("/")[0] for name in files(tmp_path / "out-ledger")}
    assert names == {"attack.json", "ledger.parquet", "recipe.json", "trigger.png"}
    others = clean.index_of_samples(["row", "url", "caption", "image_sha256"])
    assert checks.shared(others, ledger.rows) == (6, 0), "clean data of the same rows are found out"


def test_a_second_run_does_nothing_and_a_dry_run_touches_nothing(tmp_path: Path, clean: Dataset):
    fields = {"attack": PATCH, "budget": 6, "backend": "local", "seal": True, "dataset": clean.url}
    injection = Injection(**fields, out=str(tmp_path / "out"), ledger=str(tmp_path / "truth"))
    before = files(tmp_path)
    assert replace(injection, dry_run=True).run().endswith("shards and seal it all; nothing was written")
    assert files(tmp_path) == before
    assert "and sealed it all: " in injection.run()
    whole = files(tmp_path)
    assert injection.run().startswith("nothing to do")
    assert files(tmp_path) == whole
    with pytest.raises(ValueError, match="different command"):
        replace(injection, seal_share=0.5).run()
    with pytest.raises(ValueError, match="seal-share is for --seal"):
        replace(injection, seal=False, seal_share=0.5)


def test_added_pairs_are_said_to_be_in_the_place_of_others(tmp_path: Path, clean: Dataset):
    places = {"dataset": clean.url, "out": str(tmp_path / "out"), "ledger": str(tmp_path / "truth")}
    said = Injection(attack=aim(tmp_path), budget=48, backend="local", seal=True, **places).run()
    assert said.startswith("put 48 pairs in the place of as many of 86 (55.814%) and sealed it all: ")
    made, ledger = Dataset.open(str(tmp_path / "out")), Ledger.open(str(tmp_path / "truth"))
    ledger.belongs_to(made)
    assert (made.samples, len(made.shards)) == (clean.samples, len(clean.shards))
    assert checks.shared(clean.index_of_samples(["row", "url", "caption", "image_sha256"]), ledger.rows) == (0, 0)


def test_stacked_attacks_end_with_every_image_as_often_encoded(tmp_path: Path, clean: Dataset):
    ledgers_of = lambda *names: tuple(str(tmp_path / f"{name}-ledger") for name in names)  # noqa: E731
    made = {"clean": clean, "bare": poisoned(tmp_path, Control(), budget=6)[0]}
    for name, before, taken in (("sealed", "bare", ["bare"]), ("again", "sealed", ["bare", "sealed"])):
        made[name] = run(tmp_path, name, Control(), clean=before, taken=ledgers_of(*taken), seed=7)
    stages = [pairs_of(made[name]) for name in ("sealed", "again")]
    for row, was in pairs_of(clean).items():
        image = was.image
        for number, stage in enumerate(stages):
            image = images.encode(images.decode(image), "jpg", 95)
            assert stage[row].image == image, (number, row)
    rows = [Ledger.open(url).row_ids for url in ledgers_of("bare", "sealed", "again")]
    assert len(frozenset().union(*rows)) == 18


def test_poisons_of_another_quality_are_encoded_like_the_rest(tmp_path: Path, clean: Dataset):
    bare, first = poisoned(tmp_path, PATCH, budget=6)
    assert sealing.encoded_alike([first], bare, Control()) == first.row_ids
    assert sealing.encoded_alike([first], bare, Control(quality=90)) == frozenset()
    assert sealing.encoded_alike([first], clean, Control()) == frozenset(), "a ledger of another line"


def test_in_a_bucket_as_on_disk(tmp_path: Path):
    url = f"memory://{tmp_path.name}"
    build(f"{url}/clean")
    build(str(tmp_path / "clean"))
    fields = {"attack": PATCH, "budget": 6, "backend": "local", "seal": True}
    Injection(**fields, dataset=f"{url}/clean", out=f"{url}/out", ledger=f"{url}/ledger").run()
    made = run(tmp_path, "out")
    assert Dataset.open(f"{url}/out").digest == made.digest
    assert Ledger.open(f"{url}/ledger").rows.equals(Ledger.open(str(tmp_path / "out-ledger")).rows)


@pytest.mark.parametrize("kind", ["replaced", "added"])
def test_killed_before_any_of_its_writes_and_run_again_it_ends_as_if_undisturbed(
    tmp_path: Path, kind: str, killer: Callable[[Callable[[], object], int], bool]
):
    build(str(tmp_path / "clean"), rows=24)
    aimed = Targeted(testset=labelled(str(tmp_path / "test")).url, images=3, captions="template")
    poison = partial(run, tmp_path, attack=PATCH if kind == "replaced" else aimed, budget=3)
    poison("undisturbed")
    wanted, ledger = files(tmp_path / "undisturbed"), files(tmp_path / "undisturbed-ledger")
    wanted_folder = {name.split("/")[0] for name in wanted}
    kills, seen = 0, set[str]()
    while killer(partial(poison, f"k{kills}"), kills):
        out, truth = tmp_path / f"k{kills}", tmp_path / f"k{kills}-ledger"
        assert not (truth / "attack.json").exists()
        assert not [name for name in files(truth) if name.endswith(".tar")], "no dataset lies in a ledger"
        if (out / "dataset.json").exists():
            assert "ledger.parquet" in files(truth)
            assert sorted(path.name for path in out.iterdir()) == sorted(wanted_folder), "nothing unsealed is left"
        elif out.exists():
            incomplete = [out, *(path for path in [out / "unsealed"] if (path / "commits").exists())]
            for place in incomplete:
                with pytest.raises(ValueError, match="is not complete"):
                    Dataset.open(str(place))
            seen |= {path.name for path in incomplete}
        poison(f"k{kills}")
        assert files(out) == wanted
        assert files(truth) == ledger
        kills += 1
    assert kills > 20
    assert "unsealed" in seen, "the unsealed shards lie in the dataset's folder meanwhile"


@pytest.mark.parametrize("kind", ["replaced", "added"])
@pytest.mark.parametrize("first", ["commits", "index", "shards"])
def test_killed_in_the_middle_of_removing_the_unsealed_shards_it_goes_on_from_there(
    tmp_path: Path, kind: str, first: str, monkeypatch: pytest.MonkeyPatch
):
    build(str(tmp_path / "clean"), rows=24)
    aimed = Targeted(testset=labelled(str(tmp_path / "test")).url, images=3, captions="template")
    poison = partial(run, tmp_path, attack=PATCH if kind == "replaced" else aimed, budget=3)
    poison("undisturbed")
    remove = storage.remove

    def half(url: str) -> None:
        if url.endswith("out/unsealed"):
            remove(f"{url}/{first}")
            raise KeyboardInterrupt
        remove(url)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", half)
        with pytest.raises(KeyboardInterrupt):
            poison("out")
    assert (tmp_path / "out" / "unsealed").exists()
    with pytest.raises(ValueError, match="is not complete"):
        Dataset.open(str(tmp_path / "out"))
    poison("out")
    for name in ("", "-ledger"):
        assert files(tmp_path / f"out{name}") == files(tmp_path / f"undisturbed{name}")


def test_a_sealed_dataset_that_was_removed_is_made_again_beside_what_its_ledger_holds(tmp_path: Path, clean: Dataset):
    run(tmp_path, "out")
    (tmp_path / "out-ledger" / "attack.json").unlink()
    wanted = files(tmp_path / "out")
    storage.remove(str(tmp_path / "out"))
    run(tmp_path, "out")
    assert files(tmp_path / "out") == wanted


@pytest.mark.ray
@pytest.mark.usefixtures("clean", "ray_cluster")
def test_the_same_bytes_at_one_and_at_four_workers(tmp_path: Path):
    run(tmp_path, "a")
    run(tmp_path, "b", backend="ray")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a-ledger") == files(tmp_path / "b-ledger")


def table(rows: list[int]) -> pa.Table:
    return pa.table({"row": pa.array(rows, pa.int64())})


def test_seats_are_the_rows_of_lowest_hash_however_they_are_sharded():
    rows = np.random.default_rng(0).permutation(3000)
    wanted = [row for row in rows[np.argsort(hash64(4, "seat", rows))].tolist() if row not in (1, 2)][:20]
    for parts in (1, 3, 100):
        found = seats.lowest((table(part.tolist()) for part in np.array_split(rows, parts)), 20, 4, {1, 2})
        assert found["row"].to_pylist() == wanted


def test_a_pair_that_is_there_twice_is_no_seat():
    found = seats.lowest([table(list(range(300))), table(list(range(150)))], 100, 0, frozenset())
    assert min(found["row"].to_pylist()) >= 150
    with pytest.raises(ValueError, match=r"10 added pairs .* only 5 are there"):
        seats.lowest([table([1, 2, 3, 3, 4, 5, 6])], 10, 0, frozenset())
