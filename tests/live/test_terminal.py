"""The terminal view on a real pseudo-terminal, on pipes, and with everything going wrong."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed.run
from tests import zoo
from tests.live.small_run import SmallRun
from toolshed.live import TerminalView, terminal


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Frames and lines as often as a test wants them, on a terminal of known size."""
    monkeypatch.setattr(terminal, "EVERY_FRAME", 0.02)
    monkeypatch.setattr(terminal, "EVERY_LINE", 0.02)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Terminal:
    """A pseudo-terminal: a stream to write to, and what arrived at its other end."""

    def __init__(self, encoding: str = "utf-8"):
        self._end, other = pty.openpty()
        self.stream = os.fdopen(other, "w", encoding=encoding)
        self._bytes: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._end, 65_536)
            except OSError:  # the stream was closed
                return
            self._bytes.append(data)

    @property
    def text(self) -> str:
        return b"".join(self._bytes).decode("utf-8", "replace")

    def close(self) -> str:
        self.stream.close()
        self._reader.join(timeout=5)
        os.close(self._end)
        return self.text


@pytest.fixture
def screen() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    if not terminal.stream.closed:
        terminal.close()


def eventually(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def without_commands(text: str) -> str:
    """What is left when the commands that rich uses are taken out: colours, moves, erasing, the cursor."""
    return re.sub(r"\x1b\[(?:[0-9;]*m|\d*[AK]|2K|\?25[lh])|\r", "", text)


def small_run(steps: int) -> SmallRun:
    run = SmallRun("a run", step=steps, goal=1000)
    run.log("train/loss", np.arange(1, steps + 1), np.linspace(3, 1, steps))
    return run


# --- on a terminal ----------------------------------------------------------------------------------


def test_a_terminal_shows_the_run_and_follows_it(screen):
    run = small_run(100)
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: "step 100 of 1,000" in screen.text)
    run.log("train/loss", np.arange(101, 251), np.linspace(1, 0.25, 150))
    run.move(step=250)
    eventually(lambda: "step 250 of 1,000" in screen.text)
    view.close()
    text = without_commands(screen.close())
    assert "train 1" not in text  # there is one line in the panel: no need to call it train
    assert re.search(r"loss +0\.25", text)
    assert re.search(r"[\u2801-\u28ff]", text)
    assert "\x1b" not in text


def test_the_last_state_is_shown_and_the_cursor_comes_back(screen, monkeypatch):
    monkeypatch.setattr(terminal, "EVERY_FRAME", 60.0)  # nothing is drawn before the end
    run = small_run(10)
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: "\x1b[?25l" in screen.text)
    run.move(step=777, status="finished")
    view.close()
    text = screen.close()
    assert "step 777 of 1,000" in text
    assert "finished" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_frame_is_drawn_over_the_one_before(screen):
    run = small_run(100)
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: screen.text.count("step 100 of 1,000") > 2)
    view.close()
    text = screen.close()
    frames = text.count("step 100 of 1,000")
    lines = text.split("step 100 of 1,000")[1].count("\n")
    assert text.count("\x1b[1A") >= lines * (frames - 1)  # up again, line by line, before each but the first


def test_names_cannot_command_a_terminal(screen):
    run = SmallRun("\x1b[2Jname [red]x[/red]", message="\x1b]0;title\x07[link=http://x]y[/link]")
    run.log("train/\x1b[31mloss\x9b1m[bold]", [1, 2], [1.0, 2.0])
    run.publish("error", "\x1b[8mhidden\x1b[0m :smile: [/]")
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: ":smile: [/]" in screen.text)
    view.close()
    text = without_commands(screen.close())
    assert "name [red]x[/red]" in text
    assert "[link=http://x]y[/link]" in text
    assert "[bold]" in text
    assert not re.search(r"[\x1b\x07\x9b]", text)


def test_a_terminal_without_unicode_gets_ascii():
    screen = Terminal("ascii")
    run = small_run(100)
    run.publish("edited", "learning_rate 0.1 → 0.2 ß")
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: "0.1 -> 0.2 ?" in screen.text)
    view.close()
    text = screen.close()
    assert text.isascii()
    assert re.search(r"[:.']{5}", text)


def test_what_is_printed_meanwhile_appears_above(screen, monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen.stream)
    run = small_run(100)
    view = TerminalView(run, screen.stream).start()
    eventually(lambda: screen.text.count("step 100 of 1,000") > 1)
    print("printed by the loss function")
    view.close()
    assert sys.stdout is screen.stream
    text = without_commands(screen.close())
    assert "printed by the loss function\n" in text
    assert text.index("printed by") < text.rindex("step 100 of 1,000")


