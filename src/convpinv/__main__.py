"""``python -m convpinv``: the command line."""

from __future__ import annotations

import sys

from convpinv.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
