"""The command ``toolshed``: notebooks, a training in the terminal, what was kept of runs and checkpoints."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from toolshed.errors import ToolshedError

FIRST_NOTEBOOK = "01_first_model.ipynb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="toolshed", description="A workbench for JAX models.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "lab",
        help="open JupyterLab on the first notebook",
        usage="%(prog)s [JupyterLab's options]",
        add_help=False,
    )
    demo = commands.add_parser("demo", help="the first notebook's training, in the terminal")
    demo.add_argument("--steps", type=int, default=10_000, help="training steps (default: %(default)s)")
    checkpoints = commands.add_parser("checkpoints", help="what is saved in a directory of checkpoints")
    checkpoints.add_argument("path", help="the directory")
    checkpoints.add_argument("--verify", action="store_true", help="read all files, to see that none changed")
    runs = commands.add_parser("runs", help="the runs that were kept in a directory")
    runs.add_argument("path", nargs="?", default="runs", help="the directory (default: %(default)s)")
    chosen, options = parser.parse_known_args(arguments)
    if options and chosen.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    try:
        if chosen.command == "lab":
            return open_lab(options)
        if chosen.command == "checkpoints":
            return show_checkpoints(chosen.path, verify=chosen.verify)
        if chosen.command == "runs":
            return show_runs(chosen.path)
        return run_demo(chosen.steps)
    except (ImportError, ValueError, ToolshedError) as error:
        print(f"toolshed: {error}", file=sys.stderr)
        return 1


def notebooks_folder() -> Path:
    """Where the notebooks are: in the checkout, or a copy in the working folder where there is none.

    A file that is there already is never written over.
    """
    package = Path(__file__).parent
    checkout = package.parent / "notebooks"
    if (checkout / FIRST_NOTEBOOK).exists():
        return checkout
    copies = Path.cwd() / "toolshed-notebooks"
    copies.mkdir(exist_ok=True)
    for notebook in (package / "notebooks").glob("*.ipynb"):
        if not (copies / notebook.name).exists():
            shutil.copy(notebook, copies)
    return copies


def open_lab(options: Sequence[str]) -> int:
    """Becomes ``jupyter lab``, opened on the first notebook.

    Raises:
      ImportError: JupyterLab is not installed.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise ImportError("JupyterLab is not installed: pip install 'jax-toolshed[lab]'.")
    command = [sys.executable, "-m", "jupyterlab", *options]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in options:
        command.append("--allow-root")  # a container's root; JupyterLab refuses it otherwise
    # The address that JupyterLab prints then leads to the notebook too, where no browser can be opened.
    command += [
        f"--ServerApp.root_dir={notebooks_folder()}",
        f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}",
    ]
    os.execv(sys.executable, command)


def _print_any_character() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack an arrow or a block


def run_demo(steps: int) -> int:
    """Trains the first notebook's model on handwritten digits, in sight, and prints what came of it."""
    _print_any_character()
    from toolshed.demo import train_digits  # imports jax, which takes a while

    train_digits(steps)
    return 0


def show_checkpoints(path: str, *, verify: bool) -> int:
    """Prints what is saved in a directory. It takes no lock and changes nothing.

    Returns:
      1 if something is found to be damaged; otherwise 0.

    Raises:
      ValueError: there is no such directory.
    """
    _print_any_character()
    from toolshed.checkpoints import Repository  # imports jax, which takes a while

    repository = Repository(path)
    if not repository.path.is_dir():
        raise ValueError(f"There is no directory {repository.path}.")
    damages = repository.verify() if verify else ()
    print(repository)
    for damage in damages:
        if damage.step is None:
            print(damage.problem)
    return int(bool(damages))


def show_runs(path: str) -> int:
    """Prints the runs that were kept in a directory. It changes nothing.

    Raises:
      ValueError: there is no such directory.
    """
    _print_any_character()
    from toolshed.run import runs  # imports jax, which takes a while

    found = runs(path)
    if not found.path.is_dir():
        raise ValueError(f"There is no directory {found.path}.")
    print(found)
    return 0
