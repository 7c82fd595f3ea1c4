"""Kills saving processes, and looks at what they leave behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.crash.training import Lesson
from tests.crash.worker import Order, loss, repository, state, values

ROOT = Path(__file__).parents[2]


class Killer:
    """Has processes save in one repository, each until it is killed.

    Args:
      folder: where to put the repository.
      mode: what is saved; see `tests.crash.worker.MODES`.
      asynchronous: how.
      source: of chance.
    """

    def __init__(self, folder: Path, mode: str, *, asynchronous: bool, source: random.Random):
        self.mode, self.asynchronous, self.source = mode, asynchronous, source
        self._root, self._log = folder / "repository", folder / "acknowledged"
        self._first = 0
        self.saved: list[int] = []  # the numbers of all states that were acknowledged
        self.kills = 0

    def kill_once(self, zygote: Zygote) -> None:
        """Starts a process, kills it, and judges what is there."""
        by_operation = self.source.random() < 0.5
        self._log.unlink(missing_ok=True)
        order = Order(
            root=str(self._root),
            mode=self.mode,
            asynchronous=self.asynchronous,
            first=self._first,
            acknowledged=str(self._log),
            operations=self.source.randrange(1, 150) if by_operation else None,
        )
        process = zygote.start(order)
        lines = self._lines()
        deadline = time.monotonic() + 300
        while not lines:
            assert time.monotonic() < deadline, self._errors()
            time.sleep(0.002)
            lines = self._lines()
        if not by_operation:
            time.sleep(self.source.uniform(0, 0.3))
            os.kill(process, signal.SIGKILL)
        status = zygote.wait()
        assert os.WIFSIGNALED(status), self._errors()
        assert os.WTERMSIG(status) == signal.SIGKILL
        self.kills += 1
        self.saved += [int(line) for line in self._lines()[1:]]
        self.judge(order)

    def _lines(self) -> list[str]:
        try:
            return self._log.read_text().splitlines()
        except FileNotFoundError:
            return []

    def _errors(self) -> str:
        errors = Path(f"{self._log}.errors")
        return errors.read_text()[-4000:] if errors.exists() else "no errors"

    def judge(self, order: Order) -> None:
        """Everything that is listed is whole, what was acknowledged is there, and the next save works."""
        with repository(order) as here, warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing may have to be stepped over
            damages = here.verify()
            assert damages == (), damages
            if self.saved:
                self._judge_contents(here)
            newest = here.latest
            self._first = 0 if newest is None else newest.metadata["n"] + 1
            here.save(
                state(self._first),
                step=7 if self.mode == "same step" else None,
                metadata={"n": self._first},
                metrics={"loss": loss(self._first)},
                wait=True,
            )
            self.saved.append(self._first)
            self._first += 1
            for name in ("staging", "trash"):
                assert list((self._root / name).iterdir()) == [], f"left over in {name}"

    def _judge_contents(self, here: Any) -> None:
        restored = here.restore(like=state(0))
        n = restored.manifest.metadata["n"]
        assert n >= max(self.saved), f"state {max(self.saved)} was acknowledged, the newest is {n}"
        check_values(restored.state, n)
        there = {one.metadata["n"] for one in here.find()}
        if self.mode == "keep all":
            assert set(self.saved) <= there
        if self.mode == "same step":
            assert here.steps() == [7]
        if self.mode == "retention":
            assert min(map(loss, there)) <= min(map(loss, self.saved))
        if self.mode == "tagged best" and here.find(tags="best"):
            best = here.restore("best", like=state(0))
            check_values(best.state, best.manifest.metadata["n"])


def check_values(found: Any, n: int) -> None:
    """Whether this is the n-th state, to the last bit."""
    assert int(found.step) == n
    np.testing.assert_array_equal(jax.random.key_data(found.root_rng), jax.random.key_data(jax.random.key(n)))
    for name, expected in values(n).items():
        assert np.asarray(found.params[name]).tobytes() == expected.tobytes()


class Zygote:
    """The process that makes the processes that are killed.

    Args:
      module: what it runs.
      environment: for it, beside what there is.
    """

    def __init__(self, module: str = "tests.crash.worker", **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, order: Any) -> int:
        """Starts a process; gives its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order._asdict()) + "\n")
        self._process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """Waits until the process has ended; gives its status."""
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


class Kill(NamedTuple):
    """A moment to kill a training in; see `tests.crash.training.Lesson`."""

    at: int
    delay: float


def moments(kills: int, steps: int, edit_at: int, source: random.Random) -> list[Kill]:
    """Moments in the order in which a training comes to them.

    One in eight is while a process begins. Of the others one in two is spread over all steps; of the rest
    one in four is before the edit, two are at its step, some before and some after it is made, and one is
    right after it.
    """
    count = kills - kills // 8
    targets = [5 + (steps - 20) * n // count for n in range(0, count, 2)]
    near = (lambda: edit_at - source.randrange(1, 6), lambda: edit_at, lambda: edit_at, lambda: edit_at + 1)
    targets = sorted([*targets, *(near[n % 4]() for n in range(count - len(targets)))])
    for n in range(kills // 8):
        targets.insert(8 * n + 4, -1)
    return [Kill(at, source.uniform(0, 0.08)) for at in targets]


class Breaker:
    """Kills a training in given moments, then lets it come to its end.

    Args:
      folder: where its runs and its log are.
      steps: to train; the edit is made in the middle.
    """

    def __init__(self, folder: Path, *, steps: int):
        folder.mkdir()
        self._log = folder / "log"
        self._lesson = Lesson(str(folder / "runs"), str(self._log), steps, steps // 2, None, 0.0)

    def break_it(self, zygote: Zygote, kills: Iterable[Kill] = ()) -> str:
        """The digest of the training's end, after these kills; one at -1 is while the process begins."""
        for kill in kills:
            zygote.start(self._lesson._replace(kill_at=kill.at, delay=kill.delay))
            assert os.WIFSIGNALED(zygote.wait()), self._errors()
        zygote.start(self._lesson)
        zygote.wait()
        lines = self.lines()
        assert lines, self._errors()
        assert lines[-1].startswith("done "), self._errors()
        return lines[-1]

    def killed(self) -> dict[str, int]:
        """How many kills came in which part of the training."""
        counts = dict.fromkeys(("beginning", "before", "on", "edited", "after"), 0)
        for line in self.lines():
            if line.startswith("killed "):
                counts[self._part(line)] += 1
        return counts

    def _part(self, line: str) -> str:
        if "began" in line:
            return "beginning"
        step, edits = (int(word) for word in line.split() if word.isdecimal())
        if step == self._lesson.edit_at:
            return "edited" if edits else "on"
        return "before" if step < self._lesson.edit_at else "after"

    def lines(self) -> list[str]:
        """What the processes wrote down."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def _errors(self) -> str:
        errors = Path(f"{self._log}.errors")
        return errors.read_text()[-4000:] if errors.exists() else "no errors"
