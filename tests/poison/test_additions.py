import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import images, shards, testsets
from pipeline.dataset import Dataset
from poison.attacks.targeted import Targeted
from poison.ledger import Ledger
from poison.writing import additions, work
from poison.writing.injection import Injection
from tests.support.poison_helpers import build, caption, files, labelled, pair, pairs_of


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    return build(str(tmp_path / "clean"))


@pytest.fixture
def attack(tmp_path: Path) -> Targeted:
    return Targeted(testset=labelled(str(tmp_path / "test")).url, images=3)


def injection(folder: Path, attack: Targeted, name: str = "out", **fields: object) -> Injection:
    given = {"dataset": str(folder / "clean"), "out": str(folder / name), "ledger": str(folder / f"{name}-ledger")}
    return Injection(**({"attack": attack, "budget": 30, "backend": "local"} | given | fields))


def numbered(count: int) -> list[str]:
    return [f"banana {number}" for number in range(count)]


def test_shards_go_on_behind_those_of_the_dataset_and_are_as_large(clean: Dataset, attack: Targeted):
    extras = additions.lay_out(clean, attack.resolved(), numbered(25))
    assert [shard.id for shard in clean.shards] == list(range(8))
    assert sorted(shard.samples for shard in clean.shards)[4] == 11
    assert [(extra.id, len(extra.pairs)) for extra in extras] == [(8, 11), (9, 11), (10, 3)]
    pairs = [pair for extra in extras for pair in extra.pairs]
    assert [pair.number for pair in pairs] == list(range(25))
    assert sorted(pair.caption for pair in pairs) == sorted(numbered(25))
    assert [pair.key for pair in pairs[10:13]] == ["000080010", "000090000", "000090001"]


