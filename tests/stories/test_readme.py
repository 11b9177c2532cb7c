"""Every command of the documents, scripts, manifests and the image can be given: its entry parses it whole.

So verbs, plugins, presets, flags and values exist and agree; what they do is the other stories' matter. Links and the
files that are named exist as well.
"""

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra import cli, config, plugins
from tests.support.ports import free_port
from tests.support.story import environment

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "poison", "train", "defense", "eval", "infra")
ENTRIES = {module.replace(".", "/") + ".py": verb for verb, (module, _) in cli.VERBS.items()}
PAGES = [*(f"{package}/README.md" for package in PACKAGES), "infra/clusters/README.md"]
TEXTS = ["README.md", "CONTRIBUTING.md", *PAGES, "defense/scanning.md", "defense/detected.md", "defense/panel.md"]
TEXTS += ["defense/which.md", "pipeline/things.md"]
SCRIPTS = [
    str(path.relative_to(ROOT))
    for folder, kind in (("jobs", "*"), ("clusters", "*.yaml"), ("images", "Dockerfile"))
    for path in sorted((ROOT / "infra" / folder).glob(kind))
]
EXAMPLES = ("corner", "...")  # the attack that the README shows how to write; a command that is cut short


def lines_of(name: str) -> Iterator[str]:
    """Shell lines of a file: continuations joined, comment marks removed, defaults of its variables filled in, and of
    those of the script beside it that it goes on from."""
    text = (ROOT / name).read_text()
    if name.endswith(".yaml"):
        for document in yaml.safe_load_all(text):
            if "entrypoint" in document["spec"]:
                yield document["spec"]["entrypoint"]
            if document["kind"] == "Job":
                yield from (shlex.join(each["command"]) for each in document["spec"]["template"]["spec"]["containers"])
        text = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    before = [(ROOT / name).with_name(it).read_text() for it in re.findall(r'^\. ".*/([\w.-]+)"$', text, re.MULTILINE)]
    variables: dict[str, str] = {}
    for variable, default, value in re.findall(
        r'(?:^|\s)([A-Z_]+)=(?:\$\{\1:-([^}]*)\}|("[^"\n]*"|[\w./:-]+))', "\n".join([*before, text])
    ):
        variables.setdefault(variable, default or value.strip('"'))
    for line in text.splitlines():
        for _ in range(3):
            line = re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", lambda m: variables.get(m[1], m[2] or m[0]), line)
        yield line.strip()


def commands(name: str) -> Iterator[list[str]]:
    for line in lines_of(name):
        line = re.split(r"   #| \|\| | \| | && |; ", line)[0]
        line = re.sub(r"^([A-Z_]+=\S+\s+)+", "", line)
        start = (
            r'(antidote [a-z]|torchrun |ray (job submit|start) |sbatch |srun |python |on_cluster |CMD \["antidote|'
            r"kubectl |docker build |aws )"
        )
        if re.match(start, line) and not line.startswith("antidote VERB"):
            try:
                yield shlex.split(line, comments=True)
            except ValueError:  # a sentence with an apostrophe
                continue


def ours(words: list[str]) -> list[str]:
    """From a verb on, whatever starts it; [] where nothing of ours is started."""
    for number, word in enumerate(words):
        if word == "antidote":
            return words[number + 1 :]
        if word in ENTRIES:
            return [ENTRIES[word], *words[number + 1 :]]
    return []


COMMANDS = [(name, words) for name in (*TEXTS, *SCRIPTS) for words in commands(name)]


def test_every_file_that_should_shows_a_command():
    shown = [name for name, words in COMMANDS if ours(words)]
    assert shown.count("README.md") >= 16
    assert shown.count("infra/jobs/demo.sh") >= 10
    assert shown.count("infra/jobs/demo-scan.sh") >= 7
    for name in (*(f"{package}/README.md" for package in PACKAGES), *SCRIPTS):
        if not name.endswith(("Dockerfile", "raycluster.yaml", "gpu.sh")):  # gpu.sh runs tests and benches
            assert name in shown, f"{name} shows no command of ours"


@pytest.fixture
def parsed(monkeypatch):
    """Entries say what they were given instead of doing it."""
    for module, _ in cli.VERBS.values():
        for value in list(vars(importlib.import_module(module)).values()):
            if isinstance(value, type) and value.__module__.split(".")[0] in PACKAGES:
                for does in ("run", "start"):  # `run` of a scan is the run that it looks through
                    if hasattr(value, does):
                        monkeypatch.setattr(value, does, lambda self, *_: f"parsed: {type(self).__name__}")


@pytest.mark.parametrize(
    ("name", "words"), COMMANDS, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in COMMANDS]
)
def test_a_command_can_be_given(name, words, parsed, capsys):
    _check_starters(words)
    if not (rest := ours(words)) or set(rest) & set(EXAMPLES):
        return
    assert rest[0] in cli.VERBS or rest == ["--help"], rest
    try:
        status = cli.main(rest)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr()
    assert status == 0, f"{' '.join(words)}\n{said.err}"
    assert "--help" in rest or said.out.startswith("parsed: ")


