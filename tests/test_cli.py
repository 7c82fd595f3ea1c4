"""The command line, run as people run it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolshed import cli

COMMAND = Path(sys.executable).parent / "toolshed"


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        cwd=cwd,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )


def test_the_demo_learns_the_digits_and_prints_the_accuracy(tmp_path):
    done = run("demo", "--steps", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "1,438 digits to learn from, 359 to be tested on\nstep 0 · 9,610 parameters"
    )
    ((first, last),) = re.findall(r"^60 steps in \d+\.\d s: training loss (\S+) → (\S+)$", done.stdout, re.M)
    assert float(first) > 2 > 1 > float(last)  # a guess among ten digits costs ln 10 = 2.3
    (accuracy,) = re.findall(r"^test loss \d\.\d{4}, test accuracy (\d+\.\d)%$", done.stdout, re.M)
    assert float(accuracy) > 80
    # What shows the run while it trains, line by line where it is no terminal; and no warning.
    *_, at_the_end = shown = done.stderr.splitlines()
    assert all(line.startswith("digits: step ") for line in shown)
    assert at_the_end.startswith("digits: step 60 of 60, ")
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


def test_a_number_of_steps_that_is_none_is_told_in_one_line(capsys):
    assert cli.main(["demo", "--steps", "-1"]) == 1
    assert capsys.readouterr().err == "toolshed: steps is -1; expected a whole number from 0.\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_the_demo_prints_on_a_terminal_that_knows_few_characters(encoding, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    status = cli.main(["demo", "--steps", "2"])
    terminal.flush()
    assert status == 0
    assert "test accuracy" in terminal.buffer.getvalue().decode(encoding)


WITHOUT_JUPYTERLAB = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "jupyterlab":
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from toolshed.cli import main
sys.exit(main(["lab"]))
"""


def test_lab_without_jupyterlab_says_which_extra_brings_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_JUPYTERLAB], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "toolshed: JupyterLab is not installed: pip install 'jax-toolshed[lab]'.\n"


def test_lab_passes_its_options_on_to_jupyterlab(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "toolshed", "lab", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--steps", "many"], "invalid int value: 'many'"),
        (["demo", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_command_is_told_with_the_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("usage: toolshed")


def test_the_notebooks_are_those_of_the_checkout():
    assert (cli.notebooks_folder() / cli.FIRST_NOTEBOOK).exists()


def test_without_a_checkout_the_notebooks_are_copied_and_none_is_written_over(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "toolshed"
    (package / "notebooks").mkdir(parents=True)
    for name in (cli.FIRST_NOTEBOOK, "02_second.ipynb"):
        (package / "notebooks" / name).write_text("as shipped")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(cli, "__file__", str(package / "cli.py"))
    folder = cli.notebooks_folder()
    assert folder == work / "toolshed-notebooks"
    (folder / cli.FIRST_NOTEBOOK).write_text("as I changed it")
    (folder / "02_second.ipynb").unlink()
    assert cli.notebooks_folder() == folder
    assert (folder / cli.FIRST_NOTEBOOK).read_text() == "as I changed it"
    assert (folder / "02_second.ipynb").read_text() == "as shipped"
