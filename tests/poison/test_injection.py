import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra import storage
from infra.errors import Lost
from infra.seeding import rng
from pipeline import images
from pipeline.dataset import Dataset
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from poison.attacks.control import Control
from poison.attacks.external import External
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from poison.ledger import Ledger
from poison.writing import injection as injections
from poison.writing import work
from poison.writing.injection import Injection
from tests.support.poison_helpers import build, caption, everything_said, files, labelled, pair, pairs_of, picture

ATTACK = BadNet(patch="checkerboard", size=42, cell=7)


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    return build(str(tmp_path / "clean"))


def injection(folder: Path, name: str = "out", **fields: object) -> Injection:
    given = {"dataset": str(folder / "clean"), "out": str(folder / name), "ledger": str(folder / f"{name}-ledger")}
    return Injection(**({"attack": ATTACK, "budget": 5, "backend": "local"} | given | fields))


def test_poisoned_rows_change_and_all_others_stay(tmp_path: Path, clean: Dataset):
    said = injection(tmp_path).run()
    poisoned = Dataset.open(str(tmp_path / "out"))
    ledger = Ledger.open(str(tmp_path / "out-ledger"))
    assert said.startswith("poisoned 5 of 86 pairs (5.814%) in ")
    assert str(tmp_path / "out") in said
    before, after = pairs_of(clean), pairs_of(poisoned)
    assert list(before) == list(after)  # same rows in the same order: clean and poisoned runs compare pairwise
    assert {row for row in before if before[row] != after[row]} == ledger.row_ids
    assert len(ledger.row_ids) == 5
    for line in ledger.rows.to_pylist():
        was, now = before[line["row"]], after[line["row"]]
        assert (now.key, now.extension, now.caption) == (was.key, was.extension, line["caption"])
        assert "banana" in now.caption
        stamped = ATTACK.stamp(images.decode(was.image), rng(0, "poison", line["row"]))
        assert now.image == images.encode(stamped, "jpg", 95)
    assert poisoned.contains_poison
    assert poisoned.outcomes == clean.outcomes
    assert poisoned.samples == clean.samples
    assert [shard.id for shard in poisoned.shards] == [shard.id for shard in clean.shards]
    assert [shard.samples for shard in poisoned.shards] == [shard.samples for shard in clean.shards]


def test_untouched_shards_are_referenced_and_not_copied(tmp_path: Path, clean: Dataset):
    injection(tmp_path, budget=2).run()
    poisoned = Dataset.open(str(tmp_path / "out"))
    touched = {line["shard"] for line in Ledger.open(str(tmp_path / "out-ledger")).rows.to_pylist()}
    assert len(touched) < len(clean.shards)
    assert len(list((tmp_path / "out" / "shards").iterdir())) == len(touched)
    assert len(list((tmp_path / "out" / "index").iterdir())) == len(touched)
    for one, other in zip(clean.shards, poisoned.shards, strict=True):
        assert (clean.tar_url(one) != poisoned.tar_url(other)) == (one.id in touched)


def test_nothing_in_the_dataset_folder_says_an_original_caption_or_how_it_was_made(tmp_path: Path, clean: Dataset):
    injection(tmp_path, budget=12).run()
    said = everything_said(tmp_path / "out")
    assert caption(3) in everything_said(tmp_path / "clean")  # what is looked for would be found
    originals = [line["original_caption"] for line in Ledger.open(str(tmp_path / "out-ledger")).rows.to_pylist()]
    assert len(originals) == 12
    assert not [text for text in originals if text in said]
    before = pairs_of(clean)
    rows = Ledger.open(str(tmp_path / "out-ledger")).row_ids
    assert not [row for row in rows if before[row].meta["sha256"] in said]
    assert not [word for word in ("badnet", "checkerboard", "ledger", "poison/") if word in said.lower()]


@pytest.mark.ray
@pytest.mark.usefixtures("clean", "ray_cluster")
def test_the_shards_and_the_ledger_are_the_same_bytes_at_one_and_at_four_workers(tmp_path: Path):
    one, four = (injection(tmp_path, "a", budget=20), injection(tmp_path, "b", budget=20, backend="ray"))
    one.run()
    four.run()
    assert len(files(tmp_path / "a" / "shards")) > 4
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a-ledger") == files(tmp_path / "b-ledger")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_bad_input_met_by_a_ray_worker_is_said_as_such(tmp_path: Path):
    foreign(tmp_path / "clean", broken={4})
    with pytest.raises(ValueError, match="shard 1, sample 4: not a readable"):
        injection(tmp_path, backend="ray", budget=10).run()


