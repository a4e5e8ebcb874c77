"""Index tests build hundreds of small indexes: none of them waits for the disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing matters to power cuts only; `tests/engine` sees that it is done, and when."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
