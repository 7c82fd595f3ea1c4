"""Renderings: how states, contexts and trees look in a notebook."""

from toolshed.views.trees import format_bytes as format_bytes
from toolshed.views.trees import register
from toolshed.views.trees import summarize_state as summarize_state

register()
