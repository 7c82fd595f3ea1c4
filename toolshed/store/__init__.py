"""What a run leaves on the disk beside its checkpoints: every value and event, in one SQLite file."""

from toolshed.store.database import Store as Store
from toolshed.store.records import Block as Block
from toolshed.store.records import Line as Line
from toolshed.store.records import News as News
from toolshed.store.records import Record as Record
