"""How gradients are found: strategies that return gradients and apply nothing."""

from toolshed.gradients.accumulate import Accumulate as Accumulate
from toolshed.gradients.comparison import Comparison as Comparison
from toolshed.gradients.comparison import compare as compare
from toolshed.gradients.deep_supervision import DeepSupervision as DeepSupervision
from toolshed.gradients.one_step import OneStepApproximation as OneStepApproximation
from toolshed.gradients.per_example import PerExample as PerExample
from toolshed.gradients.recurrence import fixed_point as fixed_point
from toolshed.gradients.recurrence import recurrent as recurrent
from toolshed.gradients.remat import Remat as Remat
from toolshed.gradients.strategy import Backprop as Backprop
from toolshed.gradients.strategy import GradientStrategy as GradientStrategy
from toolshed.gradients.strategy import LossOfParams as LossOfParams
from toolshed.gradients.strategy import backprop as backprop