def _check_starters(words: list[str]) -> None:
    """What stands before a command of ours is an existing script, or has flags that its program knows."""
    if "torchrun" in words:
        from torch.distributed.run import get_args_parser

        given = words[words.index("torchrun") + 1 :]
        script = next(i for i, word in enumerate(given) if word in ENTRIES or word == "$@")
        get_args_parser().parse_args([re.sub(r"^\$\w+$", "1", word) for word in given[:script]] + ["script.py"])
    if words[0] == "ray":
        from ray.dashboard.modules.job.cli import submit
        from ray.scripts.scripts import start

        command, given = (start, words[2:]) if words[1] == "start" else (submit, words[3 : words.index("--")])
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in given if re.match("--[a-z]", word)} <= known
    for word in words:
        place = word.removeprefix("file://")
        if re.search(r"/.*(\.(sh|sbatch|yaml|json)|Dockerfile)$", place) and "*" not in place:
            assert (ROOT / place).exists(), word


@pytest.mark.parametrize("name", [*TEXTS, "poison/attacks.md", "poison/measured.md", "CHANGELOG.md"])
def test_links_and_named_files_exist(name):
    text = (ROOT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    places = [(ROOT / name).parent / link for link in links]
    named = re.findall(rf"`((?:{'|'.join(PACKAGES)}|tests|\.ci)/[\w./-]+\.(?:py|sh|sbatch|yaml|md|json|tsv))`", text)
    places += [ROOT / path for path in named if not re.search(r"NAME|corner", path)]
    assert not [str(place) for place in places if not place.exists()]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z]+(?:-[a-z]+)*)`", text)) <= targets


@pytest.mark.parametrize("name", PAGES)
def test_a_packages_readme_fits_two_screens(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 80
    assert max(len(line) for line in lines if not line.startswith(("|", "    "))) <= 120
    assert lines[0].startswith("# ")


def test_documents_name_every_plugin_and_preset_that_there_is():
    from eval.task import Task
    from pipeline.source import Source
    from poison.attack import Attack
    from train.objective import Objective
    from train.presets import PRESETS

    for package, names in {
        "pipeline": plugins.names(Source.FOLDERS),
        "poison": plugins.names(Attack.FOLDERS),
        "train": list(PRESETS),
        "defense": plugins.names(("defense.objectives",)),
        "eval": plugins.names(Task.FOLDERS),
    }.items():
        text = (ROOT / package / "README.md").read_text()
        assert not [name for name in names if f"`{name}`" not in text], package
    assert plugins.names(Objective.FOLDERS)


@pytest.mark.slow
def test_the_packages_examples_run_one_after_the_other(tmp_path):
    """In an empty folder, as they stand; but in one process where Ray would be started, and on a port of their own."""
    home = tmp_path / "home"
    home.mkdir()
    for package in PACKAGES:
        (home / package).symlink_to(ROOT / package)
    port = ["--port", str(free_port())]
    here = ("prepare", "verify", "poison", "scan", "evaluate")
    pages = [f"{package}/README.md" for package in ("pipeline", "poison", "train", "defense", "eval")]
    for page in (*pages, "defense/scanning.md"):
        for words in commands(page):
            if any("witness" in word or word == "data/without" for word in words):
                continue  # in so few pairs there is no cluster to ask about; tests/defense/test_witness.py has one
            more = list(port) if "picturebook" in words else []
            more += ["--backend", "local"] if ours(words)[0] in here else []
            done = subprocess.run([*words, *more], cwd=home, env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, f"{words}\n{done.stderr[-3000:]}"
    assert (home / "data" / "report" / "report.html").stat().st_size > 10_000


def test_the_readmes_attack_works(tmp_path):
    import importlib.util

    import numpy as np

    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    path = tmp_path / "corner.py"
    path.write_text(code[1])
    spec = importlib.util.spec_from_file_location("corner", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    attack = module.Corner(size=2)
    stamped = attack.stamp(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))
    assert stamped.sum() == 2 * 2 * 3 * 255
    assert config.to_json(attack) | {"plugin": None} == {"plugin": None, **vars(attack)}
    assert plugins.name_of(attack) == "corner"


def test_torchrun_does_not_take_our_flags_for_its_own(capsys):
    """It reads abbreviations of its options even after the script's name: --start meant --start-method, an error."""
    from torch.distributed.run import get_args_parser

    theirs = [option for action in get_args_parser()._actions for option in action.option_strings]
    for verb, plugin in (("pretrain", "clip"), ("finetune", "cleanclip")):
        cli.main([verb, plugin, "--help"])
        ours = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out)) - {"--standalone", "--nproc-per-node"}
        clashes = [flag for flag in ours if any(option.startswith(flag) for option in theirs)]
        assert clashes == ["--help"], "torchrun shows its own help; use antidote VERB PLUGIN --help"
