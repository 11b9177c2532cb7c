"""Every form of image by every route: upright, on white, the same for all who read what we write."""

import io
import tarfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from eval.measuring import embed, trials
from infra.seeding import digest64, rng
from pipeline import images, shards, testsets
from pipeline.dataset import Dataset
from pipeline.fetch import _img2dataset
from pipeline.labelling import Labelling
from pipeline.preparation import Preparation
from pipeline.shards import Sample
from pipeline.sources.folder import Folder
from poison.attacks.control import Control
from poison.attacks.external import External
from poison.attacks.targeted import Targeted
from poison.sealed.levelling import Form as Sealed
from tests.support.every_image import HEIGHT, WIDTH, Form, forms, naive
from tests.support.learning import stream
from train.objectives.clip import Clip

ROUTES: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {}


def route(function: Callable[[Path], dict[str, np.ndarray]]) -> Callable[[Path], dict[str, np.ndarray]]:
    ROUTES[function.__name__] = function
    return function


def names() -> list[str]:
    return sorted(forms())


def put(folder: Path) -> str:
    """All forms as files of one class, in the order of their names."""
    (folder / "thing").mkdir(parents=True)
    for number, name in enumerate(names()):
        form = forms()[name]
        (folder / "thing" / f"{number:02d}.{form.extension}").write_bytes(form.data)
    return str(folder)


def tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def foreign_pairs(folder: Path) -> Dataset:
    """As someone else stores them, bytes as they come."""
    members = {}
    for number, name in enumerate(names()):
        members |= {f"{number:02d}.{forms()[name].extension}": forms()[name].data, f"{number:02d}.txt": name.encode()}
    tar(folder / "pairs" / "0.tar", members)
    return Dataset.open(str(folder / "pairs"))


def foreign_testset(folder: Path) -> testsets.TestSet:
    members = {}
    for number, name in enumerate(names()):
        members |= {f"{number:02d}.{forms()[name].extension}": forms()[name].data, f"{number:02d}.cls": b"0"}
    tar(folder / "set" / "test" / "0.tar", members)
    (folder / "set" / "test" / "nshards.txt").write_text("1")
    (folder / "set" / "classnames.txt").write_text("thing\nbanana\n")
    (folder / "set" / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    return testsets.read(str(folder / "set"))


def samples(folder: Path) -> list[Sample]:
    made = foreign_pairs(folder)
    [shard] = made.shards
    return list(shards.read_shard(made.fetch(shard, folder), made.index(shard)))


@route
def decoded(folder: Path) -> dict[str, np.ndarray]:
    return {name: images.decode(form.data) for name, form in forms().items()}


@route
def decoded_quickly(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(images.open_image(form.data, quick_over=0)) for name, form in forms().items()}


@route
def downloaded(folder: Path) -> dict[str, np.ndarray]:
    """By img2dataset's resizer, as cc3m and the other url tables are."""
    resizer = _img2dataset()[1](image_size=256, resize_mode="keep_ratio", resize_only_if_bigger=True)
    found = {}
    for name, form in forms().items():
        stored, *sizes, error = resizer(io.BytesIO(form.data))
        assert error is None
        found[name] = naive(stored)
        assert sizes == [*found[name].shape[1::-1]] * 2
    return found


def prepared(folder: Path, size: int) -> dict[str, Sample]:
    source = Folder(path=put(folder / "files"), captions="folder")
    Preparation(source=source, out=str(folder / "made"), backend="local", image_size=size, min_image_size=1).run()
    made = Dataset.open(str(folder / "made"))
    [shard] = made.shards
    return dict(zip(names(), shards.read_shard(made.fetch(shard, folder), made.index(shard)), strict=True))


@route
def from_a_folder(folder: Path) -> dict[str, np.ndarray]:
    return {name: naive(sample.image) for name, sample in prepared(folder, 256).items()}


@route
def from_a_folder_and_turned_by_a_reader_who_knows_exif(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(sample.image))).convert("RGB"))
        for name, sample in prepared(folder, 256).items()
    }


