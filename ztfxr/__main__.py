"""``python -m ztfxr``."""

from __future__ import annotations

import sys

from ztfxr.cli import main

sys.exit(main())
