"""A bank of models trained without some of their examples: what all counterfactual measures share.

    resampled   trained on the other examples alone, several seeds: what leaving them out does
    fixed       the same seed, batches and order, their loss weighted zero: what MAGIC predicts

An entry is the queries' losses under one such model, and what else its trainer declares (margins,
answers), kept in a file of its own as soon as it is known. A bank that was stopped goes on,
processes share one folder, and measures that need the same training find it done: an entry is named
by a hash of all that decides it (recipe, data, initial weights, what was left out, seed). Every
training runs on one thread, so that an entry does not depend on how many run side by side.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import locked, make_folder, read_json, sweep, write_json
from headwater.engine.progress import Progress
from headwater.engine.threads import one_thread

Kind = Literal["resampled", "fixed"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trial:
    """One training.

    Args:
        left_out: positions of the documents that are left out, ascending.
        seed: of the training's order (and of what else its trainer draws).
        kind: how they are left out.
    """

    left_out: tuple[int, ...]
    seed: int = 0
    kind: Kind = "resampled"

    def __post_init__(self) -> None:
        """Check the order, which names the entry."""
        if list(self.left_out) != sorted(set(self.left_out)):
            raise InputError("left_out must ascend, each position once", found=self.left_out[:8])
        if self.kind not in ("resampled", "fixed"):
            raise InputError("Unknown kind", expected="resampled or fixed", found=self.kind)


class Trainer(Protocol):
    """Trains a model for a trial, and measures the queries under it."""

    @property
    def documents(self) -> int:
        """How many there are to leave out."""
        ...

    def describe(self) -> dict[str, Any]:
        """All that decides what a trial gives, JSON-serialisable."""
        ...

    def asked(self) -> list[str]:
        """A name for each query, by what it asks."""
        ...

    def losses(self, trial: Trial) -> list[float]:
        """The queries' measurements under the model of this trial."""
        ...


@runtime_checkable
class Measurer(Trainer, Protocol):
    """A trainer that measures more of a model than losses; weights are not kept for later."""

    @property
    def fields(self) -> Mapping[str, str]:
        """What it measures ("loss", "margin", "answer"), and under which name an entry has it."""
        ...

    def measured(self, trial: Trial) -> Mapping[str, Sequence[Any]]:
        """Each of these: a value for each query, JSON-serialisable, under the trial's model."""
        ...


