import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import AutoAugment

from infra.errors import Damaged
from pipeline import dataset, leaving
from pipeline.images import decode, encode
from pipeline.shards import Sample, write_shard
from tests.support.drawn import drawn, samples
from tests.support.learning import stream
from tests.support.odd_tars import named
from train import model, order, transforms
from train.lanes import Plan
from train.objective import Pair, Views
from train.objectives.clip import Clip
from train.stream import Stream


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("stream") / "data")
    drawn(url, 50, 3)
    return url


def made(url: str, pairs: list[Sample], tmp_path) -> str:
    dataset.claim(url, {"made": len(pairs)})
    dataset.commit(url, 0, write_shard(tmp_path / "shard.tar", pairs))
    dataset.finalise(url, 1)
    return url


def test_a_batch_holds_the_stored_pictures_and_captions_of_its_ids(data):
    batch = next(stream(data, Clip(), batch=8).epoch(0))
    ids = order.epoch_ids(0, 0, 8, 50)[:8]
    tokenizer = model.tokenizer(model.architecture("tiny-vit"))
    assert batch["rows"].tolist() == ids.tolist()
    assert batch["roles"].tolist() == [0] * 8
    for i, sample in enumerate(samples(50)[row] for row in ids):
        assert np.array_equal(batch["images"]["image"][i].numpy(), decode(sample.image).transpose(2, 0, 1))
        assert torch.equal(batch["texts"]["text"][i], tokenizer([sample.caption])[0])
    assert batch["images"]["image"].dtype == torch.uint8


def test_images_above_the_models_size_come_shrunk_as_evaluation_shows_them(tmp_path):
    grain = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    image = Image.fromarray(grain).resize((90, 60), Image.Resampling.BICUBIC)
    pairs = [Sample("0", 0, encode(np.asarray(image), "jpg"), "jpg", "a photo", {})]
    [batch] = stream(made(str(tmp_path / "data"), pairs, tmp_path), Clip(), batch=1).epoch(0)
    wanted = transforms.to_array(transforms.evaluated(Image.fromarray(decode(pairs[0].image)), 32))
    assert np.abs(batch["images"]["image"][0].numpy().astype(int) - wanted).max() <= 2
    assert batch["images"]["image"].is_contiguous(memory_format=torch.channels_last)
    assert (batch["seconds"] > 0).all()


def test_every_sample_comes_once_an_epoch_but_for_the_incomplete_batch(data):
    rows = torch.cat([batch["rows"] for batch in stream(data, Clip(), batch=8).epoch(1)])
    assert len(set(rows.tolist())) == len(rows) == 48


def test_an_epoch_goes_on_at_any_step_as_if_it_had_not_stopped(data):
    whole = list(stream(data, Clip(), batch=8, augment="flip_crop").epoch(1))
    rest = list(stream(data, Clip(), batch=8, augment="flip_crop").epoch(1, first_step=4))
    assert len(rest) == 2
    for one, two in zip(whole[4:], rest, strict=True):
        assert torch.equal(one["rows"], two["rows"])
        assert torch.equal(one["images"]["image"], two["images"]["image"])


def test_a_clean_and_a_poisoned_run_see_their_rows_in_the_same_order(data, tmp_path):
    """Another dataset with the same shards and counts, of which nothing but the rows is the same."""
    drawn(str(tmp_path / "other"), 50, 3, seed=9)
    one, two = (stream(url, Clip(), batch=8) for url in (data, str(tmp_path / "other")))
    for first, second in zip(one.epoch(0), two.epoch(0), strict=True):
        assert torch.equal(first["rows"], second["rows"])
        assert not torch.equal(first["images"]["image"], second["images"]["image"])


def test_a_rewritten_shard_changes_nobody_elses_augmentation(data, tmp_path):
    """What is drawn for a row depends on the row, not on its neighbours: clean and poisoned runs compare pairwise."""
    drawn(str(tmp_path / "fewer"), 30, 2)

    def views(url: str) -> dict[int, torch.Tensor]:
        batches = stream(url, Clip(), batch=2, augment="flip_crop").epoch(0)
        return {
            int(row): image
            for each in batches
            for row, image in zip(each["rows"], each["images"]["image"], strict=True)
        }

    all_rows, some_rows = views(data), views(str(tmp_path / "fewer"))
    assert all(torch.equal(all_rows[row], image) for row, image in some_rows.items())


@dataclass(frozen=True, kw_only=True)
class Noisy(Clip):
    """Draws from every generator there is."""

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        import random

        numbers = (rng.random(), torch.rand(()).item(), np.random.rand(), random.random())
        texts = {f"drawn {i}": f"{pair.role} {int(number * 1e9)}" for i, number in enumerate(numbers)}
        return Views({"image": AutoAugment()(pair.image)}, {"text": pair.caption} | texts)


def test_views_may_draw_from_any_generator_and_stay_reproducible(data):
    def tokens(workers: int, seed: int, epoch: int) -> list[torch.Tensor]:
        batches = list(stream(data, Noisy(), batch=10, workers=workers, seed=seed).epoch(epoch))
        rows = torch.cat([batch["rows"] for batch in batches])
        return [torch.cat([batch["texts"][f"drawn {i}"] for batch in batches])[torch.argsort(rows)] for i in range(4)]

    same, other_workers, other_epoch, other_seed = (
        tokens(*how) for how in ((0, 0, 0), (2, 0, 0), (0, 0, 1), (0, 1, 0))
    )
    for i in range(4):  # numpy's new, torch's, numpy's old, Python's
        assert torch.equal(same[i], other_workers[i])
        assert len(torch.unique(same[i], dim=0)) == 50
        assert not torch.equal(same[i], other_epoch[i])
        assert not torch.equal(same[i], other_seed[i])


