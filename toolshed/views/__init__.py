"""Renderings: how states, contexts, trees and curves look in a notebook."""

from toolshed.views.curves import Mark as Mark
from toolshed.views.curves import curves as curves
from toolshed.views.overlay import overlay as overlay
from toolshed.views.trees import format_bytes as format_bytes
from toolshed.views.trees import register
from toolshed.views.trees import summarize_state as summarize_state

register()
