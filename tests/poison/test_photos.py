"""Every backdoor on images as photographs are: odd sizes, greys, 4:2:0; what reaches a model of 224 pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.seeding import rng
from pipeline import images
from pipeline.dataset import Dataset
from pipeline.sources.folder import Folder
from poison.attack import Attack, Backdoor
from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.ledger import Ledger
from poison.proving import fidelity
from poison.proving.views import Views
from poison.writing.injection import Injection
from tests.support.attack_examples import NAMES, examples
from tests.support.photographs import GREY, SIDEWAYS, SIZES, album, pair, photograph, stored
from tests.support.poison_helpers import pairs_of

SHOWN = Views(size=224, augment="flip_crop")
LEAST = {"wanet": 0.8, "wanet-jitter": 0.8}  # a warp is as strong as the image's detail, faint at best; else 0.97


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attack]:
    return {name: attack.resolved() for name, attack in examples(tmp_path_factory).items() if name in BACKDOORS}


OTHERS = ("control", "external", "swap", "targeted")
BACKDOORS = [*(name for name in NAMES if name not in OTHERS), "wanet-jitter", "badnet-four_corners"]


def stamped(attack: Backdoor, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image as it is stored, with the trigger before it is encoded, and with it as it is stored then."""
    before = pair(number)
    clean = images.decode(before.image)
    [after] = attack.poison(before, "a banana", rng(0, "poison", number))
    return clean, attack.stamp(clean, rng(0, "poison", number)), images.decode(after.image)


def test_every_backdoor_is_among_them(tmp_path_factory: pytest.TempPathFactory):
    found = {name: isinstance(attack, Backdoor) for name, attack in examples(tmp_path_factory).items()}
    assert {name for name in NAMES if found[name]} - {"control"} <= set(BACKDOORS)
    assert all(found[name] for name in BACKDOORS)


@pytest.mark.parametrize("name", BACKDOORS)
def test_the_trigger_reaches_the_model(name: str, attacks: dict[str, Attack]):
    """After the evaluation's transform whole and nearly unchanged; in training, as much as the random crop leaves."""
    attack = attacks[name]
    assert isinstance(attack, Backdoor)
    for number in range(len(SIZES)):
        three = clean, meant, _ = stamped(attack, number)
        box = attack.locate(*clean.shape[:2], rng(0, "poison", number)) or fidelity.touched(clean, meant)
        assert box is not None
        seen = fidelity.measure(*(SHOWN.evaluated(image) for image in three))
        assert seen is not None
        assert seen.fidelity > LEAST.get(name, 0.97), (name, SIZES[number])
        assert LEAST.get(name, 0.97) < seen.gain < 1.1, (name, SIZES[number])
        assert fidelity.share_left(box, SHOWN.evaluation_window(*clean.shape[:2])) == 1
        left = fidelity.share_left(box, SHOWN.training_window(*clean.shape[:2], number, 0))
        trained = fidelity.measure(*(SHOWN.trained(image, number, 0) for image in three))
        if left > 0.5:
            assert trained is not None
            assert trained.fidelity > LEAST.get(name, 0.97) - 0.03, (name, SIZES[number])


def test_a_random_crop_may_take_a_corner_and_never_the_middle():
    corner, centre = BadNet(), BadNet(place="centre")
    least = {}
    for attack in (corner, centre):
        boxes = {number: attack.locate(*SIZES[number], rng(0)) for number in range(len(SIZES))}
        shares = [
            fidelity.share_left(box, SHOWN.training_window(*SIZES[number], number, epoch))
            for number, box in boxes.items()
            if box is not None
            for epoch in range(20)
        ]
        assert len(shares) == 20 * len(SIZES)
        least[attack.place] = min(shares)
    assert least["centre"] == 1
    assert least["corner"] < 0.5


def test_stored_as_most_images_are_a_noise_patch_would_not_reach_it():
    """What the same patch is worth if a colour is stored for every second pixel only."""
    attack = BadNet(size=16)
    clean = images.decode(pair(4).image)
    meant = attack.stamp(clean, rng(0))
    low = images.decode(subsampled(meant))
    found = fidelity.measure(*(SHOWN.evaluated(image) for image in (clean, meant, low)))
    assert found is not None
    assert found.fidelity < 0.8


