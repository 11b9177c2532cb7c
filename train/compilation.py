"""torch.compile, or one line that says why not: it works at the first use of a tower, somewhere below a step."""

import contextlib
from collections.abc import Iterator

import torch

_ITS_OWN = ("torch._dynamo", "torch._inductor", "torch._functorch")


def prepare() -> None:
    """Before the first use. What a compiled model draws, dropout say, is what the model itself would draw: the two
    passes of micro-batches are compiled apart, and shall drop the same."""
    import torch._inductor.config as inductor

    inductor.fallback_random = True


@contextlib.contextmanager
def refused_in_one_line(asked_for: bool) -> Iterator[None]:
    """Raises ValueError in place of what the compiler raises. asked_for: otherwise it does nothing."""
    try:
        yield
    except Exception as error:
        kind = type(error)
        if not asked_for or not kind.__module__.startswith(_ITS_OWN):
            raise
        lines = str(error).splitlines()
        complaint = next((line for line in lines if "error: " in line), str(error))  # a C++ compiler's, if it has one
        said = " ".join(complaint.split())[:200]
        raise ValueError(
            f"--compile does not work for this model on this machine with torch {torch.__version__} "
            f"({kind.__name__}: {said}): leave it out"
        ) from error
