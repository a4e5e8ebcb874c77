"""A training of the small net by our own loop, for tests of methods that follow a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import headwater as hw
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from small_net import N, rows, task


class SmallRun:
    """The trained task, its run, and an index of its examples without features."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        corpus = hw.Corpus.from_columns(rows(), ids=[f"z{i}" for i in range(N)])
        self.task = task()
        self.run = train(self.task, corpus, recipe, out=folder, progress=False)
        self.index = hw.Index.build(None, self.task, corpus, None)

    def models(self, checkpoints: Any) -> list[hw.Task]:
        """A task at each of these checkpoints."""
        made: list[hw.Task] = []
        for checkpoint in checkpoints:
            one = task()
            checkpoint.load_into(one.model)
            made.append(one)
        return made
