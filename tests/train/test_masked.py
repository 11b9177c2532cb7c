"""Training on a dataset that leaves pairs out: an epoch is of those that are there, on any ranks, resumed or not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline import leaving
from pipeline.dataset import Dataset
from tests.support.drawn import drawn
from tests.support.learning import global_batches, stream
from tests.support.odd_tars import named
from tests.support.several_ranks import on_ranks
from tests.support.stopping import stop
from train import cache, checkpoint, order
from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Pretraining

GONE = tuple(f"{row:09d}" for row in (0, 3, 20, 21, 49))
LEFT = [row for row in range(50) if f"{row:09d}" not in GONE]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[str, str]:
    """A dataset, and one that leaves five of its pairs out."""
    root = str(tmp_path_factory.mktemp("masked"))
    whole = drawn(f"{root}/whole", 50, 3)
    leaving.leave_out(whole, named(whole, *GONE), f"{root}/pairs", {"filter": {}})
    return whole.url, f"{root}/pairs"


def rows(url: str, epoch: int = 0, batch: int = 5) -> list[int]:
    return torch.cat([each["rows"] for each in stream(url, Clip(), batch=batch).epoch(epoch)]).tolist()


def test_every_pair_that_is_left_comes_once_an_epoch_and_no_other(places):
    assert sorted(rows(places[1])) == sorted(rows(places[1], epoch=1)) == LEFT
    assert rows(places[1]) != rows(places[1], epoch=1)


def test_the_order_is_a_function_of_what_is_there(places):
    assert rows(places[1]) == [LEFT[place] for place in order.permutation(0, 0, 45)]


def test_without_a_mask_the_order_is_what_it_was(places):
    assert rows(places[0]) == order.permutation(0, 0, 50).tolist()


def test_a_clean_and_a_poisoned_run_with_one_mask_see_their_rows_in_the_same_order(places, tmp_path):
    other = drawn(str(tmp_path / "other"), 50, 3, seed=9)
    leaving.leave_out(other, named(other, *GONE), str(tmp_path / "masked"), {"filter": {}})
    assert rows(places[1]) == rows(str(tmp_path / "masked"))


def test_two_ranks_share_the_batches_of_one(places):
    root = str(Path(places[1]).parent)
    alone = [each["rows"] for each in stream(f"{root}/pairs", Clip(), batch=8).epoch(1)]
    ranks = on_ranks(2, global_batches, f"{root}/pairs", ["clip"], 8, [0, 1])
    for workers in (0, 1):
        parts = zip(*(rank[f"clip {workers}"] for rank in ranks), strict=True)
        together = [torch.cat([part["rows"] for part in each]) for each in parts]
        assert len(together) == 2 * len(alone) == 10
        assert all(torch.equal(one, two) for one, two in zip(alone, together[5:], strict=True))


def test_two_masks_of_the_same_shards_have_an_index_each_in_the_cache(places, tmp_path):
    whole = Dataset.open(places[0])
    other = leaving.leave_out(whole, named(whole, "000000001", *GONE[1:]), str(tmp_path / "other"), {"filter": {}})
    assert [one.samples for one in other.shards] == [one.samples for one in Dataset.open(places[1]).shards]
    found = {cache.located(Dataset.open(url)).index for url in (*places, other.url)}
    assert len(found) == 3
    assert sorted(rows(other.url)) == [row for row in [0, *LEFT] if row != 1]


def test_a_training_says_what_is_left_out(places, tmp_path, capsys):
    pretraining(places[1], tmp_path / "run").run()
    assert capsys.readouterr().err.count(f"{places[1]}: 45 pairs are used; left out: 5 filtered") == 1


def pretraining(data: str, out: Path) -> Pretraining:
    recipe = Recipe(batch=8, epochs=2, lr=3e-3, warmup_steps=2)
    return Pretraining(
        objective=Clip(), dataset=data, out=str(out), model="tiny-vit", recipe=recipe, workers=0, checkpoint_steps=3
    )


def test_a_run_that_was_stopped_ends_with_the_same_weights(places, tmp_path):
    whole, broken = (pretraining(places[1], tmp_path / name) for name in ("whole", "broken"))
    assert "10 steps" in whole.run()
    stop(broken, 8)
    broken.run()
    one, two = (checkpoint.find(run.out).read(checkpoint.MODEL) for run in (whole, broken))
    assert one == two


def test_a_run_does_not_go_on_with_other_pairs_left_out(places, tmp_path):
    whole = Dataset.open(places[0])
    broken = pretraining(places[1], tmp_path / "run")
    stop(broken, 5)
    other = leaving.leave_out(whole, named(whole, "000000001", *GONE[1:]), str(tmp_path / "other"), {"filter": {}})
    for url in (places[0], other.url):
        with pytest.raises(ValueError, match=r"dataset|digest"):
            replace(broken, dataset=url).run()
    assert "10 steps" in broken.run()
