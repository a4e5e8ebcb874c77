"""MAGIC (Ilyas & Engstrom 2025): the exact derivative of a measurement by each example's weight.

    score(q, z) = - d m_q(theta_T(w)) / d w_z at w = 1

theta_T(w) is where the training ends, the same order, schedule and optimizer, when the loss of z
counts w_z times. No curvature, no projection and no convergence is assumed: the derivative goes
back through every step (`training/replay.py`). It is the first-order effect of example z on this
one training, hence a gold standard for approximations of it on models small enough to train again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.engine.checks import at_least_zero, whole
from headwater.engine.errors import InputError, MismatchError, NumericError, ResourceError
from headwater.engine.memory import out_of_memory
from headwater.methods.method import Method, Scores
from headwater.training.loop import all_chunks
from headwater.training.recipe import Recipe
from headwater.training.replay import Replay
from headwater.training.run import TrainingRun, load_weights
from headwater.training.visit import checkpoint_of, run_of

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk
    from headwater.training.visit import Place, Run

logger = logging.getLogger(__name__)

Initial = str | Path | Mapping[str, torch.Tensor] | None
NEAR = 1e-3  # relative; weights further from the replay's end are those of another training


class MAGIC(Method):
    """Exact metagradients of the loop's training; the index needs no features.

    Args:
        recipe: how the model was trained by `training.loop.train`, without dropout.
        corpus: what it was trained on, where the index holds only a part of that; every document
            of the index must be in it. None = the index's documents in their order.
        initial: the weights before the training: a folder with safetensors, or a state dict.
            None = **the task's present weights are the initial ones**, so the task must hold the
            model before its training, and not the trained one.
        eps_root: added inside AdamW's root, where the derivative is too rough; the training that
            is explained then has it too, and is not quite the loop's.
        segment: steps between kept states; None = the root of their number.
    """

    name, title, additive = "magic", "MAGIC", True
    unit = "loss per unit weight"
    needs = "the recipe of a training without dropout, and the weights before it"
    costs = "a few trainings for the first query; memory for 2 sqrt(steps) optimizer states"
    caution = (
        "MAGIC is exact for small changes of an example's weight; whether it foretells what "
        "happens without the example depends on how smooth this training is, and nothing in the "
        "scores tells"
    )

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus | None = None,
        *,
        initial: Initial = None,
        eps_root: float = 0.0,
        segment: int | None = None,
    ) -> None:
        if segment is not None:
            whole("segment", segment)
        self.recipe, self.corpus, self.initial = _checked(recipe), corpus, initial
        self.eps_root, self.segment = at_least_zero("eps_root", eps_root), segment

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of all documents in one block; see `Method.stream`."""
        if modules is not None:
            raise InputError(
                "MAGIC has no modules to choose from",
                found=modules if isinstance(modules, str) else ", ".join(modules),
                do="leave the modules out",
            )
        chunks, owners = self._training_set(index)
        with _weights(index.task.model, self.initial) as trained:
            by_chunk = self._metagradients(index, queries, chunks, trained)
        scores = np.zeros((len(queries), len(index)), dtype=np.float64)
        there = owners >= 0
        np.add.at(scores.T, owners[there], -by_chunk[:, there].T)
        block = scores.astype(np.float32)
        if among is not None:
            block[:, ~among] = np.nan
        yield 0, block

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        initial = "state dict" if isinstance(self.initial, Mapping) else self.initial
        return {
            "method": self.name,
            "recipe": self.recipe.to_json(),
            "corpus": None if self.corpus is None else self.corpus.describe(),
            "initial": str(initial) if isinstance(initial, Path) else initial,
            "eps_root": self.eps_root,
        }

    def _training_set(self, index: Index) -> tuple[list[Chunk], np.ndarray[Any, Any]]:
        """All chunks in the order of the loop, and the position of each in the index, or -1."""
        if self.corpus is None:
            pieces = index.chunks(range(len(index)))
            owners = np.repeat(np.arange(len(index)), [len(piece) for piece in pieces])
            return [chunk for piece in pieces for chunk in piece], owners
        chunks, names = all_chunks(index.task, self.corpus)
        at = {name: position for position, name in enumerate(index.ids)}
        absent = set(at).difference(names)
        if absent:
            raise InputError(
                "Documents of the index are not in the corpus of the training",
                expected=f"all {len(at)}",
                found=f"not {', '.join(sorted(absent)[:3])}",
            )
        return chunks, np.asarray([at.get(name, -1) for name in names])

    def _metagradients(
        self,
        index: Index,
        queries: Sequence[Query],
        chunks: Sequence[Chunk],
        trained: Mapping[str, torch.Tensor] | None,
    ) -> np.ndarray[Any, Any]:
        """d measurement / d weight, float64 [queries, chunks]; the model holds its initial ones."""
        replay = Replay(
            index.task, chunks, self.recipe, eps_root=self.eps_root, segment=self.segment
        )
        need = replay.memory(len(queries)) / 1e9
        logger.info(
            "replaying %d steps of %d parameters; %d states in memory, %.2f GB",
            replay.steps,
            replay.flat.size,
            replay.kept,
            need,
        )
        try:
            theta = replay.run()
            if trained is not None:
                self._compare(replay, theta, trained)
            rows: list[torch.Tensor] = []
            for query in queries:
                value, row = replay.measured(theta, index.task.query_chunks(query))
                if not np.isfinite(value):
                    raise NumericError(f"The measurement of {query.describe()} is not finite")
                rows.append(row)
            return replay.pull(torch.stack(rows)).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ResourceError(
                "Memory ran out in the replay of the training",
                expected=f"room for {replay.kept} states and their derivatives, {need:.1f} GB, "
                "and one step's activations",
                do="use a smaller model, fewer queries at a time, or a smaller batch",
            ) from error

    def _compare(
        self, replay: Replay, theta: torch.Tensor, trained: Mapping[str, torch.Tensor]
    ) -> None:
        """Warn when the task's own weights are not where this training ends."""
        own = torch.cat([trained[name].reshape(-1) for name in replay.flat.names])
        error = float((theta - own).norm() / own.norm().clamp(min=1e-30))
        logger.info("the replay ends %.1e from the task's weights (relative)", error)
        if not error < NEAR:
            logger.warning(
                "The replayed training does not end at the task's weights (relative difference "
                "%.1e): the scores explain the replayed model, not the task's",
                error,
            )


