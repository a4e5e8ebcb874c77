"""What these tests need: Chromium, which a machine may lack, and the built interface.

Without Chromium they are skipped, and the end of the run says so in one line; without the interface
they fail, because `make test` builds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src" / "headwater" / "assets"
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
missing: list[str] = []


def lacking(what: str, do: str) -> NoReturn:
    """Skip, and have it said."""
    told = f"{what}: {do}"
    if told not in missing:
        missing.append(told)
    pytest.skip(told)


def not_built(what: str, do: str) -> NoReturn:
    """Fail: a test that did not look at the interface says nothing of it."""
    pytest.fail(f"{what}: {do}", pytrace=False)
