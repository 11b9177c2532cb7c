from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist

from infra.errors import Lost
from tests.support.drawn import drawn
from tests.support.learning import (
    disagreements,
    exchanges_of_a_step,
    frozen_text,
    gathered,
    gathered_together,
    global_batches,
    gradients,
    scores,
    second_fails,
    statistics,
)
from tests.support.several_ranks import on_ranks
from train import ranks
from train.objectives.clip import Clip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("ranks") / "data")
    drawn(url, 70, 3)
    return url


def test_gather_is_in_rank_order_and_its_gradient_is_that_of_all_losses():
    """Rank r holds r + 1 and its loss is (r + 1) * sum(x^2); x of rank r has gradient 2 x (1 + 2)."""
    for rank, found in enumerate(on_ranks(2, gathered)):
        assert found["whole"].tolist() == [[1.0, 1.0], [2.0, 2.0]]
        assert found["gradient"].tolist() == [[2.0 * (rank + 1) * 3] * 2]


def test_tensors_of_any_type_are_gathered_in_one_exchange_and_a_loss_that_all_share_has_the_same_gradient():
    for rank, found in enumerate(on_ranks(2, gathered_together)):
        whole = torch.tensor([[1.5, 2.5], [3.5, 4.5], [11.5, 12.5], [13.5, 14.5]])
        for each in found.values():
            assert torch.equal(each["whole"], whole)
            assert each["rows"].tolist() == [2**53 + 1, 0, 2**53 + 1, 1]
            assert each["wide"].shape == (4, 1, 3) and each["wide"][:, 0, 2].tolist() == [0.1, 0.1, 1.1, 1.1]
            assert torch.equal(each["gradient"], 2 * 6 * whole[2 * rank : 2 * rank + 2])


@pytest.mark.parametrize(("name", "architecture"), [("cleanclip", "tiny-vit"), ("clip", "tiny-resnet")])
def test_ranks_on_cpus_wait_for_each_other_twice_a_step(data, name, architecture):
    """Embeddings once, gradients once; whatever the views and the statistics."""
    for found in on_ranks(2, exchanges_of_a_step, data, name, architecture):
        assert found == {"all_gather_into_tensor": 0, "all_reduce": 0, "broadcast": 0, "shown": 2}


def test_statistics_are_each_ranks_own_until_a_tower_rests_or_pairs_are_scored(data):
    first, second = on_ranks(2, statistics, data)
    for own, shared in (("learned", "rests"), ("learned again", "scored")):
        assert not torch.equal(first[own], second[own])
        assert torch.equal(first[shared], first[own])
        assert torch.equal(second[shared], first[own])


def test_one_process_needs_no_group():
    part = torch.ones(2, 3)
    with ranks.group() as place:
        assert ranks.gather(part) is part
        assert ranks.exchange({"a": 1}) == [{"a": 1}]
        assert ranks.first(lambda: 5) == 5
        ranks.barrier()
    assert (place.rank, place.ranks, place.first, place.first_of_node) == (0, 1, True, True)


def test_the_global_batches_are_the_same_on_one_and_two_ranks_with_any_workers(data):
    """Images, tokens, rows, in order, over two epochs; with augmentations that draw from every generator."""
    alone = global_batches(data, ["clip", "cleanclip"], 16, [0, 1, 2])
    for both in zip(
        *(rank.items() for rank in on_ranks(2, global_batches, data, ["clip", "cleanclip"], 16, [0, 1, 2])), strict=True
    ):
        (name, first), (_, second) = both
        kind = name.split()[0]
        assert len(first) == len(second) == len(alone[name]) == 8
        for one, two, whole, reference in zip(first, second, alone[name], alone[f"{kind} 0"], strict=True):
            for part in ("images", "texts"):
                for view, value in whole[part].items():
                    assert torch.equal(torch.cat([one[part][view], two[part][view]]), value)
                    assert torch.equal(value, reference[part][view])
            assert torch.equal(torch.cat([one["rows"], two["rows"]]), whole["rows"])


def test_a_tower_that_does_not_learn_has_no_gradient_and_its_gathered_loss_is_still_exact(data):
    alone, both = frozen_text(data), on_ranks(2, frozen_text, data)
    for rank in both:
        for ours, theirs in zip(alone["gradients"], rank["gradients"], strict=True):
            assert not [
                name for name in theirs if name.startswith(("transformer", "token_embedding", "ln_final", "text_"))
            ]
            assert ours.keys() == theirs.keys()
            assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-9) for name in ours)


def test_open_clips_loss_agrees(data):
    """An independent implementation of plain CLIP on the same embeddings."""
    from open_clip import ClipLoss

    from train.objective import clip_loss

    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(8, 5, dtype=torch.float64), dim=1) for _ in range(2))
    assert float(clip_loss(images, texts, torch.tensor(9.0))) == pytest.approx(float(ClipLoss()(images, texts, 9.0)))
    assert gradients(data, Clip(), 16)["loss"][0] > 0


def test_a_failure_on_one_rank_is_a_failure_on_all_with_the_same_words():
    for rank, found in enumerate(on_ranks(2, disagreements)):
        assert found["value error"] == "ValueError: batch is odd"
        assert found["damage"] == "Damaged: shard 3 is missing"
        assert found["bug"] == ("KeyError: 'x'" if rank == 1 else "Elsewhere: rank 1 failed: 'x'")
        assert found["first"] == "ValueError: only rank 0 looked"
        assert found["exchanged"] == ["rank 0", "a longer word from rank 1"]
        assert found["told"] == {"step": 7}
        assert found["barrier"] == "passed"


def test_a_rank_that_fails_keeps_its_neighbours_waiting_until_it_has_spoken():
    """Lost connections end a neighbour first, and torchrun then ends the rank that knows why."""
    on_ranks(2, gathered)  # so that both are there
    with pytest.raises(AssertionError) as error:
        on_ranks(2, second_fails, seconds=3)
    assert "rank 0 hung for 3 s" in str(error.value) and "what the second rank has to say" in str(error.value)


# Where the ranks of a start meet


def met(store: dist.Store, ranks_: int) -> list[str]:
    """What the ranks of one start call themselves."""
    with ThreadPoolExecutor(ranks_) as pool:
        return list(pool.map(lambda rank: ranks.agreed_name(store, rank, ranks_, 30), reversed(range(ranks_))))


def test_all_ranks_of_a_start_agree_on_a_name_and_no_two_starts_have_the_same():
    store = dist.HashStore()
    names = [met(store, count) for count in (3, 3, 2, 4)]
    assert all(len(set(start)) == 1 for start in names)
    assert len({start[0] for start in names}) == 4


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_rank_that_died_while_they_met_does_not_keep_the_next_start_from_meeting(dead):
    store = dist.HashStore()
    with ThreadPoolExecutor(2) as pool:  # two of three came, and gave up
        came = [pool.submit(ranks.agreed_name, store, rank, 3, 0.3) for rank in range(3) if rank != dead]
        assert any(isinstance(start.exception(), Lost) for start in came)
    assert len(set(met(store, 3))) == 1


def test_scores_of_pairs_are_the_same_on_one_and_two_ranks(data):
    alone, both = scores(data), on_ranks(2, scores, data)
    assert alone.shape == (21,)
    assert len(np.unique(alone.numpy().round(6))) > 10
    assert all(torch.allclose(alone, rank, rtol=0, atol=1e-6) for rank in both)