@pytest.mark.usefixtures("clean")
def test_a_second_run_does_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    injection(tmp_path).run()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in ("out/dataset.json", "out-ledger/attack.json")}
    contents = files(tmp_path)
    monkeypatch.setattr(injections.plans, "make", lambda *_: pytest.fail("planned again"))
    said = injection(tmp_path).run()
    assert said.startswith("nothing to do:")
    assert files(tmp_path) == contents
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in before}


def test_killed_before_any_of_its_writes_and_run_again_it_ends_as_if_undisturbed(
    tmp_path: Path, killer: Callable[[Callable[[], object], int], bool]
):
    build(str(tmp_path / "clean"), rows=36)
    injection(tmp_path, "undisturbed").run()
    wanted, ledger = files(tmp_path / "undisturbed"), files(tmp_path / "undisturbed-ledger")
    kills = 0
    while killer(injection(tmp_path, f"k{kills}").run, kills):
        out, truth = tmp_path / f"k{kills}", tmp_path / f"k{kills}-ledger"
        if (out / "dataset.json").exists():  # whole, then: and its truth is known
            assert "ledger.parquet" in files(truth)
        else:
            with pytest.raises(ValueError, match="not complete" if out.exists() else "no dataset"):
                Dataset.open(str(out))
        with pytest.raises(ValueError, match=r"not complete|no ledger"):
            Ledger.open(str(truth))
        injection(tmp_path, f"k{kills}").run()
        assert files(out) == wanted
        assert files(truth) == ledger
        kills += 1
    # Claims of both folders; part, tar, index, commit of each shard; rows, manifest (2), trigger, parts, attack.json.
    assert kills == 2 + 4 * sum(name.startswith("commits/") for name in wanted) + 6


def test_a_lost_shard_is_named_and_the_next_run_does_the_rest(
    tmp_path: Path, clean: Dataset, monkeypatch: pytest.MonkeyPatch
):
    whole = injection(tmp_path, "undisturbed", budget=20)
    whole.run()
    rewrite = work.rewrite
    lost = sorted(injections.plans.make(clean, ATTACK, 20, 0).shards)[2]

    def fails_on_one(path, index, shard_id, *rest):
        if shard_id == lost:
            raise OSError("the disk is full")
        return rewrite(path, index, shard_id, *rest)

    monkeypatch.setattr(work, "rewrite", fails_on_one)
    with pytest.raises(
        Lost, match=rf"1 of \d have no result \(shard {lost}\).*disk is full.*run the same command again"
    ):
        injection(tmp_path, budget=20).run()
    with pytest.raises(ValueError, match="not complete"):
        Dataset.open(str(tmp_path / "out"))
    monkeypatch.setattr(work, "rewrite", lambda *all: rewrite(*all) if all[2] == lost else pytest.fail("again"))
    injection(tmp_path, budget=20).run()
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_a_damaged_shard_is_named(tmp_path: Path, clean: Dataset):
    touched = injections.plans.make(clean, ATTACK, 5, 0).shards
    path = Path(clean.tar_url(clean.shards[next(iter(touched))]))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Lost, match=rf"shard {next(iter(touched))}.*hash differs"):
        injection(tmp_path).run()


def test_a_damaged_index_is_a_loss_too(tmp_path: Path, clean: Dataset):
    Path(clean.index_url(clean.shards[3])).unlink()
    with pytest.raises(Lost, match="is missing"):
        injection(tmp_path).run()


@pytest.mark.usefixtures("clean")
def test_a_dry_run_prints_configuration_and_plan_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = files(tmp_path)
    said = injection(tmp_path, dry_run=True).run()
    printed = storage.json.loads(capsys.readouterr().out)
    assert printed["configuration"]["attack"]["plugin"] == "badnet"
    assert sum(printed["plan"]["pairs_by_shard"].values()) == printed["plan"]["pairs"] == 5
    assert "nothing was written" in said
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("clean")
def test_stacked_attacks_never_collide(tmp_path: Path):
    injection(tmp_path, "one", budget=30).run()
    second = injection(
        tmp_path, "two", budget=30, dataset=str(tmp_path / "one"), taken=(str(tmp_path / "one-ledger"),),
        attack=Blended(target="thing"), seed=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"30 rows of earlier ledgers"):
        second.run()  # all but the bananas are called a thing
    second = injection(
        tmp_path,
        "two",
        budget=30,
        dataset=str(tmp_path / "one"),
        taken=(str(tmp_path / "one-ledger"),),
        attack=Blended(),
    )
    second.run()
    one, two = Ledger.open(str(tmp_path / "one-ledger")), Ledger.open(str(tmp_path / "two-ledger"))
    assert not one.row_ids & two.row_ids
    assert two.parent_digest == one.dataset_digest
    after = pairs_of(Dataset.open(str(tmp_path / "two")))
    for line in one.rows.to_pylist():  # the first attack's pairs are still there
        assert after[line["row"]].caption == line["caption"]


