"""Ridges: answers a front end that wants to see how the values of one array moved."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from toolshed.live.pace import Pace
from toolshed.live.scene import clip
from toolshed.run import Run
from toolshed.run.events import one_line

STEPS = 12
"""Histograms in an answer."""


class Ridges:
    """Answers questions one after another, each in a thread of its own; of several that wait the newest.

    An answer is ``{"kind": "ridges", "view", "number", "path", "steps", "counts"}``, the counts 49 to a
    step; or it has an ``error``, in words, instead of the last two. It does not keep the run alive.

    Args:
      run: which is asked.
      send: sends an answer.
    """

    def __init__(self, run: Run, send: Callable[[dict[str, Any]], None]):
        self._run = weakref.ref(run)
        self._send = send
        self._question: Mapping[str, Any] | None = None
        self._pace = Pace(self._work)

    def ask(self, question: Mapping[str, Any]) -> None:
        """Takes a question: ``view``, ``number``, a watch's ``pattern`` and the ``row``. Returns at once."""
        self._question = question
        self._pace.ask()

    def _work(self) -> None:
        question, self._question = self._question, None
        run = self._run()
        if question is not None and run is not None:
            self._send(_answer(run, question))


def _answer(run: Run, question: Mapping[str, Any]) -> dict[str, Any]:
    known = {"kind": "ridges", "view": question["view"], "number": question["number"]}
    try:
        path = run.watched[question["pattern"]].paths[int(question["row"])]
        known["path"] = clip(path)
        found = run.histograms(path, most=STEPS)
    except Exception as error:  # the run goes on, and the front end says it
        return {**known, "error": clip(one_line(error))}
    return {**known, "steps": list(found), "counts": [counts.tolist() for counts in found.values()]}
