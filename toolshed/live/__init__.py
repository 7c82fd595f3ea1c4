"""Views of a run that follow it: the dashboard, the picture that stays, lines in a terminal.

They are loaded when a run is first shown, for what they are made with takes long to import.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from toolshed.run.shown import hooks


def _in_terminal(run: Any) -> AbstractContextManager[Any]:
    from toolshed.live.terminal import TerminalView

    return TerminalView(run)


hooks.in_terminal = _in_terminal