@route
def from_a_folder_and_shrunk(folder: Path) -> dict[str, np.ndarray]:
    """Brought back to the size of the others, so that they compare."""
    found = {name: naive(sample.image) for name, sample in prepared(folder, HEIGHT // 2).items()}
    return {name: image.repeat(2, axis=0).repeat(2, axis=1) for name, image in found.items()}


def labelled(folder: Path) -> dict[str, bytes]:
    source = Folder(path=put(folder / "files"), captions="folder")
    Labelling(source=source, out=str(folder / "made")).run()
    stored = (data for _, data in testsets.stored(testsets.read(str(folder / "made"))))
    return dict(zip(names(), stored, strict=True))


@route
def in_a_test_set(folder: Path) -> dict[str, np.ndarray]:
    return {name: naive(data) for name, data in labelled(folder).items()}


@route
def trained_on(folder: Path) -> dict[str, np.ndarray]:
    pairs = stream(foreign_pairs(folder).url, Clip(), batch=2).pairs
    return {pair.caption: np.asarray(pair.image) for pair in map(pairs.pair, range(len(pairs)))}


@route
def poisoned(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for sample in samples(folder):
        [after] = Control().poison(sample, "a banana", rng(0))
        assert after.extension == sample.extension
        found[sample.caption] = naive(after.image)
    return found


@route
def sealed(folder: Path) -> dict[str, np.ndarray]:
    form = Sealed(keeps=True, quality=95, seed=0)
    return {sample.caption: naive(form.written(sample).image) for sample in samples(folder)}


@route
def given_by_the_attacker(folder: Path) -> dict[str, np.ndarray]:
    """Images poisoned elsewhere, which replace those of upright PNGs."""
    test = foreign_testset(folder)
    for number, name in enumerate(names()):
        place = folder / "given" / f"{number:02d}.{forms()[name].extension}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(forms()[name].data)
    attack = External(pictures=str(folder / "given"), trials=test.url).resolved()
    found = {}
    for number, name in enumerate(names()):
        kind, shape = forms()[name].extension, images.decode(forms()[name].data).shape
        clean = Sample(f"{number:02d}", number, images.encode(np.zeros(shape, np.uint8), kind), kind, "a")
        [after] = attack.poison(clean, "a banana", rng(0))
        found[name] = naive(after.image)
    return found


@route
def aimed_at(folder: Path) -> dict[str, np.ndarray]:
    """Images of a test set that an attack puts into the dataset."""
    attack = Targeted(testset=foreign_testset(folder).url, images=len(names())).resolved()
    order = sorted(names(), key=lambda name: digest64(0, "target image", sha256(forms()[name].data).hexdigest()))
    return {name: naive(attack.add(number, "a banana").image) for number, name in enumerate(order)}


class Watched:
    """An embedder that keeps what it is shown."""

    identity = "an embedder that keeps what it is shown"

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    def images(self, pixels: list[torch.Tensor]) -> np.ndarray:
        self.seen += [image.numpy() for image in pixels]
        return np.zeros((len(pixels), 1), np.float32)

    def measured(self, pixels: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        return self.images(pixels), np.zeros(len(pixels), np.float32)


@route
def evaluated(folder: Path) -> dict[str, np.ndarray]:
    watched: Any = Watched()
    embed._encoded(watched, foreign_testset(folder), 1)
    return dict(zip(names(), watched.seen, strict=True))


@route
def evaluated_under_attack(folder: Path) -> dict[str, np.ndarray]:
    watched: Any = Watched()
    trials.embed(watched, foreign_testset(folder), Control(target="banana"), 0, 1)
    return dict(zip(names(), watched.seen, strict=True))


def apart(image: np.ndarray, form: Form) -> float:
    return float(np.abs(image.astype(int) - form.right).mean()) if image.shape == form.right.shape else 255.0


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, np.ndarray]]:
    """What each route makes of all forms; a route is gone once."""
    return cache(lambda name: ROUTES[name](tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("form", names())
@pytest.mark.parametrize("way", ROUTES)
def test_an_image_is_upright_and_on_white_by_every_route(
    way: str, form: str, seen: Callable[[str], dict[str, np.ndarray]]
):
    wanted = forms()[form]
    encoded_again = (
        0 if way in ("decoded", "decoded_quickly", "trained_on", "evaluated", "evaluated_under_attack") else 6
    )
    found = seen(way)
    assert sorted(found) == names()
    assert apart(found[form], wanted) <= wanted.within + encoded_again


def test_what_everyone_sees_alike_keeps_its_bytes_and_nothing_else_does(tmp_path: Path):
    kept = [name for name in names() if forms()[name].kept]
    made, test = prepared(tmp_path / "pairs", 256), labelled(tmp_path / "test")
    assert [name for name in names() if made[name].image == forms()[name].data] == kept
    assert [name for name in names() if test[name] == forms()[name].data] == kept


def test_sizes_are_those_of_the_upright_image(tmp_path: Path):
    for sample in prepared(tmp_path, HEIGHT // 2).values():
        assert (sample.meta["width"], sample.meta["height"]) == (WIDTH // 2, HEIGHT // 2)
        assert (sample.meta["original_width"], sample.meta["original_height"]) == (WIDTH, HEIGHT)


def test_the_forms_are_those_that_there_are():
    """Each as Pillow opens it; no turn of the image, and no other background, would pass for the right one."""
    modes = {Image.open(io.BytesIO(form.data)).mode for form in forms().values()}
    assert modes >= {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"}
    right = forms()["RGB"].right
    for turned in (right[::-1], right[:, ::-1], right[::-1, ::-1]):
        assert apart(turned, forms()["RGB"]) > 40
    assert apart(right, forms()["RGBA"]) > 20
    assert sum(form.kept for form in forms().values()) > 10


def test_what_is_turned_is_turned_as_pillow_would():
    for name, form in forms().items():
        if "orientation" in name:
            wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(form.data)))
            if not wanted.has_transparency_data:
                assert np.array_equal(images.decode(form.data), np.asarray(wanted.convert("RGB"))), name


def test_the_quick_decoder_is_within_one_grey_level_and_is_taken():
    taken = 0
    for name, form in forms().items():
        quick, slow = images.open_image(form.data, quick_over=0), images.open_image(form.data)
        assert np.abs(np.asarray(quick).astype(int) - np.asarray(slow)).max() <= 1, name
        taken += images._quick(images.check_header(form.data), form.data) is not None
    assert 0 < taken < len(forms())


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99, 0.998])
def test_the_quick_decoder_takes_no_cut_file_that_the_other_refuses(share: float):
    data = images.encode(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), "jpg")
    for quick_over in (None, 0):
        with pytest.raises(images.Unreadable):
            images.open_image(data[: int(len(data) * share)], quick_over)


def test_nobody_can_turn_an_image_a_second_time():
    for name, form in forms().items():
        image = images.open_image(form.data)
        assert ImageOps.exif_transpose(image).size == image.size == (WIDTH, HEIGHT), name
        assert ImageOps.exif_transpose(image).tobytes() == image.tobytes(), name


def test_a_size_is_known_from_the_header():
    assert {images.size(form.data) for form in forms().values()} == {(WIDTH, HEIGHT)}
