"""A study's plan as data: rows, shared steps, digests, and what cannot be read."""

import re
from pathlib import Path

import pytest

from defense.scanning.filtering import Filter
from defense.scanning.scanning import Scan
from eval.measuring.assessing import Assessment
from eval.studies import plan, steps
from eval.studies.plan import Plan
from eval.studies.steps import Row, words
from infra import config
from pipeline.labelling import Labelling
from pipeline.preparation import Preparation
from poison.learning.optimization import Optimization
from poison.writing.injection import Injection
from train import presets
from train.training import Finetuning, Pretraining

SMALL = """
seeds = [0, 1]
attacks = ["a", "b"]
methods = ["floor", "undefended", "mmcl", "after"]
metrics = ["zeroshot.accuracy@1"]
order = ["seed", "chosen"]
[variables]
port = 1
size = "--size {big}"
big = 3
measure = "scores"
[attack.a]
[attack.b]
big = 4
[method.floor]
step = "clean"
beside = "undefended"
[method.undefended]
step = "victim"
[method.mmcl]
step = "cured"
values = ["1e-3", "2e-3"]
chosen = "2e-3"
[method.after]
step = "more"
values = ["1"]
[step.pairs]
run = "prepare --port {port} --out {here}/train"
minutes = "2"
alone = true
[step.clean]
run = "train --seed {seed+100} --dataset {here}/train --out {here}/clean"
needs = "pairs"
[step.victim]
run = "train {size} --dataset {here}/train --out {here}/{attack}"
needs = "pairs"
minutes = "1.5 {big}"
[step.cured]
run = "train --lr {value} --out {here}/{method}-{attack}-{value}"
needs = "victim"
[step.more]
run = "train --from {here}/mmcl-{attack}-2e-3 --out {here}/after-{attack}"
needs = "mmcl:2e-3"
[step.scores]
run = "evaluate --runs {runs} --out {here}/scores-{attack}"
"""
KINDS = {"prepare": (Preparation, "source", None), "testset": (Labelling, "source", None)}
KINDS |= {"poison": (Injection, "attack", None), "optimize": (Optimization, None, None)}
KINDS |= {"pretrain": (Pretraining, "objective", presets.for_pretraining)}
KINDS |= {"finetune": (Finetuning, "objective", presets.for_finetuning)}
KINDS |= {"scan": (Scan, None, None), "filter": (Filter, None, None), "assess": (Assessment, None, None)}


def small(folder: Path, text: str = SMALL, *settings: str) -> Plan:
    path = folder / "small.toml"
    path.write_text(text)
    return plan.read(str(path), settings)


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_rows_stand_in_the_order_of_use_and_frontiers_are_of_the_first_seed(tmp_path: Path):
    names = [row.name for row in steps.rows(small(tmp_path), "/o")]
    first = ["a.floor.s0", "a.undefended.s0", "a.mmcl.2e-3.s0", "b.floor.s0", "b.undefended.s0", "b.mmcl.2e-3.s0"]
    assert names[:6] == first
    assert names[6:10] == ["a.mmcl.1e-3.s0", "a.after.1.s0", "b.mmcl.1e-3.s0", "b.after.1.s0"]
    assert names[10:] == [name.replace("s0", "s1") for name in first]


def test_attacks_that_are_not_repeated_are_of_the_first_seed(tmp_path: Path):
    text = SMALL.replace('attacks = ["a", "b"]', 'attacks = ["a", "b"]\nrepeated = ["b"]')
    names = [row.name for row in steps.rows(small(tmp_path, text), "/o")]
    assert [name for name in names if name.endswith("s1")] == ["b.floor.s1", "b.undefended.s1", "b.mmcl.2e-3.s1"]
    assert sorted(name for name in names if name.endswith("s0")) == sorted(
        row.name for row in steps.rows(small(tmp_path), "/o") if row.seed == 0
    )


def test_a_command_is_one_step_whoever_needs_it_and_comes_after_what_it_needs(tmp_path: Path):
    rows = steps.rows(small(tmp_path), "/my out")
    there = {step for row in rows for step in row.steps}
    commands = [step.command for step in there]
    assert len(commands) == len(set(commands))
    assert sum(step.name == "pairs" for step in there) == 2, "one a seed"
    for row in rows:
        for number, step in enumerate(row.steps):
            assert set(step.needs) <= set(row.steps[:number])
    found = by_name(rows)
    floor = found["a.floor.s0"]
    clean, victim = "/my out/small-s0/clean", "/my out/small-s0/a"
    assert floor.measures[0].command == ("evaluate", "--runs", clean, victim, "--out", "/my out/small-s0/scores-a")
    assert floor.run == clean and floor.scores == "/my out/small-s0/scores-a"
    assert [step.label for step in found["a.after.1.s0"].steps] == [
        "pairs small-s0/train",
        "victim small-s0/a",
        "cured small-s0/mmcl-a-2e-3",
        "more small-s0/after-a",
        "scores small-s0/scores-a of small-s0/after-a",
    ]
    victims = {step.out: step for step in there if step.name == "victim"}
    assert victims[victim].command[:3] == ("train", "--size", "3")
    assert victims["/my out/small-s1/b"].command[:3] == ("train", "--size", "4")
    assert victims["/my out/small-s1/b"].minutes == 6.0
    assert "101" in next(step for step in there if step.out == "/my out/small-s1/clean").command


