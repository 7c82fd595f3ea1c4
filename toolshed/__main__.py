"""``python -m toolshed``."""

from toolshed.cli import main

raise SystemExit(main())
