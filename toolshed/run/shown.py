"""How a run is shown: hooks that a view puts itself into, for a run knows none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from toolshed.run.events import warn_of

if TYPE_CHECKING:
    from toolshed.run.run import Run


class Hooks:
    """What is called when a run is to be seen.

    Attributes:
      in_notebook: ``in_notebook(run)`` shows it as the output of a cell.
      in_terminal: ``in_terminal(run)`` is a context in which it is shown while a program waits for it.
    """

    def __init__(self) -> None:
        self.in_notebook: Callable[[Run], None] = lambda run: print(repr(run))
        self.in_terminal: Callable[[Run], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


hooks = Hooks()


@contextlib.contextmanager
def shown_in_terminal(run: Run) -> Iterator[None]:
    """A context in which a run is shown in a terminal; a view that fails is warned of and changes nothing."""
    with contextlib.ExitStack() as view:
        try:
            shown = hooks.in_terminal(run)
            view.push(shown)  # it is closed also if Ctrl-C comes while it is opened
            shown.__enter__()
        except Exception as error:
            warn_of(error, _FAILED)
        try:
            yield
        finally:
            try:
                view.close()
            except Exception as error:
                warn_of(error, _FAILED)


def show_in_notebook(run: Run) -> None:
    """Shows a run as the output of the cell; a view that fails is warned of."""
    try:
        hooks.in_notebook(run)
    except Exception as error:
        warn_of(error, _FAILED)


_FAILED = "A view of a run failed."
