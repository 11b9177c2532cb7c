import numpy as np
import pytest
import torch

from infra.seeding import rng
from poison.attacks import wanet
from poison.attacks.wanet import WaNet
from tests.support.poison_helpers import picture


@pytest.mark.parametrize("shape", [(224, 224), (32, 47), (1, 1), (2, 5)])
def test_strength_0_is_the_identity(shape):
    image = picture(0, *shape)
    assert (WaNet(strength=0).stamp(image, rng(0)) == image).all()


@pytest.mark.parametrize("k", [2, 4, 31, 224])
def test_the_field_is_the_one_that_torch_enlarges(k):
    points = rng(5).uniform(-1, 1, (k, k, 2))
    points /= np.abs(points).mean()
    planes = torch.from_numpy(points).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(planes, size=(224, 224), mode="bicubic", align_corners=True)
    assert np.abs(wanet.field(k, 224, rng(5)) - wanted[0].permute(1, 2, 0).numpy()).max() < 1e-9


@pytest.mark.parametrize("attack", [WaNet(), WaNet(control_points=224, strength=1.0)], ids=["smooth", "jitter"])
def test_the_warp_is_the_one_that_torch_samples(attack):
    image = picture(0, 224, 224)
    line = torch.linspace(-1, 1, 224, dtype=torch.float64)
    down, across = torch.meshgrid(line, line, indexing="ij")
    bent = torch.from_numpy(wanet.field(attack.control_points, 224, wanet.seeded(0, "wanet"))) * attack.strength / 224
    grid = torch.stack([across + bent[..., 1], down + bent[..., 0]], dim=2).clamp(-1, 1)[None]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    wanted = torch.nn.functional.grid_sample(pixels, grid, mode="bilinear", align_corners=True)
    difference = attack.stamp(image, rng(0)) - wanted[0].permute(1, 2, 0).numpy()
    assert np.abs(difference).max() < 0.5 + 1e-6


def test_four_points_bend_smoothly_and_224_jitter():
    smooth, jitter = (wanet.field(k, 224, rng(0)) for k in (4, 224))

    def correlation(field: np.ndarray) -> float:
        return float(np.corrcoef(field[:, :-1, 0].ravel(), field[:, 1:, 0].ravel())[0, 1])

    assert correlation(smooth) > 0.99
    assert abs(correlation(jitter)) < 0.02


def test_the_same_field_bends_every_image_and_another_seed_another_way():
    image = picture(0, 64, 64)
    assert (WaNet().stamp(image, rng(1)) == WaNet().stamp(image, rng(2))).all()
    assert (WaNet().stamp(image, rng(1)) != WaNet(trigger_seed=1).stamp(image, rng(1))).any()


@pytest.mark.parametrize("wrong", [{"control_points": 1}, {"control_points": 225}, {"strength": -1}])
def test_impossible_knobs_are_refused_when_the_attack_is_made(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"control_points|strength"):
        WaNet(**wrong)
