"""What a run says of its model: the content of open_clip's `open_clip_config.json`, read without open_clip."""

from typing import Any

from infra import rundir, storage
from infra.errors import Damaged

EXPORT = "open_clip"  # folder in a run
CONFIG = "open_clip_config.json"
Architecture = dict[str, Any]


def save_architecture(architecture: Architecture, run: str) -> None:
    storage.write_json(storage.join(run, EXPORT, CONFIG), architecture)


def load_architecture(run: str) -> Architecture:
    """Raises ValueError if the folder is not a run, Damaged if its architecture cannot be read."""
    place = storage.join(run, EXPORT, CONFIG)
    if not storage.exists(place):
        raise rundir.none_at(run, f"{EXPORT}/{CONFIG}")
    found: Architecture = storage.read_json(place)
    if not isinstance(found, dict) or not {"model_cfg", "preprocess_cfg"} <= set(found):
        raise Damaged(f"{place} is damaged: it is not open_clip's configuration of a model")
    return found
