"""A run's directory lies in the directory of runs, whatever the run is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolshed.errors import StoreError
from toolshed.store import folders


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=400))
@example("../../evil")
@example("/etc/passwd")
@example("a\0b")
@example("..")
@example("<script>alert(1)</script>")
@example("\ud800")
@example("é" * 300)
def test_no_name_leads_out_of_the_directory(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("runs")
    folder = folders.claim(root, name)
    assert folder.parent == root
    assert folder.is_dir()
    assert folder.name == folders.directory_name(name)
    assert folders.claim(root, name).name == f"{folder.name}-2"


def run_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / folders.DATABASE).touch()
    return folder


def test_a_run_is_found_by_name_and_by_path(tmp_path):
    first = run_in(tmp_path / "runs" / "lr-1e-3")
    assert folders.find("lr-1e-3", tmp_path / "runs") == first
    assert folders.find("lr 1e-3", tmp_path / "runs") == first
    assert folders.find(str(first)) == first
    assert folders.find(first) == first


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path):
    run_in(tmp_path / "baseline")
    with pytest.raises(StoreError, match=r"There is no run 'baselin'\. Did you mean 'baseline'\?"):
        folders.find("baselin", tmp_path)
    with pytest.raises(StoreError, match=r"There is no run 'zzz'\. In .* there are baseline\."):
        folders.find("zzz", tmp_path)
    with pytest.raises(StoreError, match=r"there are none\."):
        folders.find("zzz", tmp_path / "nowhere")


def test_a_link_is_no_run(tmp_path):
    run_in(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    assert folders.runs_in(tmp_path / "runs") == []


def test_a_file_is_no_directory_of_runs(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file is a file; expected a directory in which each run has one"):
        folders.check_root(tmp_path / "file")
    with pytest.raises(StoreError, match="Expected a path to a directory of runs, got 3"):
        folders.check_root(3)  # type: ignore[arg-type]
