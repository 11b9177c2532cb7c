"""Every command of the README and of the demo names verbs, plugins and flags that exist."""

import re
import shlex
from pathlib import Path

import pytest

from infra import cli, config, plugins

ROOT = Path(__file__).parents[2]
SCRIPTS = {module.replace(".", "/") + ".py": verb for verb, (module, _) in cli.VERBS.items()}


def commands(text: str) -> list[list[str]]:
    """Word lists that begin with a verb, from lines with `antidote VERB` or a script of ours; continuations joined."""
    text = re.sub(r"\\\n\s*", " ", text).replace('"', "").replace("$BOOK", "picturebook --book-seed 0")
    found = []
    for line in text.splitlines():
        line = line.strip().split("   # ")[0]
        if not re.match(r"(antidote [a-z]+ |torchrun|ray job submit|\$TRAIN|python )", line):
            continue
        words = shlex.split(line, comments=True)
        for number, word in enumerate(words):
            if word == "antidote":
                found.append(words[number + 1 :])
                break
            if word in SCRIPTS:
                found.append([SCRIPTS[word], *words[number + 1 :]])
                break
    return found


FILES = [
    "README.md",
    "infra/jobs/demo.sh",
    *map(str, sorted(path.relative_to(ROOT) for path in ROOT.glob("*/README.md"))),
]
COMMANDS = [(name, words) for name in FILES for words in commands((ROOT / name).read_text())]


def test_the_documents_have_commands():
    assert len([words for name, words in COMMANDS if name == "README.md"]) >= 12
    assert len([words for name, words in COMMANDS if name.endswith("demo.sh")]) >= 9


@pytest.mark.parametrize(
    ("name", "words"), COMMANDS, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in COMMANDS]
)
def test_a_command_of_the_documents_can_be_given(name, words, capsys):
    verb, rest = words[0], words[1:]
    assert verb in cli.VERBS
    if "README" in name and rest[0] == "corner":
        return  # the example attack of the README is not shipped
    plugin = [] if rest[0].startswith("-") else rest[:1]
    try:
        status = cli.main([verb, *plugin, "--help"])
    except SystemExit as end:
        status = end.code
    assert status == 0
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    given = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert given <= known, f"{verb} {' '.join(plugin)} knows no {sorted(given - known)}"


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
