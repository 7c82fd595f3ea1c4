"""Sinks: other tools that are told of a run's values and events while it goes on: ``Run(…, sinks=[…])``."""

from toolshed.sinks.sink import Sink as Sink
from toolshed.sinks.tensorboard import TensorBoard as TensorBoard
