"""What all tests share: one thread, a fixed seed, quiet libraries, no network."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # a loaded machine is no failure
settings.load_profile("suite")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The same arithmetic on every machine, and tests that do not fight for cores."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