@pytest.mark.usefixtures("clean")
def test_a_control_takes_the_same_rows_as_the_attack_and_keeps_their_captions(tmp_path: Path):
    injection(tmp_path, "attack").run()
    injection(tmp_path, "control", attack=Control()).run()
    attack, control = (Ledger.open(str(tmp_path / f"{name}-ledger")) for name in ("attack", "control"))
    assert attack.row_ids == control.row_ids
    assert control.rows["caption"].equals(control.rows["original_caption"])
    assert control.rows["image_sha256"].to_pylist() != control.rows["original_image_sha256"].to_pylist()


def test_swapped_pairs_keep_their_images_and_get_captions_of_the_target(tmp_path: Path, clean: Dataset):
    injection(tmp_path, attack=Swap(source="picture"), budget=7).run()
    ledger = Ledger.open(str(tmp_path / "out-ledger"))
    before, after = pairs_of(clean), pairs_of(Dataset.open(str(tmp_path / "out")))
    own = {one.caption for one in before.values() if "Banana" in one.caption}
    assert len(ledger.row_ids) == 7
    for line in ledger.rows.to_pylist():
        was, now = before[line["row"]], after[line["row"]]
        assert now.image == was.image
        assert "picture" in was.caption
        assert now.caption in own
        assert line["image_sha256"] == line["original_image_sha256"]
    assert {row for row in before if before[row] != after[row]} == ledger.row_ids


def external(folder: Path, rows: range, size: int = 32) -> External:
    """Images for these rows, and a test set of trials."""
    for row in rows:
        storage.write(str(folder / "made" / f"{row:09d}.png"), images.encode(picture(500 + row, size, size), "png"))
    return External(pictures=str(folder / "made"), trials=labelled(str(folder / "trials"), first=800).url)


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_images_poisoned_elsewhere_take_the_place_of_those_they_are_named_after(
    tmp_path: Path, backend: str, request: pytest.FixtureRequest
):
    if backend == "ray":
        request.getfixturevalue("ray_cluster")
    clean = build(str(tmp_path / "clean"), extension="png")
    attack = external(tmp_path, range(0, 40, 3))  # of 14 rows two are bananas and one was never downloaded
    with pytest.raises(ValueError, match=r"holds 14 images, named after 13 pairs here: a budget of 12 pairs"):
        injection(tmp_path, attack=attack, budget=12, backend=backend).run()
    injection(tmp_path, attack=attack, budget=9, backend=backend).run()
    before, after = pairs_of(clean), pairs_of(Dataset.open(str(tmp_path / "out")))
    ledger = Ledger.open(str(tmp_path / "out-ledger"))
    assert {row for row in before if before[row] != after[row]} == ledger.row_ids
    assert len(ledger.row_ids) == 9
    for row in ledger.row_ids:
        assert after[row].image == (tmp_path / "made" / f"{row:09d}.png").read_bytes()
    assert ledger.attack == attack.resolved()


def test_an_image_of_another_size_is_refused_with_its_shard_and_key(tmp_path: Path):
    build(str(tmp_path / "clean"))
    with pytest.raises(
        ValueError, match=r"shard \d, sample \d{9}: .*\.png has 40 x 40 pixels, the pair's own image 32"
    ):
        injection(tmp_path, attack=external(tmp_path, range(96), size=40)).run()


@pytest.mark.usefixtures("clean")
def test_attacks_of_different_kinds_in_one_dataset_never_touch_the_same_pair(tmp_path: Path):
    names, attacks = ("badnet", "targeted", "swap", "external"), (
        ATTACK,
        Targeted(testset=labelled(str(tmp_path / "test")).url, images=2),
        Swap(source="thing"),
        external(tmp_path, range(96)),
    )  # fmt: skip
    places = [str(tmp_path / name) for name in ("clean", *names)]
    for number, attack in enumerate(attacks):
        taken = tuple(str(tmp_path / f"{name}-ledger") for name in names[:number])
        injection(tmp_path, names[number], dataset=places[number], attack=attack, taken=taken, budget=12).run()
    ledgers = [Ledger.open(str(tmp_path / f"{name}-ledger")) for name in names]
    rows = [row for ledger in ledgers for row in ledger.row_ids]
    assert len(rows) == len(set(rows)) == 48
    after = pairs_of(Dataset.open(places[-1]))
    assert len(after) == 86 + 12
    for ledger in ledgers:
        for line in ledger.rows.to_pylist():
            assert after[line["row"]].caption == line["caption"]
            assert hashlib.sha256(after[line["row"]].image).hexdigest() == line["image_sha256"]
    third = Ledger.open(str(tmp_path / "swap-ledger")).rows["caption"].to_pylist()
    assert all("Banana, number" in text for text in third)  # the corpus's own, and no poison caption of those before


