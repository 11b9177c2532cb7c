"""What large pages bring to a step of learning: its time without them over its time with them (infra/memory.py).

    python tests/bench/pages.py [--model picturebook-resnet] [--batch 64] [--rounds 5] [--steps 20]

Each time is of a process of its own, with one thread, since glibc reads its tunables before a process begins; small and
large take turns. Medians over rounds. small_over_large: by the clock; ..._by_cpu: by processor time, the kernel's share
included; faults_a_step: minor page faults, small and large.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from infra.memory import PAGES, VARIABLE, tunables
from tests.support import figures


def child(name: str, batch: int, steps: int) -> None:
    """Prints seconds by the clock, by the processor, and page faults, each of one step."""
    import torch

    from tests.bench.step import ours
    from train import model

    torch.set_num_threads(1)
    step = ours(model.architecture(name), batch)
    for _ in range(3):
        step()
    faults, spent, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    took = time.perf_counter() - start, time.process_time() - spent
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(json.dumps([each / steps for each in (*took, faults)]))


def measured(large: bool, given: argparse.Namespace) -> list[float]:
    command = [sys.executable, "-m", "tests.bench.pages", "--child"]
    command += ["--model", given.model, "--batch", str(given.batch), "--steps", str(given.steps)]
    run = subprocess.run(
        command,
        env=os.environ | {VARIABLE: tunables() if large else f"{PAGES}=0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: list[float] = json.loads(run.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="picturebook-resnet")
    for name, value in {"batch": 64, "rounds": 5, "steps": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.model, given.batch, given.steps)
        return
    pairs = [(measured(False, given), measured(True, given)) for _ in range(given.rounds)]
    for number, (small, large) in enumerate(pairs):
        print(f"round {number}: {small[0] * 1e3:.0f} ms a step, {large[0] * 1e3:.0f} with large pages")
    by_clock, by_cpu = ([small[i] / large[i] for small, large in pairs] for i in range(2))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    found = {"small_over_large": statistics.median(by_clock)}
    found["small_over_large_by_cpu"] = statistics.median(by_cpu)
    found["faults_a_step"] = [round(statistics.median(each[i][2] for each in pairs)) for i in range(2)]
    print(figures.line(found))


if __name__ == "__main__":
    main()
