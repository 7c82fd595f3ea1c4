"""Sinks: other tools that are told of a run's values and events while it goes on: ``Run(…, sinks=[…])``."""

from toolshed.sinks.mlflow import MLflow as MLflow
from toolshed.sinks.sink import Sink as Sink
from toolshed.sinks.tensorboard import TensorBoard as TensorBoard
from toolshed.sinks.trackio import Trackio as Trackio
from toolshed.sinks.wandb import WandB as WandB
