"""Runs on the disk as a table, and several over each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toolshed
from tests.run.kept import let_go
from tests.run.test_keeping import begin
from toolshed import cli
from toolshed.errors import StoreError, ToolshedError
from toolshed.run import SavedRun
from toolshed.store import Store
from toolshed.store.folders import DATABASE
from toolshed.store.records import News


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, width in (("small", 8), ("large", 16)):
        run = begin(root, name=name, config={"width": width, "<b>": "<script>"})
        run.train(6, wait=True)
        run.save("end", wait=True)
        let_go(run)
    return root


def test_the_table_has_a_row_for_each_run_the_newest_first(root, capsys):
    found = toolshed.runs(root)
    assert found.names == ["large", "small"]
    assert len(found) == 2
    assert [run.name for run in found] == ["large", "small"]
    assert found[0].folder == found["large"].folder == root / "large"
    lines = repr(found).splitlines()
    assert lines[0] == f"Runs in {root} · 2 runs"
    assert lines[1].split() == [
        "run",
        "status",
        "step",
        "train/loss",
        "width",
        "<b>",
        "begun",
        "(UTC)",
        "code",
    ]
    assert lines[2].split()[:3] == ["large", "finished", "6"]
    assert lines[2].split()[4:6] == ["16", "<script>"]
    assert cli.main(["runs", str(root)]) == 0
    assert capsys.readouterr().out == repr(toolshed.runs(root)) + "\n"
    page = found._repr_html_()
    assert "<script>" not in page
    assert page.count("<tr>") == 3


def test_an_empty_directory_has_no_runs(tmp_path, capsys):
    assert repr(toolshed.runs(tmp_path)) == f"Runs in {tmp_path} · 0 runs"
    assert toolshed.runs(tmp_path / "nowhere").names == []
    assert cli.main(["runs", str(tmp_path / "nowhere")]) == 1
    assert "There is no directory" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_an_error_with_near_names(root):
    with pytest.raises(StoreError, match=r"There is no run 'smal' among the 2 in .*\. Did you mean 'small'"):
        toolshed.runs(root)["smal"]
    with pytest.raises(StoreError, match="There is no run 2 among the 2"):
        toolshed.runs(root)[2]
    with pytest.raises(StoreError, match=f"is no directory of a run: it has no {DATABASE}"):
        SavedRun(root)


def test_a_damaged_run_is_shown_and_hides_no_other(root, tmp_path):
    (tmp_path / "whole").mkdir()
    store = Store(tmp_path / "whole" / DATABASE)
    store.write(
        News((), (), 0, (), {"name": "whole", "status": "finished", "step": 3, "last": {"train/loss": "nan"}})
    )
    store.close()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / DATABASE).write_text("nothing" * 99)
    found = toolshed.runs(tmp_path)
    assert found.names == ["whole"]
    assert "nan" in repr(found)
    assert "damaged: " in repr(found)
    with pytest.raises(StoreError, match="cannot be read as a run"):
        found["broken"]


def test_a_run_whose_process_died_is_told_from_one_that_trains(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    import socket

    for name, pid, host in (
        ("dead", dead.pid, None),
        ("alive", os.getpid(), None),
        ("far", dead.pid, "elsewhere"),
    ):
        (tmp_path / name).mkdir()
        store = Store(tmp_path / name / DATABASE)
        host = socket.gethostname() if host is None else host
        store.write(News((), (), 0, (), {"status": "training", "pid": pid, "host": host}))
        store.close()
    found = toolshed.runs(tmp_path)
    assert {name: found[name].status for name in found.names} == {
        "dead": "killed",
        "alive": "training",
        "far": "training",
    }


def test_a_run_that_goes_on_is_read_again_when_asked(tmp_path):
    run = begin(tmp_path)
    run.train(3, wait=True)
    run.save(wait=True)
    kept = SavedRun(run.folder)
    run.train(3, wait=True)
    run.save(wait=True)
    assert kept.step == 3
    kept.refresh()
    assert kept.step == 6
    assert kept.history.last("train/loss")[0] == 6


def test_runs_lie_over_each_other_by_name_path_or_live(root, tmp_path):
    live = begin(tmp_path, name="small")
    live.train(4, wait=True)
    figure = toolshed.compare_runs(["small", toolshed.runs(root)[0], root / "large", live], path=root)
    (axes,) = figure.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [6, 6, 6, 4]
    assert axes.get_title(loc="left") == "train/loss"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["small", "large", "large (2)", "small (2)"]
    two = toolshed.compare_runs(["small"], ["train/loss", "optim/learning_rate"], path=root, log=True)
    assert [axes.get_title(loc="left") for axes in two.axes] == ["train/loss", "optim/learning_rate"]
    with pytest.raises(StoreError, match=r"None of these runs has values named 'train/los'\. Did you mean"):
        toolshed.compare_runs(["small"], "train/los", path=root)
    with pytest.raises(ToolshedError, match="25 runs at once; expected at most 24"):
        toolshed.compare_runs(["small"] * 25, path=root)


def test_a_saved_run_draws_itself(root):
    figure = toolshed.runs(root)["small"].plot()
    assert "loss" in [axes.get_title(loc="left") for axes in figure.axes]
