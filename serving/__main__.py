"""`python -m serving` is `recsys serve`."""

from __future__ import annotations

import sys

from recsys.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
