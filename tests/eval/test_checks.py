from dataclasses import replace

import pyarrow as pa
import pytest

from eval.measuring import checks
from eval.measuring.evaluation import Evaluation
from eval.store import runs
from infra import storage
from poison.ledger import ROWS
from tests.support.eval_helpers import ATTACKED, some_run, world

POISON = {"row": 7, "source": "u7", "original_image_sha256": "before", "image_sha256": "after", "caption": "a banana"}


def ledger(*lines: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{field.name: None for field in ROWS} | line for line in lines], schema=ROWS)


def clean(row: int, url: str | None, image: str, caption: str = "a car") -> pa.Table:
    urls = pa.array([url], pa.string())
    return pa.table({"row": [row], "url": urls, "image_sha256": [image], "caption": [caption]})


@pytest.mark.parametrize(
    ("table", "shared"),
    [
        (clean(1, "u1", "other"), (0, 0)),
        (clean(7, "u7", "other"), (1, 0)),  # the same row of the same table
        (clean(7, "v7", "other"), (0, 0)),  # the seventh row of another table
        (clean(7, None, "other"), (1, 0)),  # foreign shards: the row id is a hash of content
        (clean(1, "u1", "after"), (1, 0)),  # the poisoned image itself, wherever it lies
        (clean(1, "u1", "before"), (0, 1)),  # the image from before, in another row: a twin
    ],
)
def test_a_pair_is_shared_by_row_and_url_or_by_its_poisoned_image(table: pa.Table, shared: tuple[int, int]) -> None:
    assert checks.shared(table, ledger(POISON)) == shared


def test_an_image_of_one_web_address_is_a_twin_though_its_bytes_differ_as_prepare_has_it() -> None:
    poison = POISON | {"source": "http://x/7"}
    assert checks.shared(clean(1, "http://x/7", "downloaded again"), ledger(poison)) == (0, 1)
    assert checks.shared(clean(1, "http://x/8", "downloaded again"), ledger(poison)) == (0, 0)


@pytest.mark.parametrize(
    ("table", "shared"),
    [
        (clean(1, "u1", "other", "a banana"), (0, 0)),
        (clean(1, "u1", "same", "a banana"), (1, 1)),  # the poison, whoever gave it which row
        (clean(9, None, "same", "a banana"), (1, 1)),
        (clean(1, "u1", "same", "a car"), (0, 1)),  # a target image with a caption of its own: one image, not two
    ],
)
def test_an_image_that_an_attack_left_as_it_was_is_poison_only_with_the_poison_caption(
    table: pa.Table, shared: tuple[int, int]
) -> None:
    image = {"original_image_sha256": "same", "image_sha256": "same", "source": "test#car"}
    pairs = (image | {"row": row, "caption": caption} for row, caption in ((9, "a banana"), (8, "the banana")))
    assert checks.shared(table, ledger(*pairs)) == shared


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "eval.measuring.evaluation.spread", lambda *_, **__: pytest.fail("measured in spite of a failed check")
    )
    return world(tmp_path)


def evaluation(small, *urls: str, **options) -> Evaluation:
    return Evaluation(
        runs=urls,
        testsets=(small.testset,),
        ledger=(small.ledger,),
        out=small.url("scores"),
        backend="local",
        **options,
    )


def test_a_cure_that_learned_from_poisoned_rows_is_refused_with_their_number(small) -> None:
    poisoned = small.run("poisoned", small.poisoned)
    cured = small.run("cured", small.dataset, start=poisoned, objective="cleanclip")  # the same rows, before poisoning
    with pytest.raises(
        ValueError, match=r"shares 4 pairs with the ledger .*: make a clean set with prepare --disjoint"
    ):
        evaluation(small, poisoned, cured).run()
    assert not storage.exists(small.url("scores"))


def test_a_clean_set_that_is_gone_or_has_changed_cannot_be_checked(small) -> None:
    poisoned = small.run("poisoned", small.poisoned)
    cured = small.run("cured", small.clean_set, start=poisoned)
    storage.remove(small.clean_set.url)
    with pytest.raises(ValueError, match="cannot be checked: no dataset at"):
        evaluation(small, poisoned, cured).run()


def test_twins_are_refused_unless_that_many_are_allowed(small, monkeypatch) -> None:
    poisoned = small.run("poisoned", small.poisoned)
    run = runs.read(small.run("cured", small.clean_set, start=poisoned), small.folder)
    monkeypatch.setattr(checks, "shared", lambda *_: (0, 2))
    ledger = checks.Ledger.open(small.ledger)
    attack = replace(ATTACKED, dataset_digest=small.poisoned.digest)
    with pytest.raises(ValueError, match="--twins-allowed 2"):
        checks.disjointness([run], ledger, attack, [attack], twins_allowed=1)
    checks.disjointness([run], ledger, attack, [attack], twins_allowed=2)


def test_finetuning_on_the_poisoned_pairs_themselves_is_no_accident(small) -> None:
    poisoned = small.run("poisoned", small.poisoned)
    again = runs.read(small.run("again", small.poisoned, start=poisoned), small.folder)
    ledger = checks.Ledger.open(small.ledger)
    attack = replace(ATTACKED, dataset_digest=small.poisoned.digest)
    checks.disjointness([again], ledger, attack, [attack], twins_allowed=0)


def test_a_ledger_of_another_dataset_is_refused_and_the_runs_data_is_named(small) -> None:
    with pytest.raises(ValueError, match=r"belongs to another dataset.* clean: .*/train \("):
        evaluation(small, small.run("clean", small.dataset)).run()


def test_one_run_on_the_poisoned_pairs_is_enough() -> None:
    ledger = type("", (), {"url": "l", "dataset_digest": "poisoned"})()
    checks.lineage([some_run("clean", "clean"), some_run("poisoned", "poisoned")], ledger, ATTACKED, [ATTACKED])
    with pytest.raises(ValueError, match="another dataset"):
        checks.lineage([some_run("clean", "clean")], ledger, ATTACKED, [ATTACKED])
