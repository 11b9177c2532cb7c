"""A pretraining of seconds, for tests of the loop and of its steps."""

from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Pretraining


def pretraining(data: str, out: object, recipe: Recipe, **changed: object) -> Pretraining:
    """Of the smallest ViT, loaded in the process itself. changed: fields in place of these."""
    fields = {"objective": Clip(), "model": "tiny-vit", "workers": 0}
    return Pretraining(dataset=data, out=str(out), recipe=recipe, **(fields | changed))  # type: ignore[arg-type]
