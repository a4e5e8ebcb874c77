"""What these tests need and a machine may lack: skipped then, and said at the end of the run."""

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
