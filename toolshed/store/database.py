"""Store: the SQLite file of one run. One process writes; any number of others may read meanwhile.

Values lie in blocks of `ROWS`, for a row a value would take a second to read for each million. A block that
is not full is written again with what came after it. A batch is one transaction and is on the disk when
`write` returns, so whatever ends the process, the file holds whole batches.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolshed.errors import StoreError
from toolshed.store.records import Block, News, Record

SCHEMA = "toolshed.run/1"
TABLES = {
    "facts": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
    "branches": "place INTEGER PRIMARY KEY, name TEXT NOT NULL, parent TEXT, start INTEGER NOT NULL",
    "blocks": (
        "name TEXT NOT NULL, branch TEXT NOT NULL, place INTEGER NOT NULL, first INTEGER NOT NULL,"
        " last INTEGER NOT NULL, count INTEGER NOT NULL, steps BLOB, numbers BLOB NOT NULL,"
        " PRIMARY KEY (name, branch, place)"
    ),
    "events": (
        "place INTEGER PRIMARY KEY, kind TEXT NOT NULL, step INTEGER NOT NULL, branch TEXT NOT NULL,"
        " time REAL NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL"
    ),
}
PATIENCE = 5.0  # seconds that one waits for another process


class Store:
    """Writes the file of one run. Belongs to one thread at a time.

    Args:
      path: of the file, which is made where there is none. Its directory must be there.

    Raises:
      OSError, sqlite3.Error: it cannot be written to.
    """

    def __init__(self, path: Path):
        self.path = path
        connection = sqlite3.connect(
            path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        self._connection = connection
        self._finalizer = weakref.finalize(self, connection.close)
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # stays another one where the file system cannot
            connection.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                for name, columns in TABLES.items():
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
                self._write_facts({"schema": SCHEMA})
            self._file = os.stat(path)
        except BaseException:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether the file is still under its name: a deleted one is written to without an error."""
        try:
            return os.path.samestat(self._file, os.stat(self.path))
        except OSError:
            return False

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def write(self, news: News) -> None:
        """Writes a batch, all of it or nothing. It is on the disk afterwards.

        Raises:
          OSError, sqlite3.Error: it could not be written.
        """
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO branches VALUES (?, ?, ?, ?)",
                [(place, *line) for place, line in enumerate(news.lines)],
            )
            self._write_blocks(news.blocks)
            self._write_events(news.events, news.first)
            self._write_facts(news.facts)

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in facts.items()],
        )

    def _write_blocks(self, blocks: Sequence[Block]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*block[:3], *_span(block), block.values.astype("<f4").tobytes()) for block in blocks],
        )

    def _write_events(self, events: Sequence[Record], first: int) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(place, *event[:5], json.dumps(event.data)) for place, event in enumerate(events, first)],
        )

    def cut(self, branch: str, step: int, blocks: Sequence[Block], events: Sequence[Record]) -> None:
        """Takes the values of a branch after a step out, and the events that are not to stay.

        Args:
          branch: its name.
          step: the last one to be kept.
          blocks: what is left of the blocks that go beyond it.
          events: those that stay, in their order.
        """
        with self._transaction():
            self._connection.execute("DELETE FROM blocks WHERE branch = ? AND last > ?", (branch, step))
            self._connection.execute("DELETE FROM events")
            self._write_blocks(blocks)
            self._write_events(events, 0)

    def close(self) -> None:
        """Closes the file; a reader then finds one file, and not three."""
        self._finalizer()


def _span(block: Block) -> tuple[int, int, int, bytes | None]:
    """First and last step, count, and the steps where they do not lie evenly."""
    steps = block.steps
    first, last, count = int(steps[0]), int(steps[-1]), len(steps)
    even = count < 3 or bool((np.diff(steps) == steps[1] - steps[0]).all())
    return first, last, count, None if even else steps.astype("<i8").tobytes()


def check_schema(path: Path, schema: Any) -> None:
    """Whether this version of toolshed can read a file.

    Raises:
      StoreError: it is a newer one's, or none.
    """
    kind, _, number = schema.partition("/") if isinstance(schema, str) else ("", "", "")
    if kind != "toolshed.run" or not number.isdecimal():
        raise StoreError(f"{path} is no run of toolshed: its schema is {schema!r}.")
    if int(number) > 1:
        raise StoreError(
            f"{path} is of the schema {schema!r}; this version of toolshed reads up to {SCHEMA!r}. A newer"
            " toolshed wrote it: update."
        )
