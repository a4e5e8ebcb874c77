"""verify: the examples that an answer names, put to the test on the model itself.

Beside what was found stand random examples and the lexical ones (BM25): a test that these pass as
well has shown nothing. Exact copies of a text go with it, since one that stays teaches the same.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank, Trainer, Trial
from headwater.evaluation.chosen import (
    TEXTS,
    Chosen,
    Group,
    by_group,
    by_method,
    lexical,
    others,
)
from headwater.evaluation.patches import Patches, require_probability
from headwater.evaluation.retraining import says, trainer_of_run
from headwater.evaluation.tail_patch import rises
from headwater.evaluation.verification import (
    ALL,
    FOUND,
    RANDOM,
    Patched,
    Retrained,
    Verification,
    permutation_p,
)
from headwater.evidence.lexical import BM25
from headwater.evidence.rankers import method_by_name

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query
    from headwater.training.one_step import Optimizer
    from headwater.training.run import TrainingRun
    from headwater.training.visit import Place

CACHE = "verify"  # folder inside the index
RANDOM_STEPS = 20  # so that one example found can be told from chance: p = 1/21


@dataclass(frozen=True)
class Asked:
    """The options of `verify`, which says what each means."""

    method: Method | str | None
    top: int
    group: Group | None
    tail_patch: bool
    run: TrainingRun | None
    base: Place | None
    trainer: Trainer | None
    retrain: bool | None
    seeds: int
    learning_rate: float | None
    optimizer: Optimizer | None
    random: int
    seed: int
    cache: str | Path | None
    workers: int | None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("top", "seeds", "random"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} is too small", expected="at least 1", found=value)


def verify(
    index: Index,
    query: Query,
    *,
    method: Method | str | None = None,
    top: int = 5,
    group: Group | None = None,
    tail_patch: bool = True,
    run: TrainingRun | None = None,
    base: Place | None = None,
    trainer: Trainer | None = None,
    retrain: bool | None = None,
    seeds: int = 1,
    learning_rate: float | None = None,
    optimizer: Optimizer | None = None,
    random: int = RANDOM_STEPS,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
) -> Verification:
    """Test whether the best examples of a method, or a group, are behind an output.

    Args:
        index: with its model at hand. query: one completion, no contrast.
        method: finds the examples, or its name; TrackStar when left out. top: how many texts.
        group: (metadata column, value): test all of its documents instead.
        tail_patch: take one optimizer step on each, and on `random` others.
        run: of the model's training: its optimizer state and rate, and for retraining its recipe.
        base: the weights before the run. With both, models are retrained.
        trainer: retrains otherwise (`FunctionTrainer` for a function of your own).
        retrain: None = where that can be done. seeds: trainings of each kind.
        learning_rate, optimizer: of the step; see `next_step`.
        seed: of all that is drawn at random.
        cache: folder for what was trained and measured; one in the index when left out.
        workers: trainings side by side; None = one for each core.

    Raises:
        InputError: for a query without a probability, a method that finds nothing, a group that is
            not there or is everything, or a retraining that cannot be had.
    """
    given = {name: value for name, value in locals().items() if name in OPTIONS}
    require_probability(query)
    return _Test(index, query, Asked(**given)).run()


OPTIONS = tuple(one.name for one in fields(Asked))


class _Test:
    """One output, and what is put to the test for it."""

    def __init__(self, index: Index, query: Query, asked: Asked) -> None:
        from headwater.training.next_step import next_step

        self.index, self.query, self.asked = index, query, asked
        self.notes: list[str] = []
        self.folder = index.path / CACHE if asked.cache is None else Path(asked.cache)
        task = index.task  # a model that is not there is told before anything else
        self.trainer = self._trainer()
        if not asked.tail_patch and self.trainer is None:
            raise InputError("There is nothing to test by", expected="a tail patch, or retraining")
        how: dict[str, Any] = {"learning_rate": asked.learning_rate, "optimizer": asked.optimizer}
        self.patches = Patches(task, next_step(asked.run, task, **how), self.folder)

    def run(self) -> Verification:
        """Find the examples, step on them, train without them."""
        seconds: dict[str, float] = {}
        with _timed(seconds, "search"):
            sets, method = self._sets()
        made = self._begun(sets[0], method)
        if self.asked.tail_patch:
            with _timed(seconds, "tail patch"):
                self._step(made, sets)
        if self.trainer is not None:
            with _timed(seconds, "retraining"):
                self._retrain(made, sets, self.trainer)
        made.notes, made.seconds = self.notes, seconds
        return made

    def _trainer(self) -> Trainer | None:
        """What retrains, where that can be done and is wanted."""
        asked = self.asked
        if asked.retrain is False:
            return None
        if asked.trainer is not None:
            if asked.trainer.documents != len(self.index):
                raise InputError(
                    "The trainer is of another corpus",
                    expected=f"{len(self.index)} documents",
                    found=asked.trainer.documents,
                )
            return asked.trainer
        lacking = "the weights before the training: base= (--base FOLDER)"
        if asked.run is None:
            lacking = "a run of headwater's own loop, and the weights before it (--run, --base)"
        elif asked.run.recipe is None:
            lacking = "a recipe: the run is not of headwater's own training loop"
        elif asked.base is not None:
            return trainer_of_run(self.index, [self.query], asked.run, asked.base)
        if asked.retrain:
            raise InputError("Retraining cannot be done", expected=lacking)
        self.notes.append(f"not retrained, for want of {lacking}")
        return None

    def _sets(self) -> tuple[list[Chosen], Method | None]:
        """What was found and the lexical control; and what found it."""
        asked, index, query = self.asked, self.index, self.query
        if asked.group is not None:
            return [by_group(index, asked.group, asked.seed)], None
        method = asked.method or "trackstar"
        if isinstance(method, str):
            method = method_by_name(method)
        found = by_method(index, query, method, asked.top)
        count = len(found.texts)
        if count < asked.top:
            self.notes.append(f"only {count} texts support this output by {method.title}")
        if index.manifest["task"]["kind"] not in TEXTS or isinstance(method, BM25):
            return [found], method
        control = lexical(index, query, count)
        if control is None:
            self.notes.append("no lexical control: no example shares a word with the output")
        return [found] if control is None else [found, control], method

    def _begun(self, found: Chosen, method: Method | None) -> Verification:
        """The verification before anything was tested."""
        query, count = self.query, len(found.ids)
        subject = "the one found" if count == 1 else f"the {count:,} found"
        if self.asked.group is not None:
            subject = f"the {count:,} of {found.title}"
        return Verification(
            query=query.describe(),
            prompt=query.prompt if isinstance(query.prompt, str) else "",
            completion=query.completion or "",
            probability=float(np.exp(self.patches.before([query])[0])),
            method={} if method is None else method.describe(),
            title="" if method is None else method.title,
            subject=subject,
            examples=len(self.index),
            found=found.shown,
            group=self.asked.group,
        )

    def _step(self, made: Verification, sets: Sequence[Chosen]) -> None:
        """Tail patch of what was found and of the controls."""
        index, query, patches = self.index, self.query, self.patches
        drawn = others(index, sets[0].ids, self.asked.seed)[: self.asked.random]
        wanted = [sets[0], Chosen(RANDOM, "at random", drawn, []), *sets[1:]]
        positions = [position for one in wanted for position in one.texts]
        found = patches.after(index.documents(positions), [[query]] * len(positions))
        before = float(patches.before([query])[0])
        values = iter(float(one[0]) for one in found)
        for one in wanted:
            rise = rises(before, np.array([next(values) for _ in one.texts]))
            names = [index.ids[position] for position in one.texts]
            points, nats = rise[:, 0].tolist(), rise[:, 1].tolist()
            made.patched.append(Patched(one.name, one.title, names, points, nats))
        made.step = patches.step.told()
        made.p_value = permutation_p(
            made.patched[0].nats, made.patched[1].nats, seed=self.asked.seed
        )
        self.notes += patches.notes
        self.notes.append(
            "a tail patch is local: it says what one more step on an example does to this model, "
            "not what the model would be without it"
        )

    def _retrain(self, made: Verification, sets: Sequence[Chosen], trainer: Trainer) -> None:
        """Models trained without what was found and without the controls; equal ones once."""
        bank = Bank(self.folder / "bank", trainer, self.asked.workers)
        first = self.asked.run.recipe.seed if self.asked.run and self.asked.run.recipe else 0
        seeds = [first + i for i in range(self.asked.seeds)]
        out = self._left_out(made, sets, len(seeds))
        trials = [
            Trial(tuple(sorted(positions)), seed)
            for _, _, by_seed in out
            for seed, positions in zip(seeds, by_seed, strict=True)
        ]
        losses = bank.losses(trials)
        trained, column = bank.trained, _column(trainer, self.query)
        words = says(bank, trials, column)
        log_p = (-losses[:, column]).reshape(len(out), len(seeds)).tolist()
        for place, (name, title, by_seed) in enumerate(out):
            ids = [[self.index.ids[p] for p in positions] for positions in by_seed]
            spoken = words[place * len(seeds) : (place + 1) * len(seeds)]
            made.retrained.append(Retrained(name, title, ids, log_p[place], spoken))
        made.seeds = seeds
        made.training = f"{len(set(trials))} trainings, {trained} of them now"
        self.notes += _limits(made)

    def _left_out(
        self, made: Verification, sets: Sequence[Chosen], seeds: int
    ) -> list[tuple[str, str, list[list[int]]]]:
        """(name, title, positions by seed) of each kind of training."""
        at = {name: position for position, name in enumerate(self.index.ids)}
        count = len(sets[0].ids)
        drawn = [others(self.index, sets[0].ids, self.asked.seed + i)[:count] for i in range(seeds)]
        if len(drawn[0]) < count:
            raise InputError(
                "There are too few other documents for a random control of equal size",
                expected=f"at least {count:,} others",
                found=f"{len(drawn[0]):,}",
            )
        out: list[tuple[str, str, list[list[int]]]] = [(ALL, "all examples", [[]] * seeds)]
        for one in sets:
            title = f"without {len(one.ids):,} by {one.title}"
            title = f"without {made.subject}" if one.name == FOUND else title
            out.append((one.name, title, [[at[name] for name in one.ids]] * seeds))
        out.insert(2, (RANDOM, f"without {count:,} at random", drawn))
        return out


def _column(trainer: Trainer, query: Query) -> int:
    """The query's place among those that the trainer measures.

    Raises:
        InputError: when it measures others.
    """
    from headwater.evidence.random_scores import digest

    asked, name = trainer.asked(), digest(query)[:16]
    if name in asked:
        return asked.index(name)
    raise InputError("The trainer does not measure this query", expected=query.describe())


def _limits(made: Verification) -> list[str]:
    """What the retraining cannot show."""
    told: list[str] = []
    if len(made.seeds) == 1:
        told.append(
            "one seed: a difference holds the chance of single trainings; the random control shows "
            "about how large that is, and more seeds (--seeds) tell"
        )
    again = float(np.exp(made.retrained[0].log_p[0]))
    if not 0.5 < (again + 1e-12) / (made.probability + 1e-12) < 2:
        told.append(
            f"trained again on everything the output has P = {again:.3g}, the index's own model "
            f"gives it {made.probability:.3g}: this recipe is not quite what trained it"
        )
    return told


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Generator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)