class MAGICOfRun(MAGIC):
    """MAGIC of a run of our own loop, with the recipe that it recorded; see `MAGIC`.

    Args:
        run: the training, or its folder. base: the weights before it, a folder or a checkpoint.

    Raises:
        InputError: when the run does not say its recipe.
    """

    def __init__(self, run: Run, base: Place) -> None:
        recipe = (run if isinstance(run, TrainingRun) else run_of(run)).recipe
        if recipe is None:
            raise InputError(
                "The run does not say its recipe, without which it cannot be replayed",
                expected="a run of headwater's own training loop (run.json)",
            )
        super().__init__(recipe, initial=checkpoint_of(base).path)


def _checked(recipe: object) -> Recipe:
    if not isinstance(recipe, Recipe):
        raise InputError(
            "MAGIC replays a training by its recipe",
            expected="a Recipe, such as run.recipe",
            found=repr(recipe),
        )
    return recipe


@contextmanager
def _weights(
    model: torch.nn.Module, initial: Initial
) -> Generator[Mapping[str, torch.Tensor] | None]:
    """The model with its initial weights, afterwards with its own; yields a copy of those."""
    if initial is None:
        yield None
        return
    own = model.state_dict()
    if isinstance(initial, Mapping):
        _check(own, initial)
    before = {name: value.detach().clone() for name, value in own.items()}
    try:
        if isinstance(initial, Mapping):
            model.load_state_dict(initial)
        else:
            load_weights(model, Path(os.fspath(initial)))
        yield before
    finally:
        model.load_state_dict(before)


def _check(own: Mapping[str, torch.Tensor], initial: Mapping[str, torch.Tensor]) -> None:
    """Raise unless a state dict is one of this model, and a copy."""
    for name in sorted(own.keys() | initial.keys()):
        shapes = [tuple(d[name].shape) if name in d else "none" for d in (own, initial)]
        if shapes[0] != shapes[1]:
            raise MismatchError(
                "The initial weights do not fit the model",
                expected=f"{name} of shape {shapes[0]}",
                found=shapes[1],
            )
        if own[name].numel() and own[name].data_ptr() == initial[name].data_ptr():
            raise InputError(
                "The initial weights are the model's own tensors, which training has changed",
                expected="a copy made before the training",
                found=f"{name} shared with the model",
                do="copy them: {name: value.clone() for name, value in model.state_dict().items()}",
            )
