"""Losses: declared by paths, named, weighted and masked. Loss functions themselves are optax's."""

from toolshed.losses.declared import Loss as Loss
from toolshed.losses.declared import Losses as Losses
from toolshed.losses.declared import collection as collection
from toolshed.losses.functions import correlation as correlation
from toolshed.losses.functions import quantile as quantile
from toolshed.losses.functions import sharpe as sharpe