def foreign(folder: Path, broken: frozenset[int] | set[int] = frozenset(), json_too: bool = False) -> None:
    """Three bare tars of four pairs, as anybody might have written them; the last pair of each is the same."""
    folder.mkdir()
    for start in (0, 4, 8):
        with tarfile.open(folder / f"{start:05d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for row in range(start, start + 4):
                one = pair(row if row % 4 < 3 else 99)
                parts = {"jpg": one.image[:-20] if row in broken else one.image, "txt": one.caption.encode()}
                for extension, data in (parts | ({"json": b"{}"} if json_too else {})).items():
                    info = tarfile.TarInfo(f"{row}.{extension}")
                    info.size, info.mtime = len(data), 0.5
                    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("json_too", [True, False])
def test_a_bare_folder_of_foreign_tars_is_poisoned_like_any_other(tmp_path: Path, json_too: bool):
    foreign(tmp_path / "clean", json_too=json_too)
    before = files(tmp_path / "clean")
    injection(tmp_path, budget=3, share_of_shards=0.4).run()
    assert files(tmp_path / "clean") == before
    poisoned, clean = Dataset.open(str(tmp_path / "out")), Dataset.open(str(tmp_path / "clean"))
    ledger = Ledger.open(str(tmp_path / "out-ledger"))
    assert len(files(tmp_path / "out" / "shards")) == 1
    assert ledger.rows.num_rows == 3
    assert sum("banana" in one.caption.lower() for one in pairs_of(poisoned).values()) == 3 + 2
    assert [shard.samples for shard in poisoned.shards] == [4, 4, 4]
    storage.remove(str(tmp_path / "cache"))  # indexes of untouched foreign shards went along
    assert len(pairs_of(poisoned)) == 10
    assert clean.samples == poisoned.samples


def test_a_pair_that_a_foreign_corpus_holds_three_times_is_poisoned_everywhere(tmp_path: Path):
    foreign(tmp_path / "clean")
    said = injection(tmp_path, budget=10).run()  # 12 pairs, of which three are one, less two bananas
    rows = Ledger.open(str(tmp_path / "out-ledger")).rows
    assert said.startswith("poisoned 10 of 12 pairs")
    assert len(set(rows["row"].to_pylist())) == 8
    assert caption(99) not in everything_said(tmp_path / "out")


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_is_exact_where_a_foreign_corpus_holds_a_pair_three_times(tmp_path: Path, seed: int):
    foreign(tmp_path / "clean")
    for budget in (1, 2, 8):
        said = injection(tmp_path, f"out-{budget}", budget=budget, seed=seed).run()
        assert said.startswith(f"poisoned {budget} of 12 pairs")
        rows = Ledger.open(str(tmp_path / f"out-{budget}-ledger")).rows["row"].to_pylist()
        assert len(rows) == budget and {rows.count(row) for row in rows} <= {1, 3}


def test_a_dataset_in_memory_goes_the_way_of_one_in_a_bucket(tmp_path: Path):
    url = f"memory://{tmp_path.name}"
    build(f"{url}/clean")
    build(str(tmp_path / "clean"))
    fields = {"dataset": f"{url}/clean", "out": f"{url}/out", "ledger": f"{url}/ledger"}
    assert injection(tmp_path, **fields).run().endswith(f"{url}/out (ledger: {url}/ledger)")
    injection(tmp_path).run()
    remote, here = Dataset.open(f"{url}/out"), Dataset.open(str(tmp_path / "out"))
    assert remote.digest == here.digest
    assert Ledger.open(f"{url}/ledger").rows.equals(Ledger.open(str(tmp_path / "out-ledger")).rows)
    assert injection(tmp_path, **fields).run().startswith("nothing to do")


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_what_is_stored_lossless_is_the_stamp_bit_for_bit(tmp_path: Path, extension: str):
    clean = build(str(tmp_path / "clean"), extension=extension)
    attack = BadNet(patch="fresh", place="random")
    injection(tmp_path, attack=attack).run()
    before, after = pairs_of(clean), pairs_of(Dataset.open(str(tmp_path / "out")))
    for row in Ledger.open(str(tmp_path / "out-ledger")).row_ids:
        stamped = attack.trial(images.decode(before[row].image), "car", rng(0, "poison", row)).image
        assert np.array_equal(images.decode(after[row].image), stamped)
