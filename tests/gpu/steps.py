"""The steps of the kit: each a process of its own, whose last line is one JSON object of what it found."""

from dataclasses import dataclass

LONGEST = 480  # seconds, of a step
ALL = 1500  # of all of them


@dataclass(frozen=True)
class Step:
    """words: the module and its arguments on a GPU; tiny: those on a CPU, in their place. seconds: it is ended then."""

    name: str
    title: str
    words: tuple[str, ...]
    tiny: tuple[str, ...]
    seconds: int

    def command(self, device: str, folder: str) -> list[str]:
        """What Python runs. folder: where a step may keep what it makes."""
        words = self.words if device == "cuda" else self.tiny
        return ["-m", *(word.format(folder=folder) for word in words), "--device", device]


def _towers(name: str, small: str) -> Step:
    module, data = ("tests.gpu.towers",), ("--folder", "{folder}/data")
    return Step(
        name,
        f"{name} at 224 pixels, batches of 512 and 1,024, beside open_clip's step",
        (*module, *data, "--model", name, "--batches", "512", "1024"),
        (*module, *data, "--model", small, "--batches", "8", "16", *"--rounds 1 --steps 1 --run-steps 6".split()),
        300,
    )


STEPS = (
    Step("tests", "all tests that are marked gpu", ("tests.gpu.marked",), ("tests.gpu.marked",), 360),
    _towers("RN50", "tiny-resnet"),
    _towers("ViT-B-32", "tiny-vit"),
    Step(
        "cleanclip",
        "a CleanCLIP step with the views in one pass, over two passes",
        ("tests.gpu.passes", "--models", "RN50", "ViT-B-32", "--batch", "512"),
        ("tests.gpu.passes", "--models", "tiny-resnet", "tiny-vit", "--batch", "8", "--rounds", "1"),
        180,
    ),
    Step(
        "roclip",
        "a RoCLIP step over one of CLIP, by pool and way of searching it",
        ("tests.gpu.matched", "--model", "RN50", "--batch", "512", "--capacities", "21845", "65536"),
        tuple("tests.gpu.matched --model tiny-vit --batch 16 --capacities 300 500 --rounds 1".split()),
        240,
    ),
    Step(
        "decoding",
        "JPEGs decoded and shrunk on the GPU, over one core of the host",
        ("tests.gpu.decoding", "--batch", "512"),
        tuple("tests.gpu.decoding --batch 8 --sizes 256 --rounds 1".split()),
        120,
    ),
)
