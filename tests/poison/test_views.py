from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infra import rundir, storage
from pipeline import images
from poison.proving import views
from poison.proving.views import Views
from tests.support.learning import stream
from tests.support.photographs import album
from tests.support.poison_helpers import pair, picture
from train import model
from train.objectives.clip import Clip


@pytest.fixture
def album_url(tmp_path: Path) -> str:
    url = str(tmp_path / "album")
    album(url, [pair(row, "jpg", 40 + row % 3, 60) for row in range(12)])
    return url


def test_a_run_is_shown_these_very_images(album_url: str):
    """Through the loader that training uses, in two epochs, of a seed that is not the default."""
    shown = Views(size=32, augment="flip_crop", seed=5)
    stored = {row: images.decode(pair(row, "jpg", 40 + row % 3, 60).image) for row in range(12)}
    loader = stream(album_url, Clip(), batch=4, seed=5, augment="flip_crop")
    for epoch in (0, 1):
        for batch in loader.epoch(epoch):
            for row, seen in zip(batch["rows"].tolist(), batch["images"]["image"].numpy(), strict=True):
                assert (shown.trained(stored[row], row, epoch) == seen.transpose(1, 2, 0)).all()


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """As torch and Pillow shrink the same image."""
    return int(np.abs(one.astype(int) - other).max()) <= 2


def test_the_training_window_is_the_crop_that_is_drawn():
    shown, image = Views(size=32, augment="flip_crop"), picture(1, 90, 70)
    for epoch in range(8):
        crop = shown.training_window(90, 70, 1, epoch).of(image)
        scaled = np.asarray(Image.fromarray(crop).resize((32, 32), Image.Resampling.BICUBIC))
        seen = shown.trained(image, 1, epoch)
        assert close(scaled, seen) or close(scaled[:, ::-1], seen)


def test_without_augmentation_training_sees_what_evaluation_sees():
    shown, image = Views(size=32), picture(1, 90, 70)
    assert close(shown.trained(image, 1, 3), shown.evaluated(image))
    assert shown.training_window(90, 70, 1, 3) == shown.evaluation_window(90, 70)


def test_nobody_elses_random_numbers_change():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Views(augment="flip_crop").trained(picture(1), 1, 0)
    Views(augment="flip_crop").training_window(32, 32, 1, 0)
    assert torch.equal(torch.rand(4), expected)


def test_what_is_said_last_counts(tmp_path: Path):
    run = str(tmp_path / "run")
    about = {"recipe": {"augment": "flip_crop", "epochs": 9}, "seed": 4}
    storage.write_json(storage.join(run, "config.json"), about)
    model.save_architecture(model.architecture("tiny-vit"), run)
    assert rundir.config(run) == about
    assert views.of(None, None, None, None, None) == Views(224, "none", 0, None)
    assert views.of("ViT-B-32", None, None, None, 3) == Views(224, "none", 0, 3)
    assert views.of(None, None, "tiny", None, None) == Views(32, "none", 0, 2)
    assert views.of("ViT-B-32", None, "tiny", "flip_crop", 3) == Views(224, "flip_crop", 0, 3)
    assert views.of(None, run, None, None, None) == Views(32, "flip_crop", 4, 9)
    assert views.of(None, run, None, "none", None) == Views(32, "none", 4, 9)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("no-model", None, None), "no model is named 'no-model'"),
        ((None, "nowhere", None), "no run at nowhere"),
        ((None, None, "tinny"), "perhaps you meant 'tiny'"),
        ((None, None, "demo-finetune"), "names no model"),
    ],
)
def test_what_there_is_not_is_refused(words: tuple[str | None, str | None, str | None], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        views.of(*words, None, None)
