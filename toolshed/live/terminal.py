"""A run in a terminal: its state and curves, drawn over and over; lines where that cannot be seen."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import sys
import threading
from collections import deque
from typing import Any

from toolshed.live.screen import NEWS, encodable, frame, line
from toolshed.live.sparklines import ASCII, UNICODE, Row
from toolshed.views.panels import printable

EVERY_FRAME = 0.25
"""Seconds from one frame to the next."""
EVERY_LINE = 1.0
"""Seconds from one printed line to the next, at least."""
MOST_NEWS = 5
"""Events that are told in one line."""

STYLES = {
    "": "",
    "title": "bold",
    "status": "bold",
    "message": "",
    "faint": "dim",
    "bar": "#56B4E9",
    "rest": "dim",
    "train": "#56B4E9",
    "eval": "#E69F00",
    "other": "",
    "mark": "#CC79A7",
    "odd": "bold red",
}
"""How each style looks. The colours are of the palette of Okabe and Ito; a terminal may have fewer."""


class TerminalView:
    """Shows a run in a terminal until it is closed: the state in words, and curves of characters.

    On a terminal a few lines are drawn over about four times a second; what is printed meanwhile appears
    above them. Anywhere else (a file, a pipe, a log) it is one line a second at most, and none while
    nothing changes.

    It reads the run from a thread of its own and never makes it wait. If it fails it says so once and
    ends; training goes on. Names and messages are shown as text, whatever they hold.

    Args:
      run: the `toolshed.run.Run`.
      stream: where to write, None for standard error.

    Example:
      >>> with TerminalView(run):  # doctest: +SKIP
      ...     run.train(10_000, wait=True)
    """

    def __init__(self, run: Any, stream: Any = None):
        self._run = run
        self._given = stream
        self._stream: Any = None
        self._news: deque[Any] = deque(maxlen=1000)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> TerminalView:
        """Begins to show the run; returns at once."""
        if self._thread is None:
            self._stream = sys.stderr if self._given is None else self._given
            self._closing.clear()
            # In this context what is written appears where the view was started: in a notebook, in its cell.
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._follow,), name="toolshed-terminal", daemon=True
            )
            self._thread.start()
            atexit.register(self.close)  # a cursor that was hidden must come back
        return self

    def close(self) -> None:
        """Shows the last state and ends. Does nothing the second time."""
        self._closing.set()  # before all else: Ctrl-C may end this, and then the view ends by itself
        thread, self._thread = self._thread, None
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def __enter__(self) -> TerminalView:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- the view's own thread ----------------------------------------------------------------------

    def _follow(self) -> None:
        stop = None
        try:
            stop = self._run.subscribe(self._listen)
            if _can_be_drawn_over(self._stream):
                self._draw()
            else:
                self._print()
        except Exception as error:
            with contextlib.suppress(Exception):
                what = printable(f"{type(error).__name__}: {error}", 200)
                self._write(f"The terminal view has stopped: {what}. Training is not touched.")
        finally:
            if stop is not None:
                with contextlib.suppress(Exception):
                    stop()

    def _listen(self, event: Any) -> None:
        if event.kind in NEWS:
            self._news.append(event)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, markup=False, highlight=False, emoji=False)
        signs = UNICODE if encodable("⣿━·×┊", console.encoding) == "⣿━·×┊" else ASCII
        live = Live(
            console=console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=_is_terminal(sys.stdout),
            redirect_stderr=_is_terminal(sys.stderr),
        )
        with live:
            closing = False
            while not closing:
                closing = self._closing.wait(EVERY_FRAME)
                rows = frame(self._run, console.width, console.height, signs)
                live.update(_text(rows, console.encoding), refresh=True)

    def _print(self) -> None:
        printed, closing = None, False
        while not closing:
            closing = self._closing.wait(EVERY_LINE)
            progress, news = self._run.progress, self._told()
            state = (progress.step, progress.status, self._run.history.version)
            if news or state != printed:
                self._write("; ".join([line(self._run), *news]))
                printed = state

    def _told(self) -> list[str]:
        """What happened since the last time, in words."""
        events = [self._news.popleft() for _ in range(len(self._news))]
        told = [f"step {event.step:,}: {printable(event.text, 200)}" for event in events[:MOST_NEWS]]
        return told if len(events) <= MOST_NEWS else [*told, f"and {len(events) - MOST_NEWS:,} more events"]

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(encodable(text, encoding) + "\n")
        self._stream.flush()


def _text(rows: list[Row], encoding: str) -> Any:
    """Lines of text as rich draws them: pieces with a style, never markup."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore", end="")
    for index, row in enumerate(rows):
        text.append("\n" if index else "")
        for piece, style in row:
            text.append(encodable(piece, encoding), STYLES[style] or None)
    return text


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no such thing, or closed
        return False


def _can_be_drawn_over(stream: Any) -> bool:
    return _is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