def test_roles_reach_the_objective_and_the_batch(data):
    roles = np.arange(50) % 3
    one = stream(data, Noisy(), batch=8)
    for batch in one.epoch(0, roles=roles):
        assert batch["roles"].tolist() == [row % 3 for row in batch["rows"].tolist()]
    plain, with_roles = (next(one.epoch(0, roles=given))["texts"]["drawn 0"] for given in (None, roles))
    assert not torch.equal(plain, with_roles)


def test_evaluation_sees_plain_views_in_the_order_asked_for(data):
    ids = np.array([7, 3, 49, 0, 12])
    found = list(stream(data, Noisy(), batch=4, augment="flip_crop").evaluation(ids))
    assert [len(batch["rows"]) for batch in found] == [4, 1]
    assert torch.cat([batch["rows"] for batch in found]).tolist() == ids.tolist()
    assert set(found[0]["texts"]) == {"text"}
    assert np.array_equal(found[0]["images"]["image"][0].numpy(), decode(samples(50)[7].image).transpose(2, 0, 1))


def test_a_caption_that_is_cut_keeps_its_end_of_text(tmp_path):
    """Without it every long caption has one and the same embedding (the reference tokeniser cuts it off)."""
    sample = samples(1)[0]
    words = [
        Sample(f"{row}", row, sample.image, "jpg", f"{kind} " * 200, {}) for row, kind in enumerate(("cat", "dog"))
    ]
    url = made(str(tmp_path / "long"), words, tmp_path)
    tokens = next(stream(url, Clip(), batch=2).epoch(0))["texts"]["text"]
    assert tokens.shape == (2, 16)
    assert tokens[:, -1].tolist() == [49407, 49407]
    assert tokens[:, 0].tolist() == [49406, 49406]
    clip = model.create(model.architecture("tiny-vit"))
    embeddings = clip.encode_text(tokens, normalize=True)
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_captions_in_any_script_and_none_at_all_are_read(tmp_path):
    picture = samples(1)[0].image
    captions = ["", "\u0444\u043e\u0442\u043e", "\U0001f34c", "caf\u00e9 \u4e2d\u6587", " two  spaces "]
    pairs = [Sample(f"{row}", row, picture, "jpg", caption, {}) for row, caption in enumerate(captions)]
    one = stream(made(str(tmp_path / "any"), pairs, tmp_path), Clip(), batch=5)
    assert [one.pairs.pair(row).caption for row in range(5)] == captions
    assert next(one.epoch(0))["texts"]["text"].shape == (5, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, workers):
    sample = samples(1)[0]
    pairs = [Sample("0", 0, sample.image, "jpg", "fine", {}), Sample("1", 1, b"no image", "jpg", "broken", {})]
    url = made(str(tmp_path / "broken"), pairs, tmp_path)
    named = rf"shard 0 \({url}/shards/.*\.tar\), key 1, row 1: not a readable JPEG.*verify --dataset {url} --decode"
    with pytest.raises(Damaged, match=named):
        next(stream(url, Clip(), batch=2, workers=workers).epoch(0))


def test_pictures_of_other_sizes_are_brought_to_the_models(tmp_path):
    drawn(str(tmp_path / "large"), 8, 1, size=50)
    assert next(stream(str(tmp_path / "large"), Clip(), batch=8).epoch(0))["images"]["image"].shape == (8, 3, 32, 32)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("ordered", ["permutation", "lanes"])
def test_global_batches_of_uneven_shards_are_the_same_on_any_ranks_and_workers(tmp_path, ordered):
    """Two epochs of seven shards, of which pairs are left out, one and two and four ranks, none, one and three workers:
    every pair once but for the incomplete batch, and the same when an epoch is begun in its middle."""
    sizes, gone = (9, 3, 12, 1, 7, 5, 8), (1, 12, 24, 44)
    whole = drawn(str(tmp_path / "whole"), sum(sizes), 7, sizes)
    left = leaving.leave_out(
        whole, named(whole, *(f"{row:09d}" for row in gone)), str(tmp_path / "left"), {"filter": {}}
    )
    counts = tuple(shard.samples for shard in left.shards)
    assert counts == (8, 3, 11, 0, 7, 5, 7)
    pairs = stream(left.url, Clip(), batch=8).pairs
    lanes = Plan(0, 8, 4, 2, tuple(range(7)), counts) if ordered == "lanes" else None

    def seen(ranks: int, workers: int, epochs: tuple[int, ...] = (0, 1), first_step: int = 0) -> list[list[object]]:
        """Rows, tokens and images of each global batch."""
        parts = [
            Stream(pairs, seed=0, batch=8, rank=rank, ranks=ranks, workers=workers, lanes=lanes)
            for rank in range(ranks)
        ]
        found = []
        for epoch in epochs:
            for batches in zip(*(part.epoch(epoch, first_step) for part in parts), strict=True):
                each = ((one["rows"], one["texts"]["text"], one["images"]["image"].sum((1, 2, 3))) for one in batches)
                found.append([torch.cat(tensors).tolist() for tensors in zip(*each, strict=True)])
        return found

    alone = seen(1, 0)
    assert len(alone) == 10
    for epoch in (alone[:5], alone[5:]):
        rows = [row for batch in epoch for row in batch[0]]
        assert len({*rows} - {*gone}) == len(rows) == 40
    for ranks, workers in itertools.product((1, 2, 4), (0, 1, 3)):
        assert seen(ranks, workers) == alone
    assert seen(2, 1, (1,), first_step=3) == alone[8:]
    ids = Stream(pairs, seed=0, batch=8, lanes=lanes).ids(1, 3)
    assert pairs.columns["rows"][ids].tolist() == alone[8][0]
