"""How a run is shown: hooks that a view puts itself into, for a run knows none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
