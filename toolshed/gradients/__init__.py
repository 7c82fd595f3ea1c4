"""How gradients are found: strategies that return gradients and apply nothing."""

from toolshed.gradients.backprop import GradientStrategy as GradientStrategy
from toolshed.gradients.backprop import LossOfParams as LossOfParams
from toolshed.gradients.backprop import backprop as backprop
