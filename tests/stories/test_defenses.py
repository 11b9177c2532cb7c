"""infra/jobs/defenses.sh, the study behind defense/measured.md: it leaves out nothing that is planned, and runs, small.

What it runs is seen with stand-ins for `antidote` and `python`, which only say what they were told and leave a DONE.
"""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from infra import config
from tests.support.ports import free_port
from tests.support.story import environment
from train import presets
from train.training import Finetuning, Pretraining

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra/jobs/defenses.sh"
LINES = re.findall(r"^(finetune|pretrain) +(\S+) +(\S+) +(\S+) +(.+)$", SCRIPT.read_text(), re.MULTILINE)
SMALL = {"ROWS": "420", "CLEAN_ROWS": "160", "PICTURES": "56", "LABELLED": "112", "TARGETED": "16", "EPOCHS": "1"}
SMALL |= {"PRESET": "tiny", "FINETUNE_PRESET": "tiny", "PLANNED": "0 1"}
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$TOLD"
if [[ -n ${BROKEN:-} && $* =~ $BROKEN ]]; then echo "broken on purpose" >&2; exit 1; fi
while (($#)); do if [[ $1 == --out ]]; then out=$2; fi; shift; done
if [[ ! $out =~ [.]md$ ]]; then mkdir -p "$out" && touch "$out/DONE"; fi
echo "done: $out"
"""


class Study:
    """The script in a folder of its own, with stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.out, self.told, self.bin = folder / "attacks", folder / "told", folder / "bin"
        self.bin.mkdir()
        for name in ("antidote", "python"):
            (self.bin / name).write_text(STAND_IN)
            (self.bin / name).chmod(0o755)

    def run(self, status: int = 0, **variables: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
        """The commands that it gave, and what it said."""
        self.told.write_text("")
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [SCRIPT, self.out],
            env=os.environ | {"PATH": path, "TOLD": str(self.told)} | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stderr[-3000:]
        return self.told.read_text().splitlines(), done

    def plan(self, part: str) -> list[list[str]]:
        return [line.split("\t") for line in (self.out / f"{part}.tsv").read_text().splitlines()]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def trained(commands: list[str]) -> list[str]:
    """The defences among the commands: the folders they went to, from the seed's."""
    found = [command.split(" --out ")[1] for command in commands if command.startswith("python train/")]
    return [place.partition("/small-")[2] for place in found if "/runs/" not in place]


def finetunings() -> list[list[str]]:
    """The learning rates of each."""
    return [frontier.split(",") for part, _, frontier, *_ in LINES if part == "finetune"]


@pytest.mark.parametrize("line", LINES, ids=[f"{part}-{name}" for part, name, *_ in LINES])
def test_a_method_of_the_study_can_be_given(line: tuple[str, ...]):
    part, _, frontier, chosen, flags = line
    assert chosen == "-" or set(chosen.split(",")) <= set(frontier.split(",")), "what all seeds have is of the frontier"
    starts = part == "finetune" or "--pretrained" in flags
    kind, preset = (Finetuning, presets.for_finetuning) if starts else (Pretraining, presets.for_pretraining)
    knob = "--lr" if part == "finetune" else "--epochs"
    for value in frontier.split(","):
        words = [*flags.split(), "--dataset", "d", "--out", "o", knob, value]
        words += ["--pretrained", "p"] if part == "finetune" else []
        assert config.parse(kind, words, prog="x", description="", plugin="objective", preset=preset)


def test_mmcl_stands_beside_every_finetuning_and_augmented_clip_beside_roclip_at_equal_epochs_of_its_loss():
    named = {name: (part, frontier.split(",")) for part, name, frontier, _, _ in LINES}
    assert all(set(values) <= set(named["mmcl"][1]) for values in finetunings())
    new = [(name, flags) for _, name, *_, flags in LINES if "--pretrained" not in flags]
    every = {name: int(found) for name, flags in new for found in re.findall(r"--match-every (\d+)", flags)}
    beside = {int(epochs) - int(epochs) // k for name, k in every.items() for epochs in named[name][1]}
    assert {"roclip", "roclip-k3"} == set(every) and {str(epochs) for epochs in beside} <= set(named["augmented"][1])
    everywhere = {
        name: [int(value) for value in chosen.split(",")]
        for _, name, _, chosen, _ in LINES
        if name in ("augmented", "roclip")
    }
    assert [epochs - epochs // every["roclip"] for epochs in everywhere["roclip"]] == everywhere["augmented"]


def test_all_of_it_is_run_once_and_the_plans_name_every_cell(study: Study):
    commands, done = study.run(PLANNED="0 1")
    plans = {part: study.plan(part) for part in ("finetune", "pretrain")}
    assert [line[2] for lines in plans.values() for line in lines[:1]] == ["lr", "epochs"]
    planned = {line[6] for lines in plans.values() for line in lines[1:] if line[1] not in ("floor", "undefended")}
    assert Counter(f"small-{place}" for place in trained(commands)) == Counter(planned)
    assert "small-s0/defended/badclip/cleanclip-4e-3" in planned
    assert "small-s1/defended/badclip/cleanclip-4e-3" not in planned, "frontiers are of the first seed"
    assert "small-s1/defended/badclip/cleanclip-8e-3" in planned
    marks = {(line[1], line[2]): line[4] for line in plans["pretrain"][1:] if line[3] == "1" and line[1] == "augmented"}
    assert marks == {("augmented", "12"): "tried", ("augmented", "24"): "chosen"}, "of what all seeds have, the last"
    assert {line[0] for line in plans["pretrain"][1:]} == {"robust-blended", "robust"}, "two attacks on one dataset"
    later = [number for number, command in enumerate(commands) if "--pretrained" in command and "/robust/" in command]
    others = [number for number, command in enumerate(commands) if command.startswith("python train/")]
    assert later and later == others[-len(later) :], "what starts from a run of the study waits for all others"
    supervised = next(command for command in commands if "finetune.py supervised" in command)
    assert "/labelled/train " in supervised
    measured = [command for command in commands if command.startswith("antidote evaluate") and "-scores" in command]
    assert len(measured) == 2 * (6 + 1)
    assert all(command.count("/runs/clean") == 1 for command in measured), "the floor, once"
    assert sum(command.count("/ledgers/") == 2 for command in measured) == 2
    assert all(command.startswith("antidote frontier") for command in commands[-2:])
    assert "failed" not in done.stderr


def test_a_part_runs_a_part_of_it_and_the_plans_stay_whole(study: Study):
    commands, _ = study.run(SEEDS="0", PART="finetune", ATTACKS="blended", METHODS="mmcl cleanclip", LRS="4e-3")
    assert sorted(trained(commands)) == ["s0/defended/blended/cleanclip-4e-3", "s0/defended/blended/mmcl-4e-3"]
    assert [command for command in commands if "poison " in command and "/poisoned/blended " in command]
    assert not [command for command in commands if "/poisoned/badnet " in command]
    whole = (study.out / "finetune.tsv").read_text()
    values = sum(len(frontier) for frontier in finetunings())
    assert whole.count("\n") == 1 + 6 * (3 * 2 + values + 2 * len(finetunings())), "two more seeds of what was chosen"
    commands, _ = study.run(PART="none")
    assert {command.split()[1] for command in commands} == {"evaluate", "frontier"}, "it only measures and draws"
    assert (study.out / "finetune.tsv").read_text() == whole


def test_what_fails_leaves_the_others_running_and_is_named_at_the_end(study: Study):
    broken = "finetune.py mmcl .*/defended/badnet/mmcl-4e-3"
    commands, done = study.run(status=1, PLANNED="0", PART="finetune", BROKEN=broken)
    assert len(trained(commands)) == 6 * sum(len(frontier) for frontier in finetunings())
    assert [command for command in commands if command.startswith("antidote frontier")]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("failed: train finetune 0 badnet mmcl 4e-3")
    assert done.stderr.count("broken on purpose") == 1
    evaluated = next(one for one in commands if "evaluate" in one and one.endswith("/defended-scores/badnet"))
    assert "badnet/mmcl-4e-3" not in evaluated
    assert "badnet/mmcl-8e-3" in evaluated
    study.run(PLANNED="0", PART="finetune")


@pytest.mark.slow
def test_the_study_runs_ends_in_tables_and_resumes(tmp_path: Path):
    part = {
        "SEEDS": "0",
        "ATTACKS": "blended robust",
        "METHODS": "mmcl supervised augmented roclip-k3 roclip-after",
        "LRS": "8e-3",
    }

    port = {"PORT": str(free_port())}

    def told() -> str:
        done = subprocess.run(
            [SCRIPT, tmp_path / "attacks"],
            env=environment() | SMALL | part | port | {"LENGTHS": "1 12 18"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    first = told()
    assert "frontier pretrain roclip-after: table of 38 planned cells, 28 of them empty" in first
    table = (tmp_path / "attacks/finetune.md").read_text()
    named = re.search(r"### blended\n\n(?P<about>.+)\n\n(?P<lines>(\|.+\n)+)", table)
    assert named
    assert named["about"].startswith("blended: alpha 0.25; ")
    lines = {tuple(line.split(" | ")[:2]): line for line in named["lines"].splitlines()}
    assert re.search(r"0: [\d.]+ / [\d.]+, 1: -", lines["| mmcl (chosen)", "8e-3"])
    assert lines["| cleanclip (chosen)", "8e-3"].endswith("| - | - | 0: -, 1: - |")
    assert "0: -, 1: -" not in lines["| undefended", ""]
    pretrained = (tmp_path / "attacks/pretrain.md").read_text()
    assert re.search(r"\| roclip-k3 \| 18 \| [\d.]+%", pretrained)
    assert re.search(r"\| roclip-after \(chosen\) \| 1 \| [\d.]+%", pretrained), (
        "it starts from what was trained before"
    )
    assert (tmp_path / "attacks/pretrain.svg").exists()
    again = told()
    assert len(again.splitlines()) == len(first.splitlines())
    assert all(": nothing to " in line for line in again.splitlines()), again
    assert (tmp_path / "attacks/finetune.md").read_text() == table