def test_a_digest_is_of_the_definition_and_of_nothing_else(tmp_path: Path):
    before = by_name(steps.rows(small(tmp_path), "/here"))
    elsewhere = by_name(steps.rows(small(tmp_path, SMALL, "port=9"), "/there"))
    assert {name: row.digest for name, row in before.items()} == {name: row.digest for name, row in elsewhere.items()}
    assert len({row.digest for row in before.values()}) == len(before)
    changed = by_name(steps.rows(small(tmp_path, SMALL.replace("big = 4", "big = 5")), "/here"))
    other = {name for name in before if before[name].digest != changed[name].digest}
    assert other == {name for name in before if name.startswith("b.")}, (
        "its floor is measured beside its undefended run"
    )
    by_hand = by_name(steps.rows(small(tmp_path, SMALL, "big=9"), "/here"))
    assert all(before[name].digest != by_hand[name].digest for name in before), "what is set by hand is set everywhere"


def test_a_plan_adds_to_its_base(tmp_path: Path):
    (tmp_path / "base.toml").write_text(SMALL)
    text = 'base = "base.toml"\nattacks = ["b"]\n[attack.b]\nbig = 7\n[method.mmcl]\nvalues = ["2e-3"]\n'
    rows = steps.rows(small(tmp_path, text), "/o")
    assert {row.attack for row in rows} == {"b"} and len(rows) == 7
    assert any("7" in step.command for step in rows[1].steps)


def test_a_variable_alone_is_words_and_a_folder_is_never_split():
    values = {"a": "x {b} z", "b": "y y", "here": ("/my folder",)}
    assert words("run {a} --at={b} {here} {here}/sub", values) == [
        "run", "x", "y", "y", "z", "--at=y y", "/my folder", "/my folder/sub",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[method.floor]", "[method.floor"), "is no TOML"),
        (("seeds = [0, 1]", "seed = [0, 1]"), "a plan has no 'seed'"),
        (("seeds = [0, 1]", ""), "a plan needs seeds"),
        (('"a", "b"', '"a", "c"'), "no attack is named 'c'; there are: a, b"),
        (('"a", "b"', '"a", "a"'), "listed twice"),
        (("seeds = [0, 1]", 'seeds = [0, 1]\nrepeated = ["c"]'), "'c' is to be repeated, and is none of its attacks"),
        (("{size} --dataset", "{sise} --dataset"), "names 'sise', which is no variable"),
        (('big = 3', 'big = "{size}"'), "a variable that names itself"),
        (('chosen = "2e-3"', 'chosen = "9"'), "'9' is no value of mmcl"),
        (('needs = "victim"', 'needs = "nothing"'), "'nothing' is no step and no method"),
        (("--lr {value} --out {here}/{method}-{attack}-{value}", "--lr {value}"), "needs a command (run) with --out"),
        (("-{attack}-{value}", "-{attack}"), "two steps are called"),
        (("accuracy@1", "accuracy"), "a metric is TASK.METRIC@K"),
        (('order = ["seed"', 'order = ["sead"'), "rows are ordered by"),
        (('step = "clean"', 'step = "klean"'), "the method floor needs a step of the plan, not 'klean'"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_read_is_refused_by_what_is_wrong(change: tuple[str, str], said: str, tmp_path: Path):
    assert change[0] in SMALL
    with pytest.raises(ValueError, match=re.escape(said)):
        steps.rows(small(tmp_path, SMALL.replace(*change)), "/o")


def test_what_is_set_by_hand_must_be_a_variable(tmp_path: Path):
    for given, said in (("rose=3", "no variable 'rose'"), ("big", "NAME=VALUE"), ("seed=3", "no variable 'seed'")):
        with pytest.raises(ValueError, match=said):
            small(tmp_path, SMALL, given)


# ---------------------------------------------------------------------- the studies of the repository


def test_every_step_of_every_study_can_be_given():
    seen = set()
    for name in plan.names():
        for row in steps.rows(plan.read(name), "/o"):
            for step in row.steps if row.seed == 0 else ():
                words = tuple(word for word in step.command if not word.startswith("/o/"))
                if words in seen or words[0] not in KINDS:
                    continue
                seen.add(words)
                kind, plugin, preset = KINDS[step.command[0]]
                given = config.parse(kind, step.command[1:], prog="x", description="", plugin=plugin, preset=preset)
                assert getattr(given, "out", None) == step.out
    assert {words[0] for words in seen} == set(KINDS)
    assert len([words for words in seen if words[0] == "poison"]) >= 20


def test_every_attack_that_needs_nothing_from_elsewhere_is_in_the_study():
    found = plan.read("attacks")
    tried = {found.tables["attack"][name]["flags"].split()[0] for name in found.attacks}
    there = {path.stem for path in (Path(plan.__file__).parents[2] / "poison/attacks").glob("*.py")} - {"__init__"}
    assert there - tried == {"external", "swap"}, "external needs images, swap has no trigger; others are measured"


def test_mmcl_stands_beside_every_finetuning_and_augmented_clip_beside_roclip_at_equal_epochs_of_its_loss():
    finetunings = plan.read("defenses")
    others = [name for name in finetunings.methods if name not in ("floor", "undefended")]
    assert all(set(finetunings.values(name)) <= set(finetunings.values("mmcl")) for name in others)
    robust = plan.read("robust")
    every = {"roclip": 5, "roclip-k3": 3}
    for name, k in every.items():
        assert f"--match-every {k} " in robust.tables["method"][name]["objective"]
        for epochs in map(int, robust.values(name)):
            assert str(epochs - epochs // k) in robust.values("augmented")
    everywhere = robust.tables["method"]
    assert [str(int(v) - int(v) // 5) for v in everywhere["roclip"]["everywhere"]] == everywhere["augmented"][
        "everywhere"
    ]