class Bank:
    """Losses of queries under retrained models, and what else the trainer measures.

    Args:
        folder: of the entries; shared by everything that trains the same.
        trainer: what trains.
        workers: processes that train side by side; None = one for each core.
    """

    def __init__(self, folder: str | Path, trainer: Trainer, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError("workers is too small", expected="at least 1", found=workers)
        self.trainer = trainer
        described = json.dumps(trainer.describe(), sort_keys=True, ensure_ascii=False)
        self.key = hashlib.sha256(described.encode()).hexdigest()[:16]
        self.folder = Path(folder) / self.key
        self.workers = workers or os.cpu_count() or 1
        self.fields = trainer.fields if isinstance(trainer, Measurer) else {"loss": "losses"}
        self.trained = 0  # models trained by the last call of `losses`, `margins` or `answers`
        make_folder(self.folder)
        if not (self.folder / "trainer.json").exists():
            write_json(self.folder / "trainer.json", trainer.describe())

    def losses(self, trials: Sequence[Trial]) -> Array:
        """Losses of the queries under each trial's model, float64 [trials, queries].

        Trials that were trained before, by whomever, are read; the others are trained now.

        Raises:
            InputError: when a trial leaves out what is not there, or everything.
        """
        return np.array(self._values("loss", trials), dtype=np.float64)

    def margins(self, trials: Sequence[Trial]) -> Array:
        """Log-odds of the queries' targets under each trial's model, float64 [trials, queries].

        Raises:
            InputError: as `losses`, and when the trainer measures no margins.
        """
        return np.array(self._values("margin", trials), dtype=np.float64)

    def answers(self, trials: Sequence[Trial]) -> list[list[Any]]:
        """What each trial's model answers to the queries, as `answers.told` writes it down.

        Raises:
            InputError: as `losses`, and when the trainer takes down no answers.
        """
        return self._values("answer", trials)

    def _values(self, measure: str, trials: Sequence[Trial]) -> list[list[Any]]:
        """A measure of every query, by trial. What one training gives is all kept at once."""
        if measure not in self.fields:
            raise InputError(
                f"The bank's trainer does not measure the {measure}",
                expected=f'a trainer with measures=("loss", "{measure}")',
                found=", ".join(self.fields),
                do="declare it before anything is trained: weights are not kept",
            )
        for trial in trials:
            self._check(trial)
        missing = [t for t in dict.fromkeys(trials) if self._known(t, measure) is None]
        self.trained = len(missing)
        if missing:
            sweep(self.folder)
            self._train(missing, measure)
        rows = [self._known(trial, measure) for trial in trials]
        return [row for row in rows if row is not None]

    def _check(self, trial: Trial) -> None:
        count, out = self.trainer.documents, trial.left_out
        if out and not 0 <= out[0] <= out[-1] < count:
            raise InputError(
                "A trial leaves out documents that are not there",
                expected=f"positions below {count}",
                found=f"{out[0]} to {out[-1]}",
            )
        if len(out) >= count:
            raise InputError("A trial leaves out every document", expected=f"fewer than {count}")

    def _path(self, trial: Trial) -> Path:
        told = f"{trial.kind}|{trial.seed}|{','.join(map(str, trial.left_out))}"
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"

    def _known(self, trial: Trial, measure: str) -> list[Any] | None:
        """The queries' values where all of them are there."""
        held = self._held(self._path(trial)).get(self.fields[measure], {})
        try:
            values = [held[name] for name in self.trainer.asked()]
            return values if measure == "answer" else [float(value) for value in values]
        except (KeyError, TypeError, ValueError):
            return None  # damaged, or of other queries: trained again

    def _train(self, missing: Sequence[Trial], measure: str) -> None:
        """Train what is missing, in as many processes as there is work for."""
        # A fork has the locks that other threads hold, and nobody who gives them back: off the main
        # thread, in a server, it may wait for ever.
        alone = threading.current_thread() is threading.main_thread()
        count = min(self.workers, len(missing)) if alone else 1
        with Progress("retraining", len(missing), "models") as progress:
            if count == 1:
                for trial in missing:
                    self.one(trial, measure)
                    progress.advance()
                return
            # A fork shares the model and the corpus, and takes trainers that cannot be pickled.
            context = multiprocessing.get_context("fork")
            jobs = [(trial, measure) for trial in missing]
            with _shared(self), context.Pool(count) as pool:
                for failed in pool.imap_unordered(_in_process, jobs):
                    if failed is not None:
                        self.one(failed, measure)  # raises here what it raised there
                    progress.advance()

    def one(self, trial: Trial, measure: str = "loss") -> None:
        """Train one trial and keep what is measured, unless another process has."""
        path = self._path(trial)
        with locked(path.with_suffix(".lock"), "An entry of the bank", wait=True):
            if self._known(trial, measure) is None:
                clock = time.perf_counter()
                with one_thread():
                    found = self._measured(trial)
                held, names = self._held(path), self.trainer.asked()
                for one, values in found.items():
                    place = self.fields[one]
                    held[place] = held.get(place, {}) | dict(zip(names, values, strict=True))
                seconds = round(time.perf_counter() - clock, 3)
                write_json(path, {**held, "trial": _told(trial), "seconds": seconds})
        path.with_suffix(".lock").unlink(missing_ok=True)

    def _measured(self, trial: Trial) -> Mapping[str, Sequence[Any]]:
        if isinstance(self.trainer, Measurer):
            return self.trainer.measured(trial)
        return {"loss": [float(value) for value in self.trainer.losses(trial)]}

    def _held(self, path: Path) -> dict[str, dict[str, Any]]:
        """What an entry has, by name and query; nothing where it is damaged."""
        try:
            found: Any = read_json(path) if path.exists() else {}
        except DamageError:
            return {}
        fields = found.items() if isinstance(found, dict) else ()
        return {str(k): v for k, v in fields if k != "trial" and isinstance(v, dict)}

    def seconds(self, trials: Sequence[Trial]) -> float:
        """The mean time of a training among these, in seconds; NaN where none was kept."""
        paths = [path for path in map(self._path, trials) if path.exists()]
        return float(np.mean([read_json(p)["seconds"] for p in paths])) if paths else math.nan


_banks: list[Bank] = []  # the bank that forked processes work for


@contextmanager
def _shared(bank: Bank) -> Generator[None]:
    _banks.append(bank)
    try:
        yield
    finally:
        _banks.pop()


def _in_process(job: tuple[Trial, str]) -> Trial | None:
    """Train a trial in a forked process; gives it back where that failed."""
    try:
        _banks[-1].one(*job)
    except Exception:  # whatever it is: the parent runs into it again, and raises it
        return job[0]
    return None


def _told(trial: Trial) -> dict[str, Any]:
    return {"kind": trial.kind, "seed": trial.seed, "left_out": list(trial.left_out)}