def test_a_program_s_output_into_a_file_stays_there(screen, capsys):
    """Standard output is no terminal here: it must not be led to the one that the view draws on."""
    view = TerminalView(small_run(10), screen.stream).start()
    eventually(lambda: "step 10 " in screen.text)
    print("a result")
    view.close()
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in screen.close()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(screen, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    with TerminalView(small_run(10), screen.stream):
        eventually(lambda: "step 10 of" in screen.text)
    assert "\x1b" not in screen.close()


# --- into a file ------------------------------------------------------------------------------------


def test_a_file_gets_lines_only_when_something_changed():
    run, file = small_run(10), io.StringIO()
    view = TerminalView(run, file).start()
    eventually(file.getvalue)
    time.sleep(0.1)
    run.move(step=20, steps_per_second=50.0)
    eventually(lambda: "step 20" in file.getvalue())
    run.publish("edited", "learning_rate 0.1 → 0.2", step=20)
    eventually(lambda: "→" in file.getvalue())
    run.publish("rows", "nobody reads this")
    time.sleep(0.1)
    view.close()
    assert file.getvalue() == (
        "a run: step 10 of 1,000, train/loss 1\n"
        "a run: step 20 of 1,000, train/loss 1, 50 steps/s\n"
        "a run: step 20 of 1,000, train/loss 1, 50 steps/s; step 20: learning_rate 0.1 → 0.2\n"
    )


def test_a_file_gets_one_line_a_second_at_most(monkeypatch):
    monkeypatch.setattr(terminal, "EVERY_LINE", 0.1)
    run, file = small_run(10), io.StringIO()
    start = time.monotonic()
    with TerminalView(run, file):
        while time.monotonic() < start + 0.55:
            run.move(step=run.progress.step + 1)
            run.publish("note", "something")
            time.sleep(0.001)
    lines = file.getvalue().splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - start) / 0.1 + 1  # and one at the end
    assert any("more events" in line for line in lines)
    assert lines[-1].startswith(f"a run: step {run.progress.step}")


def test_the_last_state_is_in_the_file_even_if_all_went_too_fast(monkeypatch):
    monkeypatch.setattr(terminal, "EVERY_LINE", 60.0)
    run, file = small_run(10), io.StringIO()
    with TerminalView(run, file):
        run.move(step=999, status="finished")
    assert file.getvalue() == "a run: step 999 of 1,000, train/loss 1, finished\n"


def test_without_a_stream_it_is_standard_error(capsys):
    with TerminalView(small_run(10)):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("a run: step 10")


def test_a_file_in_another_encoding_gets_what_it_can_hold():
    raw = io.BytesIO()
    run = small_run(10)
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with TerminalView(run, file):
        run.publish("edited", "0.1 → 0.2 損")
    assert b"0.1 -> 0.2 ?" in raw.getvalue()


# --- beginning, end and failures --------------------------------------------------------------------


def test_it_can_be_closed_twice_and_started_again():
    run, file = small_run(10), io.StringIO()
    view = TerminalView(run, file)
    view.close()
    assert view.start() is view.start()
    assert len(run.listeners) in (0, 1)
    view.close()
    view.close()
    assert run.listeners == []
    run.move(step=11)
    with view:
        pass
    assert [line.split(",")[0] for line in file.getvalue().splitlines()] == [
        "a run: step 10 of 1",
        "a run: step 11 of 1",
    ]


def test_no_thread_is_left():
    before = set(threading.enumerate())
    with TerminalView(small_run(10), io.StringIO()):
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) == before


class Broken(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails_ends_the_view_and_nothing_else():
    run = small_run(10)
    view = TerminalView(run, Broken()).start()
    eventually(lambda: run.listeners == [] and not view._thread.is_alive())
    run.publish("edited", "still going")
    run.move(step=11)
    view.close()


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_failure_is_told_once(screen, on_terminal):
    run, file = small_run(10), io.StringIO()
    del run.history
    stream = screen.stream if on_terminal else file
    view = TerminalView(run, stream).start()
    eventually(lambda: run.listeners == [] and not view._thread.is_alive())
    view.close()
    text = screen.close() if on_terminal else file.getvalue()
    assert text.count("The terminal view has stopped: AttributeError: 'SmallRun' object has no") == 1
    assert "Training is not touched." in text
    if on_terminal:
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_closed_stream_is_survived():
    file = io.StringIO()
    view = TerminalView(small_run(10), file).start()
    file.close()
    view.close()


def test_importing_the_view_does_not_load_rich():
    """As `tests.test_imports` checks for all of toolshed, in one process for all."""
    source = (terminal.__file__, terminal.frame.__code__.co_filename)
    for name in source:
        with open(name) as file:
            assert not re.search(r"^(from|import) rich", file.read(), re.MULTILINE)


# --- a run that trains ------------------------------------------------------------------------------


def real_run() -> Any:
    """A run that trains the smallest model of the zoo."""
    case = zoo.mlp()
    batches = toolshed.data.from_function(lambda index: jax.device_get(case.batch), 8)
    return toolshed.run.Run(case.model, optax.adam(0.1), case.loss_fn, batches)


RUNS: dict[str, Callable[[], Any]] = {"small": lambda: small_run(12)}
if hasattr(toolshed.run, "Run"):
    RUNS["real"] = real_run


@pytest.mark.parametrize("kind", RUNS)
def test_runs_of_either_kind_are_shown(kind, screen):
    run, file = RUNS[kind](), io.StringIO()
    with TerminalView(run, screen.stream), TerminalView(run, file):
        if kind == "real":
            run.train(12, wait=True)
    assert re.search(r"step 12.*train/loss \d", file.getvalue())
    text = without_commands(screen.close())
    assert "step 12" in text
    assert re.search(r"loss +\d", text)
    assert "has stopped" not in text + file.getvalue()
