"""The step, what it knew, and the trainer that repeats it."""

from toolshed.loss_function import LossFunction as LossFunction
from toolshed.training.context import AuxState as AuxState
from toolshed.training.context import Context as Context
from toolshed.training.step import TrainStep as TrainStep
from toolshed.training.step import build_train_step as build_train_step
from toolshed.training.tape import Scalar as Scalar
from toolshed.training.tape import Tape as Tape
from toolshed.training.trainer import Trainer as Trainer
from toolshed.training.watches import EarlyStop as EarlyStop
from toolshed.training.watches import EarlyStopping as EarlyStopping
from toolshed.training.watches import KeepBest as KeepBest
from toolshed.training.watches import ReduceOnPlateau as ReduceOnPlateau
