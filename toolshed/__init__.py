"""toolshed: look inside a JAX model, train it, step it, rewind it, in a notebook.

model ─ split ─▶ TrainState ─▶ step(state, batch) ─▶ (state', Context)
"""

from toolshed import data as data
from toolshed import errors as errors
from toolshed import gradients as gradients
from toolshed import metrics as metrics
from toolshed import models as models
from toolshed import views as views
from toolshed.state import TrainState as TrainState
from toolshed.training import Context as Context
from toolshed.training import EarlyStop as EarlyStop
from toolshed.training import LossFunction as LossFunction
from toolshed.training import Tape as Tape
from toolshed.training import Trainer as Trainer
from toolshed.training import TrainStep as TrainStep
from toolshed.training import build_train_step as build_train_step

__version__ = "0.1.0"
