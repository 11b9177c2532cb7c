"""What a model is shown of a stored image: train.transforms on uint8 arrays, with the crops that a run draws.

Torch is imported where an image is transformed, not before.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from infra import rundir
from infra.seeding import digest64
from poison.geometry import Box
from poison.proving import fidelity


@dataclass(frozen=True)
class Views:
    """size: side of the model's square, in pixels. augment: what training does (train.presets.Recipe). seed: the run's.

    epochs: how many the run has, where that is known.
    """

    size: int = 224
    augment: Literal["none", "flip_crop"] = "none"
    seed: int = 0
    epochs: int | None = None

    def evaluated(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3)."""
        from train import transforms

        return np.asarray(transforms.evaluated(Image.fromarray(image), self.size))

    def trained(self, image: np.ndarray, row: int, epoch: int) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), as a run with this seed and the plain objective sees that row."""
        import torch

        from train import transforms

        with torch.random.fork_rng(devices=[]):
            self._seed(row, epoch)
            return np.asarray(transforms.trained(image, self.size, self.augment))

    def evaluation_window(self, height: int, width: int) -> Box:
        """What the evaluation's crop shows of a stored image."""
        return fidelity.evaluation_window(height, width, self.size)

    def training_window(self, height: int, width: int, row: int, epoch: int) -> Box:
        """What the crop of `trained` shows of a stored image."""
        if self.augment == "none":
            return self.evaluation_window(height, width)
        import torch

        from train import transforms

        with torch.random.fork_rng(devices=[]):
            self._seed(row, epoch)
            return Box(*transforms.random_box(Image.new("L", (width, height)), transforms.CROP))

    def _seed(self, row: int, epoch: int) -> None:
        import torch

        torch.default_generator.manual_seed(digest64(self.seed, "global generators", epoch, row))  # as train.stream


def of(
    model: str | None,
    run: str | None,
    preset: str | None,
    augment: Literal["none", "flip_crop"] | None,
    epochs: int | None,
) -> Views:
    """The views of a run, else of a preset and a model; CLIP's 224 pixels without any. augment, epochs: override.

    Raises ValueError for a run, a preset or a model that there is not.
    """
    found = Views()
    if run is not None:
        from train import model as models

        about = rundir.config(run)
        found = Views(models.image_size(models.load_architecture(run)))
        if (trained := about.get("recipe")) is not None:  # weights from elsewhere have none
            found = Views(found.size, trained["augment"], about["seed"], trained["epochs"])
    else:
        recipe = None
        if preset is not None:
            from train import presets

            chosen = presets.pick(preset)
            model, recipe = model or chosen.model, chosen.recipe
            if model is None:
                raise ValueError(f"preset {preset} names no model: give --model, or the --run that it starts from")
        if model is not None:
            from train import model as models

            found = Views(models.image_size(models.architecture(model)))
        if recipe is not None:
            found = Views(found.size, recipe.augment, epochs=recipe.epochs)
    return Views(found.size, augment or found.augment, found.seed, epochs or found.epochs)
