"""Runs the tests of this folder on programs compiled as everyone's are.

XLA reads its flags once in a process, and the others' say to compile quickly. So the first of these tests
starts a Python in which all of them run, and each reports what came of it there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.compiling import OPTIMIZED, everyones_environment

ROOT = Path(__file__).parents[2]
OUTCOMES = "TOOLSHED_OUTCOMES"
"""Names, in the environment of that Python, the file that it writes: what failed, by test."""

_failures: dict[str, str | None] = {}


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Has a test run in the other Python."""
    if OPTIMIZED in os.environ:
        return None
    if not _failures:
        here = [item.nodeid for item in pyfuncitem.session.items if item.path.parent == Path(__file__).parent]
        _failures.update(run(here))
    failure = _failures[pyfuncitem.nodeid]
    if failure is not None:
        pytest.fail(failure, pytrace=False)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes down, in the other Python, what came of a test."""
    if OUTCOMES in os.environ and (report.when == "call" or not report.passed):
        failure = None if report.passed else f"{report.when}: {report.longreprtext}"
        with open(os.environ[OUTCOMES], "a") as file:
            print(json.dumps([report.nodeid, failure]), file=file)


def run(names: list[str]) -> dict[str, str | None]:
    """Runs tests in another Python: by name what failed, or None."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        outcomes.touch()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *names],
            cwd=ROOT,
            env=everyones_environment(**{OPTIMIZED: "1", OUTCOMES: str(outcomes)}),
            capture_output=True,
            text=True,
        )
        written = dict(map(json.loads, outcomes.read_text().splitlines()))
    lost = f"Its Python ended with {done.returncode} before it:\n{(done.stdout + done.stderr)[-4000:]}"
    return {name: written.get(name, lost) for name in names}
