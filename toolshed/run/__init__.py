"""What changes while a model is trained: the values of each step, on every branch."""

from toolshed.run.branches import Branch as Branch
from toolshed.run.history import History as History
from toolshed.run.track import Series as Series
from toolshed.run.windows import Window as Window
