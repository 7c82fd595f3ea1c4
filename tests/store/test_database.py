"""What is written to a run's file is what is read from it, also after a failure and beside readers."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.errors import StoreError
from toolshed.store import Block, Line, News, Record, Store
from toolshed.store.reading import read
from toolshed.store.records import ROWS

MAIN = (Line("main", None, 0),)


def block(
    steps: Any, values: Any, *, name: str = "train/loss", branch: str = "main", place: int = 0
) -> Block:
    return Block(name, branch, place, np.asarray(steps, np.int64), np.asarray(values, np.float32))


def news(*blocks: Block, events: tuple[Record, ...] = (), first: int = 0, **facts: Any) -> News:
    return News(MAIN, blocks, first, events, facts)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "run.sqlite")
    yield store
    store.close()


steps = st.lists(st.integers(0, 2**40), min_size=1, max_size=60, unique=True).map(sorted)
even = st.builds(
    lambda first, stride, count: [first + stride * n for n in range(count)],
    st.integers(0, 10**6),
    st.integers(1, 1000),
    st.integers(1, 60),
)


@settings(deadline=None, max_examples=40)
@given(steps | even, st.randoms(use_true_random=False))
def test_steps_and_values_come_back_to_the_last_bit(tmp_path_factory, steps, source):
    choices = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.25]
    values = [source.choice(choices) for _ in steps]
    path = tmp_path_factory.mktemp("store") / "run.sqlite"
    store = Store(path)
    store.write(news(block(steps, values)))
    store.close()
    (found,) = read(path).blocks
    assert found.steps.tolist() == steps
    assert found.values.tobytes() == np.asarray(values, np.float32).tobytes()


def test_a_block_that_grew_replaces_what_it_was(store):
    store.write(news(block([1, 2], [0.5, 0.25])))
    store.write(news(block([1, 2, 3], [0.5, 0.25, 0.125]), block([1100], [7.0], place=1)))
    found = read(store.path).blocks
    assert [one.steps.tolist() for one in found] == [[1, 2, 3], [1100]]


def test_events_facts_and_branches_come_back(store):
    event = Record("edited", 7, "main", 12.5, "a → b <script>", {"name": "lr", "new": "nan"})
    lines = (*MAIN, Line("main-2", "main", 7))
    store.write(News(lines, (), 0, (event,), {"step": 7, "config": {"deep": [1, None, "x"]}}))
    store.write(News(lines, (), 1, (event._replace(step=9),), {"step": 9}))
    content = read(store.path)
    assert content.lines == lines
    assert [one.step for one in content.events] == [7, 9]
    assert content.events[0] == event
    assert content.facts["step"] == 9
    assert content.facts["config"] == {"deep": [1, None, "x"]}
    assert read(store.path, values=False).events == ()


def test_a_batch_that_fails_in_the_middle_leaves_nothing(store):
    store.write(news(block([1], [1.0]), step=1))
    impossible = Record("note", 2, "main", 0.0, "", {"x": object()})
    with pytest.raises(TypeError):
        store.write(news(block([1, 2], [1.0, 2.0]), events=(impossible,), step=2))
    content = read(store.path)
    assert content.blocks[0].steps.tolist() == [1]
    assert content.facts["step"] == 1
    store.write(news(block([1, 2], [1.0, 2.0]), step=2))
    assert read(store.path).facts["step"] == 2


def test_a_cut_takes_out_what_comes_after_a_step_of_one_branch(store):
    store.write(
        news(block([1, 2, 3], [1, 2, 3]), block([9], [9], place=1), block([2, 3], [5, 5], branch="other"))
    )
    stays = Record("note", 2, "main", 0.0, "stays", {})
    store.write(news(events=(stays._replace(text="goes"), stays)))
    store.cut("main", 2, [block([1, 2], [1, 2])], [stays])
    found = read(store.path)
    assert {one.branch: one.steps.tolist() for one in found.blocks} == {"main": [1, 2], "other": [2, 3]}
    assert found.events == (stays,)


def test_others_read_whole_batches_while_one_writes(store):
    """Each batch adds one value to both names, so a reader that sees a part of one sees different lengths."""
    seen, stop = set(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            blocks = read(store.path).blocks
            seen.add(tuple(sorted(len(one.steps) for one in blocks)))

    store.write(news(block([0], [0]), block([0], [0], name="eval/loss")))
    reader = threading.Thread(target=look)
    reader.start()
    for count in range(2, 120):
        here = list(range(count))
        store.write(news(block(here, here), block(here, here, name="eval/loss")))
    stop.set()
    reader.join()
    assert len(seen) > 1
    assert all(first == second for first, second in seen)


def test_a_deleted_file_is_noticed(store):
    assert store.is_there()
    store.path.unlink()
    assert not store.is_there()
    store.path.write_bytes(b"")
    assert not store.is_there()


def test_a_directory_that_cannot_be_written_to_is_read(tmp_path, store):
    store.write(news(block([1], [1.0])))
    store.close()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "run.sqlite").write_bytes(store.path.read_bytes())
    assert read(alone / "run.sqlite").blocks[0].steps.tolist() == [1]


def write_raw(path: Path, *commands: str) -> None:
    connection = sqlite3.connect(path)
    for command in commands:
        connection.execute(command)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON facts BEGIN DELETE FROM facts; END", "its tables are others"),
        ("CREATE VIEW v AS SELECT 1", "its tables are others"),
        ("DROP TABLE events", "its tables are others"),
        ("UPDATE facts SET value = '\"toolshed.run/2\"' WHERE name = 'schema'", "A newer toolshed wrote it"),
        ("UPDATE facts SET value = '\"else\"' WHERE name = 'schema'", "is no run of toolshed: its schema is"),
        ("UPDATE facts SET value = '{' WHERE name = 'schema'", "cannot be read as a run"),
        ("UPDATE blocks SET numbers = x'00'", "cannot be read as a run"),
        ("UPDATE blocks SET numbers = 'text'", "cannot be read as a run"),
        ("UPDATE blocks SET count = 1000000000000", "a block of 'train/loss' that is not whole"),
        ("UPDATE blocks SET steps = x'0000000000000000'", "a block of 'train/loss' that is not whole"),
        ("UPDATE branches SET start = 'x'", "str where a whole number belongs"),
        ("UPDATE events SET data = '[]'", "an event without details"),
    ],
)
def test_a_stranger_s_file_is_refused(store, command, reason):
    store.write(news(block([1, 2], [1.0, 2.0]), events=(Record("note", 1, "main", 0.0, "", {}),)))
    store.close()
    read(store.path)
    write_raw(store.path, command)
    with pytest.raises(StoreError, match=reason):
        read(store.path)


def test_a_file_whose_writer_was_killed_before_it_began_is_an_empty_run(tmp_path, store):
    (tmp_path / "empty.sqlite").touch()
    for path in (tmp_path / "empty.sqlite", store.path):
        content = read(path)
        assert (content.lines, content.blocks, content.events) == (MAIN, (), ())


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "run.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    with pytest.raises(StoreError, match="cannot be read as a run"):
        read(path)
    path.write_text("hello" * 1000)
    with pytest.raises(StoreError, match="file is not a database"):
        read(path)


def test_blocks_are_as_large_as_the_cursor_makes_them():
    assert ROWS == 1024  # the place of a block is its first value's number divided by this, in every file
