"""The twin: a picture beside the widget, which a saved notebook shows when there is no kernel any more."""

from __future__ import annotations

import base64
import html
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from toolshed.live import autopsies, scene
from toolshed.live.drawing import to_svg
from toolshed.live.heat import heats
from toolshed.live.heat_picture import CELLS, ROWS
from toolshed.live.pace import Pace, listen
from toolshed.live.picture import COLUMNS, WIDTH, describe, draw
from toolshed.live.raster import to_png
from toolshed.live.trouble import Trouble
from toolshed.run import Run

EVERY = 10.0
"""Seconds between two pictures of a run that changes."""
QUIET = 1.0
"""Seconds without a change after which the picture is made for good."""
PLACES = 4
"""Places in a notebook whose pictures are kept up to date: the newest."""

# In JupyterLab and Notebook exactly one of the two is shown: the picture unless the living widget stands
# before it, and then no widget that cannot live, as its kernel is gone.
_RULES = (
    ".jp-OutputArea-child:has(.toolshed-live)+.jp-OutputArea-child:has(.toolshed-twin),"
    ".jp-OutputArea-child:has(.jupyter-widgets,.lm-Panel):not(:has(.toolshed-live))"
    ":has(+.jp-OutputArea-child .toolshed-twin){display:none}"
)


def make_bundle(run: Run, key: str, settings: Mapping[str, Any], *, final: bool = True) -> dict[str, str]:
    """A run as a picture in the forms that notebooks, their converters and untrusting viewers show.

    Args:
      run: what to draw.
      key: the dashboard's, so that it can hide the picture where no rule of CSS does.
      settings: what a person chose in the dashboard.
      final: whether to make a PNG, too, which takes a third of a second.
    """
    history = run.history
    head, whole = scene.head(run), scene.whole(history, columns=COLUMNS)
    maps = heats(run.watched, settings, rows=ROWS, cells=CELLS)
    told = autopsies.newest(run.events) if head["status"] == "failed" else None
    drawing = draw(head, whole, scene.marks(run.events, history), settings, maps=maps, autopsy=told)
    words = describe(head, whole)
    image = base64.b64encode(to_svg(drawing).encode("utf-8", "replace")).decode()
    source = f'src="data:image/svg+xml;base64,{image}"'
    picture = f'<img width="{WIDTH}" style="max-width: 100%" alt="{html.escape(words)}" {source}>'
    bundle = {
        "text/plain": words,
        "text/html": f'<style>{_RULES}</style><div class="toolshed-twin toolshed-twin-{key}">{picture}</div>',
    }
    if final:
        bundle["image/png"] = base64.b64encode(to_png(drawing)).decode()
    return bundle


class Twin:
    """The pictures of one run in a notebook, kept up to date.

    They are made anew about every `EVERY` seconds while the run changes, and once more when it rests.
    The twin does not keep the run alive.

    Args:
      run: what to draw.
      key: see `make_bundle`.
      settings: gives what a person chose in the dashboard.
      publish: shows a bundle: called as ``publish(bundle, display_id, update)``.
    """

    def __init__(
        self,
        run: Run,
        key: str,
        settings: Callable[[], Mapping[str, Any]],
        publish: Callable[[dict[str, str], str, bool], None],
    ):
        self._run = weakref.ref(run)
        self._key, self._settings, self._publish = key, settings, publish
        self._places: list[str] = []
        self._trouble = Trouble("The picture of the run")
        self._seen: Any = None
        self._since = self._drawn_at = 0.0
        self._drawn: Any = None
        self._pace = Pace(self._work, every=0.2)
        self._unsubscribe = listen(run, self._pace)

    def show(self) -> None:
        """Shows the picture as an output of its own."""
        run = self._run()
        if run is None:
            return
        place = uuid.uuid4().hex
        self._publish(make_bundle(run, self._key, self._settings()), place, False)
        self._places = [*self._places, place][-PLACES:]

    def _work(self) -> float | None:
        """Makes the picture anew if it is time to; gives back in how many seconds to look again."""
        run = self._run()
        if run is None or self._trouble.stopped or not self._places:
            return None
        try:
            return self._look(run)
        except Exception as error:  # whatever it is, the run goes on
            self._trouble.report(error)
            if self._trouble.stopped:
                self._unsubscribe()
            return None

    def _look(self, run: Run) -> float | None:
        now, state = time.monotonic(), (run.history.version, len(run.events), run.status)
        if state != self._seen:
            self._seen, self._since = state, now
        busy = run.status in scene.BUSY
        rests = not busy and now - self._since >= QUIET
        if self._drawn == (state, True) or (busy and self._drawn == (state, False)):
            return None
        if rests or now - self._drawn_at >= EVERY:
            self._drawn, self._drawn_at = (state, rests), now
            self._draw(run, final=rests)
            self._trouble.over()
        return QUIET

    def _draw(self, run: Run, *, final: bool) -> None:
        bundle = make_bundle(run, self._key, self._settings(), final=final)
        for place in self._places:
            self._publish(bundle, place, True)
