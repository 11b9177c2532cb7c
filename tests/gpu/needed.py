"""What the kit imports beside Python, and what of it a machine lacks. Imports none of it.

python -m tests.gpu.needed          names what is missing, a line each; exit status 1 if anything is
"""

import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """name: the distribution's; module: what is imported of it; usual: whether a machine with torch for GPUs, made for
    learning, has it as a rule, so that no wheel is brought."""

    name: str
    module: str
    usual: bool


# Not among the usual ones is what is of open_clip, or small and seldom.
PACKAGES = (
    Package("torch", "torch", True),
    Package("torchvision", "torchvision", True),
    Package("numpy", "numpy", True),
    Package("pillow", "PIL", True),
    Package("pyarrow", "pyarrow", True),
    Package("safetensors", "safetensors", True),
    Package("timm", "timm", True),
    Package("huggingface-hub", "huggingface_hub", True),
    Package("fsspec", "fsspec", True),
    Package("regex", "regex", True),
    Package("pytest", "pytest", True),
    Package("tensorboard", "tensorboard", True),
    Package("tqdm", "tqdm", True),
    Package("xxhash", "xxhash", False),
    Package("open-clip-torch", "open_clip", False),
    Package("ftfy", "ftfy", False),
    Package("wcwidth", "wcwidth", False),
    Package("tyro", "tyro", False),
    Package("docstring-parser", "docstring_parser", False),
    Package("typeguard", "typeguard", False),
)


def missing() -> list[str]:
    """The distributions that are not there."""
    return [package.name for package in PACKAGES if importlib.util.find_spec(package.module) is None]


def main() -> int:
    found = missing()
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
