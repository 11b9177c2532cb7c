"""What a kill would be, if a test could survive one: a run that ends in the middle of a step."""

import pytest
from torch import nn

from train import loop, optim
from train.training import Training


class Stopped(BaseException):
    """No `except Exception` of the code under test may take it for an error of its own."""


def stop(run: Training, step: int) -> None:
    """Runs up to this attempt's step number `step`, from 1: after the optimiser's step, before anything is saved."""
    calls, clamp = iter(range(1, 10**6)), optim.clamp_logit_scale

    def clamp_or_stop(clip: nn.Module) -> None:
        clamp(clip)
        if next(calls) == step:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.optim, "clamp_logit_scale", clamp_or_stop)
        with pytest.raises(Stopped):
            run.run()
