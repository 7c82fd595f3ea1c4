"""The command line, run as people run it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.states import entry, two_checkpoints
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


class Without:
    """One of Python's finders, which does not find JupyterLab."""

    def __init__(self, finder: Any):
        self.finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.split(".")[0] == "jupyterlab" else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def test_lab_without_jupyterlab_says_which_extra_brings_it(capsys, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Without(finder) for finder in sys.meta_path])
    monkeypatch.delitem(sys.modules, "jupyterlab", raising=False)
    assert cli.main(["lab"]) == 1
    said = capsys.readouterr()
    assert said.err == "toolshed: JupyterLab is not installed: pip install 'jax-toolshed[lab]'.\n"
    assert said.out == ""


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


# --- checkpoints ------------------------------------------------------------------------------------


def test_checkpoints_shows_a_table_and_changes_nothing(tmp_path, capsys):
    repository = two_checkpoints(tmp_path / "r")
    before = sorted(path.name for path in repository.path.iterdir())
    assert cli.main(["checkpoints", str(tmp_path / "r")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Repository {tmp_path / 'r'} · 2 checkpoints"
    assert lines[1].split() == ["step", "saved", "(UTC)", "tags", "loss", "size", "condition"]
    assert [line.split()[0] for line in lines[2:]] == ["2", "1"]
    assert all(line.endswith("whole") for line in lines[2:])
    assert sorted(path.name for path in repository.path.iterdir()) == before


def test_checkpoints_that_are_damaged_are_told_and_are_the_exit_status(tmp_path, capsys):
    repository = two_checkpoints(tmp_path / "r")
    assert cli.main(["checkpoints", "--verify", str(repository.path)]) == 0
    assert capsys.readouterr().out.count("verified") == 2
    with (entry(repository, 2).folder / "structure.json").open("r+b") as file:
        file.write(b" ")  # as long as it was
    (repository.path / "steps" / "junk").mkdir()
    assert cli.main(["checkpoints", str(repository.path)]) == 0  # that is not seen without reading
    capsys.readouterr()
    assert cli.main(["checkpoints", "--verify", str(repository.path)]) == 1
    shown = capsys.readouterr().out
    assert "000000000002-000000002 is damaged: structure.json is not as it was written." in shown
    assert shown.endswith("'junk' is no checkpoint.\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "There is no directory {folder}/nowhere."),
        ("file", "{folder}/file is a file; a repository"),
    ],
)
def test_what_is_no_directory_is_told_in_one_line(tmp_path, monkeypatch, capsys, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.main(["checkpoints", path]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"toolshed: {message.format(folder=tmp_path)}")
    assert told.count("\n") == 1
