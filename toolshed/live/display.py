"""What happens when a run is the value of a cell."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from toolshed import views
from toolshed.live.screen import line
from toolshed.live.twin import Twin
from toolshed.run import Run, place

if TYPE_CHECKING:
    from toolshed.live.dashboard import Dashboard


class _Views(NamedTuple):
    """The views of one run; they are shown in any number of cells."""

    dashboard: Dashboard | None
    twin: Twin


_SHOWN: weakref.WeakKeyDictionary[Run, _Views] = weakref.WeakKeyDictionary()


def show(run: Run) -> None:
    """Shows a run: its dashboard and the picture that stays, the picture alone, or a line of text.

    The dashboard needs somebody who can see it. Where a notebook is run by a program, the picture is shown
    alone; outside of notebooks a line is printed.
    """
    if not place.in_kernel():
        print(line(run))
        return
    shown = _SHOWN.get(run)
    if shown is None or (shown.dashboard is not None and not shown.dashboard.comm):
        shown = _SHOWN[run] = _make_views(run)
    if shown.dashboard is not None:
        _publish_widget(shown.dashboard)
    shown.twin.show()


def explore(tree: Any) -> Any:
    """A tree to walk through: levels open on demand, arrays are found by path or the worst first.

    A click on an array shows its numbers, its histogram and a picture of its values. It says what was so
    when it was made, and keeps the tree's arrays. Where nobody can click, as in a notebook that a program
    runs, it is the picture that `toolshed.show` makes.

    Args:
      tree: any pytree: a state, a model, a Context, gradients.
    """
    if not place.is_watched():
        return views.show(tree)
    # ipywidgets and anywidget take a third of a second to import: only where they are needed.
    from toolshed.live.explorer import Explorer

    return Explorer(tree)


def _make_views(run: Run) -> _Views:
    if not place.is_watched():
        return _Views(None, Twin(run, "", dict, publish))
    # ipywidgets and anywidget take a third of a second to import: only where they are needed.
    from toolshed.live.dashboard import Dashboard

    dashboard = Dashboard(run)
    look = weakref.ref(dashboard)
    return _Views(dashboard, Twin(run, dashboard.key, lambda: _settings(look()), publish))


def _settings(dashboard: Dashboard | None) -> dict[str, Any]:
    return {} if dashboard is None else dict(dashboard.settings)


def _publish_widget(dashboard: Dashboard) -> None:
    from IPython.display import display

    bundle = dashboard._repr_mimebundle_() or ({}, {})
    # What shows no widgets shows the picture, which says all in words, too.
    display({**bundle[0], "text/plain": ""}, raw=True)


def publish(bundle: dict[str, str], place: str, update: bool) -> None:
    """Shows a bundle as an output, or in the place of one that was shown before."""
    from IPython.display import display

    display(bundle, raw=True, display_id=place, update=update)
