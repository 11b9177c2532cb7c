import subprocess
import sys

import pytest

from infra import cli


def test_help_imports_neither_torch_nor_ray():
    code = (
        "import sys; from infra.cli import main; main(['--help']); "
        "print([name for name in ('torch', 'ray', 'img2dataset', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: antidote" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"


def test_no_verb_needs_open_clip_torchvision_or_ray_to_say_what_is_wrong_or_done_and_some_not_even_torch():
    """Together they take longer to import than torch. Of what is wrong and what is done a verb tells by itself."""
    code = (
        "import importlib, sys; from infra.cli import VERBS\n"
        "slow = ['open_clip', 'torchvision', 'timm', 'torch._dynamo', 'ray', 'spacy', 'faiss']\n"
        "for module, _ in VERBS.values(): importlib.import_module(module)\n"
        "print([name for name in slow if name in sys.modules])"
    )
    light = ["prepare", "verify", "testset", "poison", "preview", "proof", "filter", "assess", "tabulate", "study"]
    alone = (
        "import importlib, sys; from infra.cli import VERBS\n"
        f"for verb in {light}:\n"
        "    importlib.import_module(VERBS[verb][0])\n"
        "    if 'torch' in sys.modules: print(verb); break"
    )
    for script, wanted in ((code, "[]\n"), (alone, "")):
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert run.stdout == wanted


@pytest.mark.parametrize("entry", ["train/pretrain.py", "train/finetune.py"])
def test_a_process_that_training_spawns_imports_no_torch_for_it(entry):
    """It imports the entry once more, by this name, and fetches shards with neither model nor objective."""
    code = f"import runpy, sys; runpy.run_path({entry!r}, run_name='__mp_main__'); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_an_unknown_verb_lists_the_right_ones(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["evalute"])
    assert end.value.code == 2
    assert "evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_has_help(verb, capsys):
    try:
        status = cli.main([verb, "--help"])
    except SystemExit as end:
        status = end.code
    assert status == 0
    assert "usage:" in capsys.readouterr().out