def subsampled(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95, subsampling=2)
    return out.getvalue()


def test_a_grey_photograph_becomes_a_coloured_one():
    for number in GREY:
        assert images.check_header(stored(number)).mode == "L"
        clean, _, poisoned = stamped(BadNet(), number)
        assert np.ptp(clean.astype(int), axis=2).max() == 0
        assert np.ptp(poisoned[-30:, :].astype(int), axis=2).max() > 100


def test_a_turned_camera_is_undone_by_all_and_a_poisoned_image_lies_upright():
    """The trigger stands upright on an upright image, and neither EXIF nor KEY.json turns it any more."""
    before, meant = pair(SIDEWAYS), photograph(SIDEWAYS, *SIZES[SIDEWAYS]).astype(int)
    assert images.check_header(before.image).getexif()[0x0112] == 6
    assert images.check_header(before.image).size == SIZES[SIDEWAYS]
    assert (before.meta["width"], before.meta["height"]) == SIZES[SIDEWAYS]
    clean, drawn, poisoned = stamped(BadNet(), SIDEWAYS)
    assert clean.shape == poisoned.shape == (*SIZES[SIDEWAYS], 3)
    assert np.abs(clean - meant).mean() < 6
    [after] = BadNet().poison(before, "a banana", rng(0, "poison", SIDEWAYS))
    assert 0x0112 not in images.check_header(after.image).getexif()
    assert np.abs(np.asarray(Image.open(io.BytesIO(after.image)), int) - drawn).mean() < 3
    assert (after.meta["height"], after.meta["width"]) == SIZES[SIDEWAYS]


@pytest.mark.parametrize("seal", [False, True])
def test_the_index_of_a_poisoned_dataset_gives_the_size_of_the_upright_image(tmp_path: Path, seal: bool):
    clean = album(str(tmp_path / "album"))
    where = {"dataset": clean.url, "out": str(tmp_path / "out"), "ledger": str(tmp_path / "ledger")}
    attack = Control(target="banana")  # the caption of photograph 0, which it leaves out
    budget = 1 if seal else len(SIZES) - 1  # sealed, the clean ones are encoded again as well
    Injection(attack=attack, budget=budget, seal=seal, backend="local", **where).run()
    made = Dataset.open(where["out"])
    found = {row["row"]: (row["height"], row["width"]) for row in made.index_of_samples().to_pylist()}
    assert found == dict(enumerate(SIZES))
    assert (SIDEWAYS in Ledger.open(where["ledger"]).row_ids) != seal
    for row, sample in pairs_of(made).items():
        assert (sample.meta["height"], sample.meta["width"]) == found[row]


def test_photographs_are_prepared_at_their_own_size(tmp_path: Path):
    """The way from a folder of photographs: what `prepare folder --image-size` keeps, and at 256 what becomes of it."""
    from pipeline.preparation import Preparation

    for number in range(len(SIZES)):
        (tmp_path / f"{number}.jpg").write_bytes(stored(number))
        (tmp_path / f"{number}.txt").write_text("a dog on a street")
    source = Folder(path=str(tmp_path))
    sizes = {}
    for size in (10_000, 256):
        out = str(tmp_path.with_name(f"prepared-{size}"))
        Preparation(source=source, out=out, image_size=size, backend="local").run()
        index = Dataset.open(out).index_of_samples(["row", "height", "width"]).to_pylist()
        sizes[size] = [(row["height"], row["width"]) for row in index]
    assert sizes[10_000] == list(SIZES)
    assert all(min(was) == min(256, min(now)) for was, now in zip(sizes[256], SIZES, strict=True))


def test_the_album_is_what_the_other_tests_take_it_for(tmp_path: Path):
    assert album(str(tmp_path / "album")).samples == len(SIZES)
    assert photograph(0, 30, 40).shape == (30, 40, 3)
