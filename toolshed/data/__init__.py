"""Data: streams of batches that can be repeated, resumed and addressed; small built-in sets."""

from toolshed.batches import batch_size as batch_size
from toolshed.data.arrays import ArrayStream as ArrayStream
from toolshed.data.arrays import from_arrays as from_arrays
from toolshed.data.arrays import stack as stack
from toolshed.data.groups import GroupSequence as GroupSequence
from toolshed.data.groups import GroupSequencer as GroupSequencer
from toolshed.data.groups import Split as Split
from toolshed.data.groups import train_validation_split as train_validation_split
from toolshed.data.handwriting import Dataset as Dataset
from toolshed.data.handwriting import digits as digits
from toolshed.data.loaders import stream as stream
from toolshed.data.passes import feed as feed
from toolshed.data.streams import Stream as Stream
from toolshed.data.streams import from_function as from_function
from toolshed.data.streams import from_iterable as from_iterable
from toolshed.data.text import Characters as Characters
from toolshed.data.text import python_topics as python_topics
from toolshed.data.text import windows as windows
