"""Metrics as values: a state for each batch, that merges."""

from toolshed.metrics.metric import Accuracy as Accuracy
from toolshed.metrics.metric import Collection as Collection
from toolshed.metrics.metric import Mean as Mean
from toolshed.metrics.metric import Metric as Metric
from toolshed.metrics.metric import collection as collection
