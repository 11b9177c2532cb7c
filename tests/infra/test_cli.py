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
