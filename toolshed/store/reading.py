"""Reading a run's file: also while another process writes it, also one that a stranger wrote.

A file is read as data: one with triggers or views in it is refused, and each value is checked.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from toolshed.errors import StoreError
from toolshed.store.database import PATIENCE, TABLES, check_schema
from toolshed.store.records import ROWS, Block, Line, Record

_MAIN = (Line("main", None, 0),)


class Content(NamedTuple):
    """What a run's file holds.

    Attributes:
      facts: by name.
      lines: all branches, in the order in which they began.
      blocks: all values in the order in which their names appeared; empty where they were not asked for.
      events: in their order; likewise.
    """

    facts: Mapping[str, Any]
    lines: tuple[Line, ...]
    blocks: tuple[Block, ...]
    events: tuple[Record, ...]


def read(path: Path, *, values: bool = True) -> Content:
    """What a run's file holds.

    Args:
      path: of the file.
      values: whether to read values and events, too.

    Raises:
      StoreError: it is none, is damaged, or a newer toolshed wrote it.
    """
    with _opened(path) as connection:
        tables = set(
            connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        )
        if not tables:
            return Content({}, _MAIN, (), ())  # its writer was killed before it had begun
        if tables != {("table", name) for name in TABLES}:
            raise StoreError(f"{path} is no run of toolshed: its tables are others.")
        facts = {name: _json(text) for name, text in connection.execute("SELECT name, value FROM facts")}
        check_schema(path, facts.get("schema"))
        rows = connection.execute("SELECT name, parent, start FROM branches ORDER BY place")
        lines = tuple(_line(*row) for row in rows) or _MAIN
        blocks, events = (), ()
        if values:
            rows = connection.execute(
                "SELECT name, branch, place, first, last, count, steps, numbers FROM blocks"
                " ORDER BY branch, name, place"
            )
            blocks = tuple(_block(*row) for row in rows)
            rows = connection.execute(
                "SELECT kind, step, branch, time, text, data FROM events ORDER BY place"
            )
            events = tuple(_event(*row) for row in rows)
    return Content(facts, lines, blocks, events)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in which nothing can be written and everything is of one moment.

    Raises:
      StoreError: what came out of it is not what a run's file holds.
    """
    try:
        connection = _connect(path)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read as a run: {error}.") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Opens a file; where nobody writes and the directory cannot be written to, as one that never changes."""
    address = f"file:{quote(str(path))}?mode=ro"
    for options in ("", "&immutable=1"):
        connection = sqlite3.connect(f"{address}{options}", uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if options:
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError("the second attempt returns or raises")


def _json(text: Any) -> Any:
    return json.loads(_text(text))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where text belongs")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{type(value).__name__} where a whole number belongs")
    return value


def _line(name: Any, parent: Any, start: Any) -> Line:
    return Line(_text(name), None if parent is None else _text(parent), _whole(start))


def _event(kind: Any, step: Any, branch: Any, time: Any, text: Any, data: Any) -> Record:
    details = _json(data)
    if not isinstance(details, dict):
        raise ValueError("an event without details")
    return Record(_text(kind), _whole(step), _text(branch), float(time), _text(text), details)


def _block(*row: Any) -> Block:
    name, branch, place, first, last, count, steps, numbers = row
    values = np.frombuffer(numbers, "<f4").astype(np.float32)
    if steps is None:
        stride = (_whole(last) - _whole(first)) // max(_whole(count) - 1, 1)
        found = first + max(stride, 1) * np.arange(len(values), dtype=np.int64)
    else:
        found = np.frombuffer(steps, "<i8").astype(np.int64)
    if not 0 < len(values) == len(found) == count <= ROWS or int(found[-1]) != last:
        raise ValueError(f"a block of {_text(name)!r} that is not whole")
    return Block(_text(name), _text(branch), _whole(place), found, values)
