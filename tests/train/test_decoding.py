"""Decoding on the device: the batches of the host's way, but for a decoder's rounding."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from defense.objectives.cleanclip import CleanClip
from infra.errors import Damaged
from pipeline import dataset
from pipeline.shards import Sample, write_shard
from tests.support import gpu
from tests.support.learning import stream
from train import decoding
from train.job import check
from train.objectives.clip import Clip
from train.presets import Recipe
from train.ranks import Place
from train.stream import Batch
from train.training import Pretraining

CPU, COUNT = torch.device("cpu"), 14
TURNED = Image.Exif()
TURNED[0x0112] = 6


def file(number: int, size: tuple[int, int], kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """Smooth colours, other ones for each number."""
    grain = np.random.default_rng(number).integers(0, 256, (6, 9, 3), np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(out, kind, **({"quality": 95} | options if kind == "JPEG" else options))
    return out.getvalue()


FILES = {  # by what they are, and whether the device takes it for a model of 32 pixels
    "wide": (file(0, (90, 60)), True),
    "high": (file(1, (60, 91), subsampling=0), True),
    "subsampled": (file(2, (64, 64), subsampling=2), True),
    "odd": (file(3, (33, 47), subsampling=1), True),
    "grey": (file(4, (70, 50), mode="L"), True),
    "large": (file(5, (500, 400)), True),
    "too large": (file(6, (600, 100)), False),
    "progressive": (file(7, (90, 60), progressive=True), False),
    "turned": (file(8, (90, 60), exif=TURNED), False),
    "cmyk": (file(9, (90, 60), mode="CMYK"), False),
    "png": (file(10, (90, 60), "PNG"), False),
    "webp": (file(11, (90, 60), "WEBP"), False),
    "of the model's size": (file(12, (32, 32)), False),
    "short": (file(13, (90, 32)), False),
}


def made(url: str, files: list[bytes]) -> str:
    kinds = {b"\x89": "png", b"R": "webp"}
    pairs = [
        Sample(f"{row:03}", row, data, kinds.get(data[:1], "jpg"), f"number {row}", {})
        for row, data in enumerate(files)
    ]
    dataset.claim(url, {"made": len(files)})
    dataset.commit(url, 0, write_shard(f"{url}.tar", pairs))  # type: ignore[arg-type]
    dataset.finalise(url, 1)
    return url


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return made(str(tmp_path_factory.mktemp("decoding") / "data"), [data for data, _ in FILES.values()])


def batches(url: str, device: torch.device | None, augment: str, workers: int = 0, first_step: int = 0) -> list[Batch]:
    """Of an epoch; device: where what can be is decoded, None: nowhere, as ever."""
    source = stream(url, Clip(), batch=COUNT // 2, workers=workers, augment=augment, on_device=device is not None)
    return [decoding.completed(batch, device or CPU) for batch in source.epoch(1, first_step)]


def by_name(found: list[Batch]) -> dict[str, np.ndarray]:
    rows = torch.cat([batch["rows"] for batch in found]).tolist()
    pixels = torch.cat([batch["images"]["image"].cpu() for batch in found])
    return dict(zip([list(FILES)[row] for row in rows], pixels.numpy().astype(int), strict=True))


def same(one: Batch, other: Batch) -> bool:
    """But for how long a worker took."""
    pairs = [(one[name], other[name]) for name in ("rows", "roles", "labels", "present")]
    pairs += [(one[kind][view], other[kind][view]) for kind in ("images", "texts") for view in one[kind]]
    return one.keys() == other.keys() and all(torch.equal(first, second) for first, second in pairs)


def test_the_device_takes_plain_jpegs_larger_than_the_model():
    assert {name: decoding.takes(data, 32) is not None for name, (data, _) in FILES.items()} == {
        name: taken for name, (_, taken) in FILES.items()
    }
    marked = FILES["wide"][0].replace(b"JFIF\0", b"Adobe", 1)  # colours may lie there as they are
    assert decoding.takes(marked[:11] + b"\0" + marked[12:], 32) is None


@pytest.mark.gpu
@pytest.mark.parametrize("augment", ["none", "flip_crop"])
def test_a_gpu_shows_what_the_host_does(data, augment):
    device = gpu.device()
    compared(data, augment, device)
    decoding.check(device)


@pytest.mark.parametrize("augment", ["none", "flip_crop"])
def test_both_ways_show_the_same_within_two_grey_levels_and_the_rest_to_the_byte(data, augment):
    compared(data, augment, CPU)


def compared(data: str, augment: str, device: torch.device) -> None:
    host, ours = batches(data, None, augment), batches(data, device, augment)
    for one, other in zip(host, ours, strict=True):
        assert torch.equal(one["rows"], other["rows"])
        assert torch.equal(one["texts"]["text"], other["texts"]["text"])
        assert other["images"]["image"].device.type == device.type
        assert other["images"]["image"].is_contiguous(memory_format=torch.channels_last)
        assert set(other) == set(one)
    wanted = by_name(host)
    for name, found in by_name(ours).items():
        difference = np.abs(found - wanted[name])
        if not FILES[name][1]:
            assert not difference.any(), name
        elif device.type == "cpu":
            assert difference.max() <= 2, name
        else:  # how colours of half the size are widened is a decoder's own choice
            assert difference.mean() <= 2, name
        assert found.std() > 10, name


def test_workers_and_a_resumed_epoch_change_nothing(data):
    whole = batches(data, CPU, "flip_crop")
    assert len(whole) == 2
    there = batches(data, CPU, "flip_crop", workers=1)
    assert all(same(one, other) for one, other in zip(whole, there, strict=True))
    [rest] = batches(data, CPU, "flip_crop", first_step=1)
    assert same(whole[1], rest)


def test_evaluation_is_decoded_on_the_host(data):
    source = stream(data, Clip(), batch=7, on_device=True)
    for batch in source.evaluation(np.arange(7)):
        assert not len(batch["coded"]["places"])
        assert batch["images"]["image"].float().std(dim=(1, 2, 3)).min() > 10


def test_an_image_that_nobody_can_read_is_named_and_the_others_are_not(tmp_path):
    files = [FILES["wide"][0], FILES["high"][0][:1200]]
    url = made(str(tmp_path / "data"), files)
    [batch] = stream(url, Clip(), batch=2, on_device=True).epoch(0)
    assert len(batch["coded"]["places"]) == 2
    with pytest.raises(Damaged, match=r"^row 1: not a readable JPEG, PNG or WebP image: .*; mend its image"):
        decoding.completed(batch, CPU)


def test_what_the_device_refuses_the_host_decodes_and_it_is_said_once(data, monkeypatch, capsys):
    """torchvision's decoder, here on a CPU, refuses nothing that we hand on; a GPU's may."""
    decode = decoding.on_device

    def refusing(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        if any(file[-2:].tolist() == [0xFF, 0xD9] and len(file) in odd for file in files):
            raise RuntimeError("not on this device\nsomewhere in C++")
        return decode(files, device)

    [batch] = stream(data, Clip(), batch=COUNT, on_device=True).epoch(0)
    odd = {int(length) for length in batch["coded"]["lengths"][:2]}
    whole = decoding.completed(batch, CPU)["images"]["image"]
    monkeypatch.setattr(decoding, "on_device", refusing)
    monkeypatch.setattr(decoding, "TOLD", set())
    shown = decoding.completed(batch, CPU)["images"]["image"]
    assert (shown.int() - whole.int()).abs().max() <= 2
    said = [line for line in capsys.readouterr().err.splitlines() if "does not decode" in line]
    assert len(said) == 1
    assert "not on this device" in said[0] and "C++" not in said[0]


def test_it_is_refused_in_one_line_without_a_gpu_and_of_objectives_with_views_of_their_own(data, tmp_path):
    given = {"dataset": data, "out": str(tmp_path / "run"), "model": "tiny-vit", "workers": 0, "decode": "device"}
    recipe = Recipe(batch=7, epochs=2, lr=1e-3)
    with pytest.raises(ValueError, match=r"^--decode device needs a GPU: leave it out$"):
        Pretraining(objective=Clip(), recipe=recipe, **given).run()
    assert not (tmp_path / "run").exists()
    job = Pretraining(objective=CleanClip(), recipe=recipe, **given).job()
    with pytest.raises(ValueError, match=r"^cleanclip makes its views of images that the host has decoded: leave --"):
        check(job, Place(0, 1, 0, torch.device("cuda")))
    assert "decode" in job.config
    assert "decode" not in Pretraining(objective=Clip(), recipe=recipe, **given | {"decode": "host"}).job().config
