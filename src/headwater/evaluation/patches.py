"""What one optimizer step on a document does to queries' probabilities; no step is taken twice.

A document is stepped on once and every query that names it is measured then, whichever method named
it. Measures are kept by what decides them (task and weights, step, document, query), in memory and,
where a folder is given, in a file that a stopped run goes on from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.document import content_hash
from headwater.engine.errors import InputError, NumericError
from headwater.engine.files import disk_error, make_folder
from headwater.engine.progress import Progress
from headwater.evidence.random_scores import digest
from headwater.training.one_step import Step, Stepper

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task

Array = np.ndarray[Any, Any]

BEFORE = ""  # in place of a document: no step


class Patches:
    """Log-probabilities of queries before, and after a step on one document.

    The probability is exp(-measurement): for words, of all of them together. Of a contrast, which
    has none, it would be the odds of one completion against the other.

    Args:
        task: its present weights are stepped from, and left as they were.
        step: how. cache: a folder to keep measures in; None = in memory only.

    Attributes:
        steps: how many were taken by this object.
    """

    def __init__(self, task: Task, step: Step, cache: str | Path | None = None) -> None:
        self.task, self.step, self.steps = task, step, 0
        self._stepper = Stepper(task, step)
        self.notes = [*step.notes, *self._stepper.notes()]
        told = json.dumps({"task": task.describe(), "step": step.describe()}, sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.path = None if cache is None else Path(cache) / f"tail-patch-{key}.jsonl"
        self._known: dict[tuple[str, str], float] = {}
        if self.path is not None:
            make_folder(self.path.parent)
            self._known = _read(self.path)

    def before(self, queries: Sequence[Query]) -> Array:
        """log P of each query at the present weights, float64 [queries]."""
        self._need(BEFORE, queries)
        return np.array([self._known[BEFORE, digest(query)] for query in queries])

    def after(
        self, documents: Sequence[Document], queries: Sequence[Sequence[Query]]
    ) -> list[Array]:
        """log P after one step on each document alone, for the queries that go with it.

        Args:
            documents: what is stepped on; equal contents are one. queries: for each document.

        Raises:
            NumericError: when a gradient or a loss is not finite.
        """
        asked: dict[str, tuple[Document, dict[str, Query]]] = {}
        hashes = [content_hash(document.content) for document in documents]
        for name, document, some in zip(hashes, documents, queries, strict=True):
            held = asked.setdefault(name, (document, {}))[1]
            held.update({digest(query): query for query in some})
        missing = {
            name: (document, [q for key, q in held.items() if (name, key) not in self._known])
            for name, (document, held) in asked.items()
        }
        missing = {name: pair for name, pair in missing.items() if pair[1]}
        with Progress("tail patch", len(missing), "steps") as progress:
            for name, (document, some) in missing.items():
                with self._stepper.after(self.task.chunks(document), document.id):
                    self.steps += 1
                    self._need(name, some)
                progress.advance()
        return [
            np.array([self._known[name, digest(query)] for query in some])
            for name, some in zip(hashes, queries, strict=True)
        ]

    def _need(self, document: str, queries: Sequence[Query]) -> None:
        """Measure what is not known at the model's weights as they are, and keep it."""
        made: dict[str, float] = {}
        for query in queries:
            key = digest(query)
            if (document, key) not in self._known and key not in made:
                made[key] = self._log_probability(query)
        self._known |= {(document, key): value for key, value in made.items()}
        if made and self.path is not None:
            line = json.dumps({"document": document, "log_p": made}) + "\n"
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise disk_error(self.path, error) from error

    def _log_probability(self, query: Query) -> float:
        """One query by itself, so that its last bits do not depend on what else is asked."""
        import torch

        with self.task.running(), torch.no_grad():
            value = sum(
                -weight * float(self.task.measurement(self.task.collate([chunk]))[0])
                for weight, chunk in self.task.query_chunks(query)
            )
        if not math.isfinite(value):
            raise NumericError(
                f"The probability of {query.describe()} is not finite after a step",
                found=value,
                do="take a smaller learning rate",
            )
        return value


def require_probability(query: Query) -> None:
    """Raise InputError for a contrast, which has no probability."""
    if query.instead_of is not None or any(part.instead_of is not None for part in query.parts):
        raise InputError(
            "A contrast of two completions has no probability",
            expected="one completion",
            found=query.describe(),
        )


def _read(path: Path) -> dict[tuple[str, str], float]:
    """What was kept; a line that a killed run did not finish does not count."""
    known: dict[tuple[str, str], float] = {}
    if not path.exists():
        return known
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):  # what follows is to begin a line of its own
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    for line in text.splitlines():
        try:
            record: Any = json.loads(line)
            values = {(record["document"], key): float(v) for key, v in record["log_p"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        known |= values
    return known
