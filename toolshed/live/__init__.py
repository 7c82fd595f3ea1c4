"""Views of a run that follow it: the dashboard, the picture that stays in the notebook, the terminal.

The dashboard itself is `toolshed.live.dashboard.Dashboard`: to import it takes a third of a second, for
ipywidgets and anywidget, so it is imported when the first run is shown.
"""

from toolshed.live.display import explore as explore
from toolshed.live.display import show as show
from toolshed.live.terminal import TerminalView as TerminalView
from toolshed.run.shown import hooks as _hooks

_hooks.in_notebook = show
_hooks.in_terminal = TerminalView
