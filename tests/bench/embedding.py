"""What it saves to encode each image and text once, against encoding for every task, and a pass of CLIP_benchmark.

    python tests/bench/embedding.py [--images 100] [--rounds 2] [--python INTERPRETER] [--large 32]

The grid is 4 runs x 2 test sets x 5 tasks x 2 attacks, on the picture book at the demo's scale; the models are as they
were before training. `per_task` measures the same cells one by one and encodes for each what that needs, no more, as
CLIP_benchmark does. The two take turns. Then one zero-shot pass, model loaded, of ours and of CLIP_benchmark's code
in an environment of its own (--python; without it, made by uv) over the same images: on the demo's model, and RN50 at
224 on `--large` images.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from eval.measuring import embed, plan, scoring
from eval.measuring.evaluation import Evaluation
from eval.store import runs
from eval.tasks.zeroshot import ZeroShot
from pipeline import testsets
from pipeline.dataset import Dataset
from pipeline.picturebook import draw, scenes
from poison.attacks.badnet import BadNet
from poison.attacks.blended import Blended
from poison.writing.injection import Injection
from tests.bench.loading import drawn
from tests.support import clip_benchmark, figures, uv
from tests.support.eval_helpers import finished_run
from train import model
from train.embedding import Embedder

TASKS = ("zeroshot", "attack_success", "linear_probe", "knn", "per_class")
DEMO = "picturebook-resnet"


def world(folder: str, images: int) -> Evaluation:
    dataset = drawn(f"{folder}/train", 200)
    ledgers, runs_of = [], [dataset, dataset]
    for name, attack in (("badnet", BadNet(target="banana")), ("blended", Blended(target="banana"))):
        Injection(
            attack=attack, dataset=dataset.url, out=f"{folder}/{name}", ledger=f"{folder}/{name}-ledger", budget=10,
            backend="local",
        ).run()  # fmt: skip
        ledgers.append(f"{folder}/{name}-ledger")
        runs_of.append(Dataset.open(f"{folder}/{name}"))
    for number in range(2):
        labelled(f"{folder}/test{number}", "test", images, 10_000 * number, 32)
        labelled(f"{folder}/test{number}", "train", images, 10_000 * number + 5000, 32)
    return Evaluation(
        runs=tuple(
            finished_run(f"{folder}/runs/{number}", data, seed=number, name=DEMO) for number, data in enumerate(runs_of)
        ),
        testsets=tuple(f"{folder}/test{number}" for number in range(2)),
        ledger=tuple(ledgers),
        tasks=TASKS,
        out=f"{folder}/scores",
        backend="local",
    )


def labelled(url: str, split: str, count: int, first: int, size: int) -> None:
    shown = (
        (draw.jpeg(draw.labelled_picture(0, first + n, size)), "jpg", scenes.labelled(0, first + n)[0])
        for n in range(count)
    )
    testsets.write(url, shown, scenes.THINGS, scenes.TEMPLATES, split=split)


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How many images and texts are encoded, and how many different ones, by model."""
    shown: list[int] = []
    read: list[int] = []
    images, texts = Embedder.measured, Embedder.texts

    def look(embedder: Embedder, pixels: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        shown.extend(hash((embedder.identity, one.numpy().tobytes())) for one in pixels)
        return images(embedder, pixels)

    def tell(embedder: Embedder, given: list[str]) -> np.ndarray:
        read.extend(hash((embedder.identity, one)) for one in given)
        return texts(embedder, given)

    found: dict[str, int] = {}
    with mock.patch.object(Embedder, "measured", look), mock.patch.object(Embedder, "texts", tell):
        yield found
    found |= {"images": len(shown), "different_images": len(set(shown))}
    found |= {"texts": len(read), "different_texts": len(set(read))}


def once(grid: Evaluation) -> None:
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"ANTIDOTE_CACHE": cache}):
        for job in jobs(grid):
            loaded = scoring.load(job.run, torch.device("cpu"))
            for cell in job.cells:
                cell.task.measure(scoring._embedded(job, cell, loaded))


