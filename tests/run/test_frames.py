"""A history as a table has every value, and a file of it is whole or not there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from toolshed.errors import ToolshedError
from toolshed.run import History, frames


def small() -> History:
    kept = History()
    kept.append("train/loss", [1, 2, 3], [4.0, 0.1, np.nan])
    kept.append('eval/"odd", name', [2], [7.0])
    kept.begin_branch("b", at=1)
    kept.append("train/loss", [2], [np.inf])
    return kept


def test_the_wide_table_is_the_current_line_by_step():
    kept = small()
    frame = kept.to_pandas()
    assert (frame.index.name, list(frame.columns)) == ("step", kept.names)
    assert frame["train/loss"].to_dict() == {1: 4.0, 2: np.inf}
    assert frame['eval/"odd", name'].isna().all()
    kept.switch("main")
    frame = kept.to_pandas()
    assert frame.index.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(frame["train/loss"], np.float32([4.0, 0.1, np.nan]))
    np.testing.assert_array_equal(frame['eval/"odd", name'], np.float32([np.nan, 7.0, np.nan]))
    assert (frame.dtypes == np.float32).all()


def test_the_long_table_has_every_branch_s_own_values():
    frame = small().to_pandas(long=True)
    assert list(frame.columns) == ["branch", "name", "step", "value"]
    assert frame["branch"].tolist() == ["main"] * 4 + ["b"]
    assert frame["name"].tolist() == ["train/loss"] * 3 + ['eval/"odd", name', "train/loss"]
    assert frame["step"].tolist() == [1, 2, 3, 2, 2]
    np.testing.assert_array_equal(frame["value"], np.float32([4.0, 0.1, np.nan, 7.0, np.inf]))


@pytest.mark.parametrize("long", [False, True])
def test_an_empty_history_is_an_empty_table(long):
    frame = History().to_pandas(long=long)
    assert len(frame) == 0
    assert list(frame.columns) == (["branch", "name", "step", "value"] if long else [])


@pytest.mark.parametrize("long", [False, True])
def test_files_give_the_table_back(tmp_path, long):
    kept = small()
    frame = kept.to_pandas(long=long)
    kept.to_parquet(tmp_path / "history.parquet", long=long)
    kept.to_csv(str(tmp_path / "history.csv"), long=long)
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "history.parquet"), frame)
    read = pandas.read_csv(tmp_path / "history.csv", index_col=None if long else "step")
    pandas.testing.assert_frame_equal(
        read, frame, check_dtype=False, check_categorical=False, check_exact=False
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.parquet"]


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_beside_it(tmp_path):
    place = tmp_path / "history.csv"
    place.write_text("old")

    def write(file) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        frames.write_whole(place, write)
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    small().to_csv(place)  # the same place takes a whole one
    assert place.read_text().startswith("step,train/loss,")


def test_a_killed_process_leaves_the_old_file_and_has_loaded_no_table_package(tmp_path):
    place = tmp_path / "history.csv"
    place.write_text("old")
    code = f"""
import os, signal, sys
from toolshed.run import frames
print(*{{"pandas", "pyarrow", "matplotlib", "rich"}} & {{*sys.modules}}, flush=True)
def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
frames.write_whole({str(place)!r}, write)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, [])
    assert place.read_text() == "old"


def test_files_have_the_permissions_that_files_have(tmp_path):
    (tmp_path / "plain").write_text("")
    small().to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("pandas", lambda kept, path: kept.to_pandas()),
        ("pandas", lambda kept, path: kept.to_pandas(long=True)),
        ("pandas", lambda kept, path: kept.to_csv(path)),
        ("pyarrow", lambda kept, path: kept.to_parquet(path)),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_extra(package, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # what makes an import fail as if it were not there
    with pytest.raises(ToolshedError) as caught:
        call(small(), tmp_path / "file")
    assert str(caught.value) == (
        f"A history as a table needs {package}, which is not installed. Install it with the extra:"
        " pip install 'jax-toolshed[frames]'."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_path_object_and_its_text_are_the_same_place(tmp_path):
    frames.write_whole(Path(tmp_path) / "a", lambda file: file.write(b"1"))
    frames.write_whole(str(tmp_path / "a"), lambda file: file.write(b"2"))
    assert (tmp_path / "a").read_bytes() == b"2"
