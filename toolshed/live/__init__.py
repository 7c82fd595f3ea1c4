"""Views of a run that follow it."""

from toolshed.live.terminal import TerminalView as TerminalView
