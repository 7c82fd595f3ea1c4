"""What changes while a model is trained: a run, its timeline, and the values of each step."""

from toolshed.run.attaching import attach as attach
from toolshed.run.branches import Branch as Branch
from toolshed.run.edits import ModelChange as ModelChange
from toolshed.run.events import Event as Event
from toolshed.run.futures import Futures as Futures
from toolshed.run.futures import what_if as what_if
from toolshed.run.history import History as History
from toolshed.run.leaf_history import STATISTICS as STATISTICS
from toolshed.run.leaf_history import LeafHistory as LeafHistory
from toolshed.run.progress import Progress as Progress
from toolshed.run.rates import LearningRates as LearningRates
from toolshed.run.rates import lr_find as lr_find
from toolshed.run.run import Run as Run
from toolshed.run.runs import Runs as Runs
from toolshed.run.runs import compare_runs as compare_runs
from toolshed.run.runs import runs as runs
from toolshed.run.saved import SavedRun as SavedRun
from toolshed.run.timeline import Timeline as Timeline
from toolshed.run.track import Series as Series
from toolshed.run.windows import Window as Window
