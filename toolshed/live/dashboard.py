"""Dashboard: the widget of a run. It shows what the run says and asks the run for what a person wants."""

from __future__ import annotations

import math
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from toolshed.live import autopsies, scene
from toolshed.live.frames import pack
from toolshed.live.heat import heats, pack_heats
from toolshed.live.pace import Looks, Pace, listen
from toolshed.live.panels import NAMES
from toolshed.live.ridges import Ridges
from toolshed.live.trouble import Trouble
from toolshed.run import Run

ACTIONS = ("train", "pause", "resume", "step", "back", "stop", "save", "edit")
"""What a front end may ask a run for."""
ANSWER = 40_000
"""Columns of all lines together in an answer to a front end that zooms."""
MAPS_EVERY = 0.5
"""Seconds between two updates of what is watched, at least."""
GONE = "This run is not in the kernel any more; these are its last values."

_STATIC = Path(__file__).parent / "static"


class Dashboard(anywidget.AnyWidget):
    """The dashboard of a run, for any number of front ends at once.

    `run` itself, as the value of a cell, shows one with the picture that stays when the kernel is gone. A
    dashboard made by hand has no such picture, and can be put into a layout of ipywidgets.

    The run's publishing thread tells it that something changed; a thread of its own brings the front ends
    up to date, ten times a second at most, and never while nobody looks. A failure here is shown once and
    leaves the run alone. The dashboard does not keep the run alive.

    Args:
      run: what to show.
    """

    _esm = _STATIC / "dashboard.js"
    _css = _STATIC / "dashboard.css"
    key = traitlets.Unicode().tag(sync=True)
    overview = traitlets.Bytes().tag(sync=True)
    head = traitlets.Dict().tag(sync=True)
    marks = traitlets.List().tag(sync=True)
    watched = traitlets.Bytes().tag(sync=True)
    autopsy = traitlets.Dict().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)

    def __init__(self, run: Run):
        super().__init__(key=uuid.uuid4().hex[:12])
        self._run = weakref.ref(run)
        self._looks = Looks()
        self._shown = _Shown()
        self._trouble = Trouble("The dashboard")
        self._ridges = Ridges(run, lambda answer: self.send(answer))
        self._update(run)
        self._pace = Pace(self._work)
        self.on_msg(self._hear)
        self.observe(lambda change: self._pace.ask(), "settings")
        _let_messages_through(self.comm)
        self._unsubscribe = listen(run, self._pace)

    def __repr__(self) -> str:
        run = self._run()
        return "Dashboard(of a run that is gone)" if run is None else f"Dashboard({run.name})"

    def close(self) -> None:
        """Ends the view; the run goes on."""
        if not self.comm:
            return
        self._unsubscribe()
        super().close()

    # --- from the run to the front ends ---------------------------------------------------------------

    def _work(self) -> float | None:
        """Brings the front ends up to date; gives back in how many seconds to look again, or None."""
        run, interval = self._run(), self._looks.interval()
        if run is None or interval is None or self._trouble.stopped:
            return None
        try:
            wait = self._shown.at + interval - time.monotonic()
            if wait > 0.01 and run.status in scene.BUSY:
                return wait
            later = self._update(run)
            self._trouble.over()
            return later
        except Exception as error:  # whatever it is, the run goes on
            self._fail(error)
        return None

    def _update(self, run: Run) -> float | None:
        """Sets what changed, in one message; gives back in how many seconds more is due, or None."""
        shown, history, events = self._shown, run.history, run.events
        head = {**scene.head(run), "problem": self._trouble.text}
        with self.hold_sync():
            if history.version != shown.version:
                whole = scene.whole(history)
                self.overview = pack(whole)
                shown.version = whole.version
            if (len(events), history.branch) != shown.events:
                self.marks = scene.marks(events, history)
                self.autopsy = autopsies.newest(events)
                shown.events = (len(events), history.branch)
            later = self._update_maps(run)
            self.head = head
        if shown.missed:  # a trait that did not change is not sent by itself
            shown.missed = False
            self.send_state(["overview", "marks", "head", "watched", "autopsy"])
        shown.at = time.monotonic()
        return later

    def _update_maps(self, run: Run) -> float | None:
        """Sets the maps of what is watched if they changed; in how many seconds to try again, or None."""
        shown, watched, chosen = self._shown, run.watched, self.settings.get("watched")
        seen = [(one.pattern, one.every, one.statistics, one.version) for one in watched.values()]
        state = (seen, repr(chosen), run.history.branch)
        if state == shown.maps:
            return None
        wait = shown.maps_at + MAPS_EVERY - time.monotonic()
        if wait > 0 and repr(chosen) == shown.maps[1]:
            return wait
        maps = heats(watched, self.settings)
        self.watched = pack_heats(maps, len(watched) - len(maps))
        shown.maps, shown.maps_at = state, time.monotonic()
        return None

    def _fail(self, error: Exception) -> None:
        """Says once that the view failed; after several failures in a row it stops."""
        self._trouble.report(error)
        if self._trouble.stopped:
            self._unsubscribe()
        self.head = {**self.head, "problem": self._trouble.text}

    # --- from a front end to the run ------------------------------------------------------------------

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        """Takes a message of a front end. Runs on the thread of the kernel that got it."""
        del buffers
        run = self._run()
        if run is None:
            self.head = {**self.head, "problem": GONE}
            return
        try:
            kind = message["kind"]
            if kind == "look":
                self._look(str(message["view"]), bool(message["visible"]), message["version"])
            elif kind == "window":
                self._answer(run, message)
            elif kind == "maps":
                self._answer_maps(run, message)
            elif kind == "ridges":
                self._ridges.ask(message)
            elif kind == "request" and message["action"] in ACTIONS:
                run.request(message["action"], **message["arguments"])
        except Exception as error:
            self._fail(error)

    def _look(self, view: str, visible: bool, version: Any) -> None:
        self._looks.heard(view, visible)
        if visible:
            self._shown.missed |= version != self._shown.version
            self._pace.ask()

    def _answer(self, run: Run, message: dict[str, Any]) -> None:
        """Sends a part of the history at screen resolution."""
        places = [int(place) for place in message["ids"]][:NAMES]
        start, stop = math.floor(message["start"]), math.ceil(message["stop"])
        columns = min(max(int(message["points"]), 2), ANSWER // max(1, len(places)))
        frame = pack(scene.part(run.history, places, start, stop, columns))
        self.send({"kind": "window", "view": message["view"], "number": message["number"]}, [frame])

    def _answer_maps(self, run: Run, message: dict[str, Any]) -> None:
        """Sends the part of the maps that a front end looks at closely."""
        part = (float(message["start"]), float(message["stop"]))
        frame = pack_heats(heats(run.watched, self.settings, part=part), 0)
        self.send({"kind": "maps", "view": message["view"], "number": message["number"]}, [frame])


class _Shown:
    """What the front ends were told last."""

    def __init__(self) -> None:
        self.version = -1
        self.events: tuple[int, str] = (-1, "")
        self.maps: tuple[Any, str, str] = ([], "None", "")
        self.maps_at = 0.0
        self.at = 0.0
        self.missed = False  # whether a front end has not got all of it


def _let_messages_through(comm: Any) -> None:
    """Lets buttons work while a cell runs, where the kernel would not.

    ipykernel 7.4 sends a front end's messages to the thread that used the comm last: with updates from a
    thread of our own that is the main one, which is busy. Without this private attribute they go to the
    thread that the front end asked for. Nothing rests on it: if it is gone, clicks wait for the cell.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = None