def per_task(grid: Evaluation) -> None:
    """Every cell with a cache of its own; clean images are not encoded for a cell under an attack, which needs none."""
    for job in jobs(grid):
        loaded = scoring.load(job.run, torch.device("cpu"))
        for cell in job.cells:
            needed = embed._encoded if cell.attack is None else only(job.train)
            with (
                tempfile.TemporaryDirectory() as cache,
                mock.patch.dict(os.environ, {"ANTIDOTE_CACHE": cache}),
                mock.patch.object(embed, "_encoded", needed),
            ):
                cell.task.measure(scoring._embedded(job, cell, loaded))


def only(train: testsets.TestSet | None) -> Callable[..., dict[str, np.ndarray]]:
    """`embed._encoded` for the images to learn from alone; of others there is nothing."""
    encoded = embed._encoded

    def needed(embedder: Embedder, test: testsets.Images, cpus: int) -> dict[str, np.ndarray]:
        if test is train:
            return encoded(embedder, test, cpus)
        return {"images": np.zeros((len(test.pictures), 1), np.float32), "lengths": np.zeros(0)}

    return needed


def jobs(grid: Evaluation) -> list[scoring.Job]:
    return plan.jobs(grid._grid(grid.out), grid._tasks(), grid.out, grid.seed, grid.cpus)


def seconds(work: Callable[[Evaluation], None], grid: Evaluation) -> float:
    start = time.perf_counter()
    work(grid)
    return time.perf_counter() - start


def zero_shot(run: str, testset: str, python: str) -> tuple[float, float]:
    """Seconds of a pass of ours and of CLIP_benchmark's, each the best of three, on one thread of torch. The numbers
    are the same."""
    loaded = scoring.load(runs.read(run, "/"), torch.device("cpu"))
    best = float("inf")
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"ANTIDOTE_CACHE": cache}):
            start = time.perf_counter()
            measured = ZeroShot().measure(embed.embed(loaded, testsets.read(testset), None, seed=0))
            best = min(best, time.perf_counter() - start)
    command = [python, str(clip_benchmark.__file__), f"{run}/open_clip", testset]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    ours = [one.value for one in measured.measures]
    assert np.allclose(ours, [theirs["acc1"], theirs["acc5"]], atol=1e-6), (ours, theirs)
    return best, theirs["seconds"]


def exported(url: str, dataset: Dataset, name: str) -> str:
    run = finished_run(url, dataset, name=name)
    model.export(model.create(model.architecture(name), 0), model.architecture(name), run)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="of each split of each test set of the grid")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--large", type=int, default=32, help="images for RN50 at 224; 0: none")
    parser.add_argument("--python", default="", help="of an environment with clip-benchmark 1.6.2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {"images": given.images}
    with tempfile.TemporaryDirectory() as folder:
        grid = world(folder, given.images)
        ratios, took = [], {"once": [0.0], "per_task": [0.0]}
        for number in range(given.rounds):
            ways = {"once": once, "per_task": per_task}
            for name in list(ways)[:: 1 if number % 2 else -1]:
                with counted() as encoded:
                    took[name].append(seconds(ways[name], grid))
                if name == "once":
                    assert encoded["images"] == encoded["different_images"], encoded
                    assert encoded["texts"] == encoded["different_texts"], encoded
                found |= {f"{name}_{what}": encoded[what] for what in ("images", "texts")}
            ratios.append(took["per_task"][-1] / took["once"][-1])
            print(f"round {number}: once {took['once'][-1]:.1f} s, per task {took['per_task'][-1]:.1f} s", flush=True)
        found |= {f"{name}_seconds": statistics.median(each[1:]) for name, each in took.items()}
        found["per_task_over_once"] = statistics.median(ratios)

        python = given.python or uv.environment(Path(folder) / "environment", uv.CLIP_BENCHMARK)
        data = Dataset.open(f"{folder}/train")
        labelled(f"{folder}/pass", "test", 1000, 20_000, 32)
        sizes = [("demo", DEMO, f"{folder}/pass", 1000)]
        if given.large:
            labelled(f"{folder}/large", "test", given.large, 20_000, 224)
            sizes.append(("rn50", "RN50", f"{folder}/large", given.large))
        for name, architecture, testset, count in sizes:
            ours, theirs = zero_shot(exported(f"{folder}/runs/{name}", data, architecture), testset, python)
            found |= {f"{name}_images_per_second": count / ours}
            found |= {f"{name}_clip_benchmark_images_per_second": count / theirs}
            found[f"{name}_over_clip_benchmark"] = theirs / ours
    print(figures.line(found))


if __name__ == "__main__":
    main()
