"""Questions about a state or a step, answered with numbers; nothing is drawn and nothing changes."""

from toolshed.insight.autopsy import Autopsy as Autopsy
from toolshed.insight.autopsy import Fault as Fault
from toolshed.insight.autopsy import Iteration as Iteration
from toolshed.insight.autopsy import Operand as Operand
from toolshed.insight.difference import LeafDifference as LeafDifference
from toolshed.insight.difference import TreeDifference as TreeDifference
from toolshed.insight.difference import tree_diff as tree_diff
from toolshed.insight.nonfinite import first_nonfinite as first_nonfinite
from toolshed.insight.source import Source as Source
from toolshed.insight.statistics import LeafStatistics as LeafStatistics
from toolshed.insight.statistics import leaf_statistics as leaf_statistics
from toolshed.insight.summary import HISTOGRAM_EDGES as HISTOGRAM_EDGES
from toolshed.insight.summary import LeafSummary as LeafSummary
from toolshed.insight.summary import combine as combine
