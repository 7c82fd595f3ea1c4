"""Every notebook runs from top to bottom, is committed without outputs, and ends in an assertion."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.compiling import everyones_environment
from tests.executing import execute

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_and_their_numbers_follow_one_another():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, len(NOTEBOOKS) + 1)]
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_committed_without_outputs_and_ends_in_an_assertion(path: Path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert "assert " in cells[-1].source


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Programs are compiled as everyone's are, and what one notebook has compiled is there for the next."""
    return everyones_environment(
        JAX_COMPILATION_CACHE_DIR=str(tmp_path_factory.mktemp("compiled")),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)  # the first one runs in a browser
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning:zmq")
def test_the_notebook_runs(path: Path, environment: dict[str, str]):
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, FOLDER, env=environment)
    texts = [
        "".join(output.get("text", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert not any("Warning" in text for text in texts), texts
