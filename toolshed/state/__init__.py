"""The state of training, and its form as plain data."""

from toolshed.state.optimizer import describe_optimizer as describe_optimizer
from toolshed.state.optimizer import name_optimizer as name_optimizer
from toolshed.state.train_state import TrainState as TrainState
from toolshed.state.train_state import check_key, check_metrics

__all__ = ["TrainState", "check_key", "check_metrics", "describe_optimizer", "name_optimizer"]
