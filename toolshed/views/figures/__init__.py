"""Figures: drawings for papers and notebooks, in one style, readable in print and on dark ground.

Each returns a matplotlib Figure that belongs to no pyplot state and shows itself as the value of a cell.
``dark=None``, the default, draws for a light ground, and follows the theme in a notebook.
"""

from toolshed.views.curves import curves as curves
from toolshed.views.figures.flow import gradient_flow as gradient_flow
from toolshed.views.figures.flow import update_ratios as update_ratios
from toolshed.views.figures.maps import confusion_matrix as confusion_matrix
from toolshed.views.figures.maps import heat_map as heat_map
from toolshed.views.figures.maps import history_map as history_map
from toolshed.views.figures.ridges import ridges as ridges
from toolshed.views.figures.searches import futures as futures
from toolshed.views.figures.searches import learning_rates as learning_rates