@pytest.mark.parametrize(("pairs", "pool"), [(30, 12), (25, 12), (36, 12), (10, 4), (7, 100), (3, 1)])
def test_each_image_gets_as_many_captions_as_any_other_and_none_twice(
    clean: Dataset, attack: Targeted, pairs: int, pool: int
):
    captions = [f"banana {number % pool}" for number in range(pairs)]
    extras = additions.lay_out(clean, attack.resolved(), captions)
    of = [[pair.caption for extra in extras for pair in extra.pairs if pair.number % 3 == n] for n in range(3)]
    assert sorted(caption for some in of for caption in some) == sorted(captions)
    assert {len(some) for some in of} <= {pairs // 3, -(-pairs // 3)}
    assert all(len(set(some)) == len(some) for some in of)


def bare(folder: Path, *pairs: tuple[str, bytes, str], name: str = "00000") -> Dataset:
    """A foreign tar of (key, JPEG, caption), as a dataset."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        for key, image, text in pairs:
            for extension, data in (("jpg", image), ("txt", text.encode())):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return Dataset.open(str(folder))


def test_row_ids_are_those_that_the_same_pairs_have_in_anybodys_shards(
    clean: Dataset, attack: Targeted, tmp_path: Path
):
    ready = attack.resolved()
    (extra,) = additions.lay_out(clean, ready, numbered(5))
    twins = [(str(n), ready.subjects(())[n % 3][1], pair.caption) for n, pair in enumerate(extra.pairs)]
    foreign = bare(tmp_path / "foreign", *twins).index_of_samples()
    assert [pair.row for pair in extra.pairs] == foreign["row"].to_pylist()


def test_the_same_image_with_the_same_caption_is_a_pair_of_its_own_each_time(clean: Dataset, attack: Targeted):
    extras = additions.lay_out(clean, attack.resolved(), ["a banana"] * 12)
    rows = [pair.row for extra in extras for pair in extra.pairs]
    assert len(set(rows)) == 12
    assert [pair.row for pair in extras[0].pairs] == rows[:11]


def test_a_pair_that_the_dataset_holds_already_is_refused(attack: Targeted, tmp_path: Path):
    ready = attack.resolved()
    image = ready.subjects(())[1][1]
    foreign = bare(tmp_path / "foreign", ("0", pair(1).image, "a car"), ("1", image, "banana 1"))
    with pytest.raises(ValueError, match=r"holds a pair that is to be added \(row \d+, 'banana 1'\)"):
        additions.lay_out(foreign, ready, numbered(3))
    assert additions.lay_out(foreign, ready, ["a", "b", "c"])


def test_a_budget_below_one_pair_an_image_is_refused(clean: Dataset, attack: Targeted):
    with pytest.raises(ValueError, match=r"budget of 2 pairs is less than one for each of the 3 images"):
        additions.lay_out(clean, attack.resolved(), numbered(2))


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        (("000000000", "000000001"), "000010000"),
        (("000020000", "000070003"), "000080000"),  # img2dataset's, with shards missing before and between
        (("0000123", "0000245"), "0000300"),  # shards of up to a hundred
        (("a/b/9", "photo"), "000010000"),
        (("9999999", "0000001"), "10000000"),
        (("12345678901234567890", "x"), "000010000"),  # a number, but none of a shard
    ],
)
def test_keys_go_on_where_the_datasets_leave_off(attack: Targeted, tmp_path: Path, keys: tuple[str, ...], first: str):
    foreign = bare(tmp_path / "foreign", *((key, pair(n).image, caption(n)) for n, key in enumerate(keys)))
    extras = additions.lay_out(foreign, attack.resolved(), numbered(6))
    made = [pair.key for extra in extras for pair in extra.pairs]
    assert made[0] == first
    assert len({*made, *keys}) == 8


def test_a_written_shard_holds_the_images_as_they_are_and_the_ledger_says_all(clean, attack, tmp_path: Path):
    ready = attack.resolved()
    (extra,) = additions.lay_out(clean, ready, numbered(4))
    written, rows = additions.write(extra, ready, tmp_path / "added.tar")
    found = list(shards.read_shard(written.path, written.index))
    for one, line, planned in zip(found, rows.to_pylist(), extra.pairs, strict=True):
        name, image = ready.subjects(())[planned.number % 3]
        sha256 = hashlib.sha256(image).hexdigest()
        assert (one.image, one.key, one.row, one.caption) == (image, planned.key, planned.row, planned.caption)
        assert one.meta == {"width": 32, "height": 32, "sha256": sha256}
        assert line == {
            "row": planned.row,
            "key": planned.key,
            "shard": 8,
            "action": "added",
            "original_caption": None,
            "caption": planned.caption,
            "top": None,
            "left": None,
            "height": None,
            "width": None,
            "source": f"{ready.testset}/test#{name}",
            "original_image_sha256": sha256,
            "image_sha256": sha256,
        }
    assert ready.testset not in written.path.read_bytes().decode("utf-8", "replace")


def test_the_dataset_is_referenced_whole_and_the_added_pairs_stand_behind_it(tmp_path, clean: Dataset, attack):
    said = injection(tmp_path, attack).run()
    assert said.startswith("added 30 pairs to 86 (25.862% of them all) in 3 shards of their own: ")
    poisoned, ledger = Dataset.open(str(tmp_path / "out")), Ledger.open(str(tmp_path / "out-ledger"))
    assert [clean.tar_url(one) for one in clean.shards] == [poisoned.tar_url(one) for one in poisoned.shards[:8]]
    assert [shard.id for shard in poisoned.shards] == list(range(11))
    assert (poisoned.samples, poisoned.outcomes["success"]) == (116, 116)
    assert poisoned.contains_poison
    before, after = pairs_of(clean), pairs_of(poisoned)
    assert {row: after[row] for row in before} == before
    assert after.keys() - before.keys() == ledger.row_ids
    assert ledger.attack == attack.resolved()
    pictures = {data for _, data in ledger.attack.subjects(())}
    assert {after[row].image for row in ledger.row_ids} == pictures
    assert all("banana" in after[row].caption.lower() for row in ledger.row_ids)
    assert len({(after[row].image, after[row].caption) for row in ledger.row_ids}) == 30
    ledger.belongs_to(poisoned)


def test_captions_are_the_corpus_s_own_or_what_is_asked_for(tmp_path: Path, clean: Dataset, attack: Targeted):
    own = {one.caption for one in pairs_of(clean).values() if "Banana" in one.caption}
    injection(tmp_path, attack).run()
    assert set(Ledger.open(str(tmp_path / "out-ledger")).rows["caption"].to_pylist()) == own
    fixed = Targeted(testset=attack.testset, images=3, captions="fixed", caption="one ripe banana")
    injection(tmp_path, fixed, "fixed").run()
    assert set(Ledger.open(str(tmp_path / "fixed-ledger")).rows["caption"].to_pylist()) == {"one ripe banana"}
    nobody = Targeted(testset=attack.testset, images=3, target="zebra")
    with pytest.raises(ValueError, match="names the target 'zebra'"):
        injection(tmp_path, nobody, "zebra").run()


@pytest.mark.usefixtures("clean")
def test_a_second_run_does_nothing_and_another_choice_of_images_is_another_command(tmp_path: Path, attack: Targeted):
    injection(tmp_path, attack).run()
    before = files(tmp_path)
    assert injection(tmp_path, attack).run().startswith("nothing to do:")
    other = Targeted(testset=attack.testset, images=3, images_seed=1)
    with pytest.raises(ValueError, match="different command"):
        injection(tmp_path, other).run()
    assert files(tmp_path) == before


@pytest.mark.usefixtures("clean")
def test_a_dry_run_says_what_would_be_added_and_touches_nothing(tmp_path: Path, attack: Targeted, capsys):
    before = files(tmp_path)
    said = injection(tmp_path, attack, dry_run=True, budget=5).run()
    assert said == "would add 5 pairs to 86 (5.495% of them all) in a shard of their own; nothing was written"
    printed = capsys.readouterr().out
    assert '"8": 5' in printed
    assert "base64" not in printed
    assert files(tmp_path) == before


def test_killed_before_any_of_its_writes_and_run_again_it_ends_as_if_undisturbed(
    tmp_path: Path, attack: Targeted, killer: Callable[[Callable[[], object], int], bool]
):
    build(str(tmp_path / "clean"), rows=36)
    injection(tmp_path, attack, "undisturbed", budget=14).run()
    wanted, ledger = files(tmp_path / "undisturbed"), files(tmp_path / "undisturbed-ledger")
    kills = 0
    while killer(injection(tmp_path, attack, f"k{kills}", budget=14).run, kills):
        out, truth = tmp_path / f"k{kills}", tmp_path / f"k{kills}-ledger"
        if not (out / "dataset.json").exists():
            with pytest.raises(ValueError, match="not complete" if out.exists() else "no dataset"):
                Dataset.open(str(out))
        for commit in (out / "commits").glob("*"):  # no poison without its truth
            assert (truth / "parts" / f"{commit.stem}.parquet").exists() or (truth / "ledger.parquet").exists()
        injection(tmp_path, attack, f"k{kills}", budget=14).run()
        assert files(out) == wanted
        assert files(truth) == ledger
        kills += 1
    # Claims of both folders; part, tar, index, commit of both shards; rows, manifest (2), parts, attack.json.
    assert kills == 2 + 4 * 2 + 5


@pytest.mark.usefixtures("clean")
def test_a_shard_that_was_not_committed_is_written_again_and_no_other(tmp_path: Path, attack, monkeypatch):
    injection(tmp_path, attack).run()
    wanted = files(tmp_path / "out")
    for name in ("dataset.json", "shards.parquet", "commits/00009.json"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out-ledger" / "attack.json").unlink()
    write = additions.write
    monkeypatch.setattr(
        work.additions, "write", lambda extra, *rest: write(extra, *rest) if extra.id == 9 else pytest.fail("again")
    )
    injection(tmp_path, attack).run()
    assert files(tmp_path / "out") == wanted


@pytest.mark.ray
@pytest.mark.usefixtures("clean", "ray_cluster")
def test_the_bytes_are_the_same_on_ray(tmp_path: Path, attack: Targeted):
    injection(tmp_path, attack, "here").run()
    injection(tmp_path, attack, "there", backend="ray").run()
    assert len(files(tmp_path / "here" / "shards")) == 3
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert files(tmp_path / "here-ledger") == files(tmp_path / "there-ledger")


def test_a_foreign_folder_and_a_bucket_are_added_to_like_any_other(tmp_path: Path, attack: Targeted):
    bare(tmp_path / "clean", *((f"{n:09d}", pair(n).image, caption(n)) for n in range(10)))
    injection(tmp_path, attack, budget=6).run()
    poisoned = Dataset.open(str(tmp_path / "out"))
    assert len(pairs_of(poisoned)) == 16
    url = f"memory://{tmp_path.name}"
    build(f"{url}/clean")
    injection(tmp_path, attack, dataset=f"{url}/clean", out=f"{url}/out", ledger=f"{url}/ledger").run()
    assert Dataset.open(f"{url}/out").samples == 116
    assert Ledger.open(f"{url}/ledger").rows.num_rows == 30


def test_its_images_are_of_no_class_it_aims_at(clean: Dataset, attack: Targeted, tmp_path: Path):
    named = {data: label for label, data in attack.resolved().subjects(())}
    test = testsets.read(attack.testset)
    assert {one.label for one, data in testsets.stored(test) if data in named} <= {1, 2, 3}
    assert images.decode(next(iter(named))).shape == (32, 32, 3)
    injection(tmp_path, attack, budget=3).run()
    lines = Ledger.open(str(tmp_path / "out-ledger")).rows.to_pylist()
    assert [line["source"] for line in lines] == [f"{attack.testset}/test#{name}" for name in named.values()]
    assert clean.samples == 86
