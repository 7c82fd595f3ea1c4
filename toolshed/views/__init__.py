"""Renderings: how states, contexts, trees and curves look in a notebook."""

from toolshed.views import figures as figures
from toolshed.views.compared import compare_curves as compare_curves
from toolshed.views.comparison import compare as compare
from toolshed.views.curves import Mark as Mark
from toolshed.views.curves import curves as curves
from toolshed.views.notebook import disable as disable
from toolshed.views.notebook import enable as enable
from toolshed.views.notebook import load_ipython_extension as load_ipython_extension
from toolshed.views.notebook import unload_ipython_extension as unload_ipython_extension
from toolshed.views.show import View as View
from toolshed.views.show import show as show
from toolshed.views.trees import format_bytes as format_bytes
from toolshed.views.trees import register
from toolshed.views.trees import summarize_state as summarize_state

register()
