"""toolshed: look inside a JAX model, train it, step it, rewind it, in a notebook.

model ─ split ─▶ TrainState ─▶ step(state, batch) ─▶ (state', Context)
"""

from toolshed import checkpoints as checkpoints
from toolshed import data as data
from toolshed import errors as errors
from toolshed import gradients as gradients
from toolshed import insight as insight
from toolshed import live as live
from toolshed import losses as losses
from toolshed import metrics as metrics
from toolshed import models as models
from toolshed import sinks as sinks
from toolshed import views as views
from toolshed.live import explore as explore
from toolshed.models.capture import capture as capture
from toolshed.run import Run as Run
from toolshed.run import attach as attach
from toolshed.run import compare_runs as compare_runs
from toolshed.run import lr_find as lr_find
from toolshed.run import runs as runs
from toolshed.run import until as until
from toolshed.run import what_if as what_if
from toolshed.state import TrainState as TrainState
from toolshed.taps import tap as tap
from toolshed.training import Context as Context
from toolshed.training import EarlyStop as EarlyStop
from toolshed.training import EarlyStopping as EarlyStopping
from toolshed.training import KeepBest as KeepBest
from toolshed.training import LossFunction as LossFunction
from toolshed.training import ReduceOnPlateau as ReduceOnPlateau
from toolshed.training import Scalar as Scalar
from toolshed.training import Tape as Tape
from toolshed.training import Trainer as Trainer
from toolshed.training import TrainStep as TrainStep
from toolshed.training import build_train_step as build_train_step
from toolshed.views import compare as compare
from toolshed.views import disable as disable
from toolshed.views import enable as enable
from toolshed.views import load_ipython_extension as load_ipython_extension
from toolshed.views import show as show
from toolshed.views import unload_ipython_extension as unload_ipython_extension

__version__ = "0.1.0"
