from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from toolshed.checkpoints import layout
from toolshed.checkpoints.layout import Layout
from toolshed.errors import CheckpointDamagedError, CheckpointError


@pytest.fixture
def folders(tmp_path: Path) -> Layout:
    folders = Layout(tmp_path / "repository")
    folders.prepare()
    return folders


def publish(folders: Layout, step: int) -> layout.Entry:
    with folders.staging() as folder:
        (folder / layout.MANIFEST).write_text(f"of {step}")
        (folder / "inside").mkdir()
        (folder / "inside" / "file").write_text("x")
        return folders.publish(folder, step, folders.next_generation())


def test_nothing_is_made_before_it_is_needed(tmp_path):
    folders = Layout(tmp_path / "repository")
    assert folders.entries() == []
    assert folders.strangers() == []
    assert list(tmp_path.iterdir()) == []
    folders.prepare()
    assert sorted(path.name for path in folders.root.iterdir()) == ["staging", "steps", "trash"]


def test_entries_come_in_the_order_of_writing(folders):
    for step in (300, 100, 100, 200):
        publish(folders, step)
    assert [(entry.step, entry.generation) for entry in folders.entries()] == [
        (300, 1), (100, 2), (100, 3), (200, 4)
    ]  # fmt: skip
    assert folders.entries()[1].name == "000000000100-000000002"
    assert folders.next_generation() == 5


def test_the_number_of_one_that_was_deleted_may_come_again_but_order_stays(folders):
    first, second = publish(folders, 1), publish(folders, 2)
    folders.discard(first)
    assert publish(folders, 0).generation == 3
    assert [entry.step for entry in folders.entries()] == [second.step, 0]


@pytest.mark.parametrize(
    "name",
    [
        "300",
        "latest",
        "000000000300",
        "000000000300-1",
        "-00000000300-000000001",
        "000000000300-000000001.tmp",
        "0000٣0000300-000000001",
    ],
)
def test_what_is_called_otherwise_is_no_checkpoint(folders, name):
    (folders.steps / name).mkdir()
    assert folders.entries() == []
    assert folders.strangers() == [name]


def test_staging_is_empty_again_whatever_happens(folders, tmp_path):
    publish(folders, 1)
    with pytest.raises(FileNotFoundError), folders.staging() as folder:
        (folder / "no" / "file").write_text("half")
    assert list((folders.root / "staging").iterdir()) == []


def test_discarded_is_gone_from_the_disk(folders):
    entry = publish(folders, 1)
    assert entry.is_there()
    folders.discard(entry)
    assert not entry.is_there()
    assert list((folders.root / "trash").iterdir()) == []
    assert folders.entries() == []


def test_cleaning_removes_what_killed_writers_left(folders, tmp_path):
    for name in ("staging", "trash"):
        (folders.root / name / "left" / "over").mkdir(parents=True)
        (folders.root / name / "file").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (folders.root / "trash" / "link").symlink_to(outside)
    kept = publish(folders, 1)
    folders.clean()
    assert list((folders.root / "staging").iterdir()) == list((folders.root / "trash").iterdir()) == []
    assert (outside / "precious").exists()
    assert folders.entries() == [kept]


def test_a_file_is_replaced_in_one_step(folders):
    entry = publish(folders, 1)
    before = entry.mark()
    folders.replace_file(entry.folder / layout.MANIFEST, b"new")
    assert (entry.folder / layout.MANIFEST).read_bytes() == b"new"
    assert entry.mark() != before
    assert list((folders.root / "staging").iterdir()) == []


def test_files_are_found_with_their_sizes_and_links_are_refused(folders, tmp_path):
    entry = publish(folders, 1)
    assert layout.files_in(entry.folder) == {"manifest.json": 4, "inside/file": 1}
    (entry.folder / "inside" / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointDamagedError, match="inside/link is a symbolic link"):
        layout.files_in(entry.folder)


def test_a_pipe_is_refused_and_not_opened(folders):
    entry = publish(folders, 1)
    os.mkfifo(entry.folder / "pipe")
    with pytest.raises(CheckpointDamagedError, match="pipe is no ordinary file"):
        layout.files_in(entry.folder)


@pytest.mark.parametrize("name", ["steps", "staging", "trash"])
def test_a_directory_that_is_a_link_is_not_written_to(tmp_path, name):
    folders = Layout(tmp_path / "repository")
    folders.root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (folders.root / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match=f"{name} is a symbolic link; expected a directory"):
        folders.prepare()
    assert list(outside.iterdir()) == []


def test_steps_that_are_a_link_or_a_file_are_not_listed(tmp_path):
    folders = Layout(tmp_path)
    folders.steps.symlink_to(tmp_path.parent)
    with pytest.raises(CheckpointDamagedError, match="steps is a symbolic link"):
        folders.entries()
    folders.steps.unlink()
    folders.steps.write_text("x")
    with pytest.raises(CheckpointError, match="steps is a file; expected a directory"):
        folders.entries()


# --- what people pass -------------------------------------------------------------------------------


def test_a_path_becomes_absolute_and_may_not_exist_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert layout.check_path("runs/a/../b") == tmp_path / "runs" / "b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layout.check_path("~/c") == tmp_path / "c"
    assert layout.check_path(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Expected a directory's path, got ''."),
        (None, "Expected a directory's path, got None."),
        (5, "Expected a directory's path, got 5."),
        ("a\0b", "cannot be a directory: embedded null byte"),
        ("x" * 300, "cannot be a directory: "),
        (
            "gs://bucket/run",
            "'gs://bucket/run' is no local path; a repository is a directory of this",
        ),
        (__file__, "test_layout.py is a file; a repository is a directory."),
    ],
)
def test_what_cannot_be_a_repository_is_told(path, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        layout.check_path(path)


@pytest.mark.parametrize("step", [0, 7, np.int64(7), 10**12 - 1])
def test_steps_are_whole_numbers(step):
    assert layout.check_step(step) == step
    assert type(layout.check_step(step)) is int


@pytest.mark.parametrize("step", [-1, 10**12, True, 1.0, "1", None, 10**30])
def test_what_is_no_step_is_told(step):
    with pytest.raises(CheckpointError, match=r"A step is a whole number from 0 to 999,999,999,999; got "):
        layout.check_step(step)
