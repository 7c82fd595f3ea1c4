"""Computations with one fault each, whose line is marked, and computations that are finite."""

from __future__ import annotations

from tests.insight.faults import control_flow as control_flow
from tests.insight.faults import finite as finite
from tests.insight.faults import gradients as gradients
from tests.insight.faults import operations as operations
from tests.insight.faults import training as training
from tests.insight.faults.registry import FAULTS as FAULTS
from tests.insight.faults.registry import HEALTHY as HEALTHY
from tests.insight.faults.registry import X as X
from tests.insight.faults.registry import a_step as a_step
from tests.insight.faults.registry import small as small
