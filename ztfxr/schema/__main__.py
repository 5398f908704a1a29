"""``python -m ztfxr.schema [PATH]`` writes the page of variables, by default to ``docs/variables.md``."""

import sys
from pathlib import Path

from ztfxr.schema.page import schema_page

if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/variables.md")
    path.write_text(schema_page(), encoding="utf-8")
    print(f"wrote {path}")
