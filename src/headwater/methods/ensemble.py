"""A view averaged over several feature sets: checkpoints of a training, or models trained apart.

    score(q, z) = sum over sets c of w_c score_c(q, z),      w_c = 1 / sets where none are given

Every set has its own weights, its own curvature and its own query gradient. TRAK (Park et al. 2023,
equation 17) averages its two factors apart, (1/M sum of 1 - p) times (1/M sum of the rest), and so
does this. `Ensemble(GradDot(), weights=rates)` is TracInCP by stored features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.engine.errors import InputError
from headwater.index.feature_sets import OWN, set_names
from headwater.index.selection import with_features
from headwater.methods.method import Method, Scores
from headwater.methods.view import View
from headwater.training.checkpoint_features import visiting

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.methods.view import Prepared
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task


class Ensemble(Method):
    """The mean of a view over the feature sets of an index.

    Args:
        view: a method that compares stored features, such as `hw.TRAK()`. A document that one of
            the sets left out, for its gradient was not finite, has no score.
        sets: names of feature sets ("own" = the index's own features); None = all that lie beside
            its own.
        weights: of each of `sets`, in their order; None = their mean.
        tasks: of sets that were built with models of their own, by name.
    """

    needs = "feature sets beside the index's own (headwater index --run, hw.add_checkpoints)"
    costs = "a scan of each set"

    def __init__(
        self,
        view: View,
        sets: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        if not isinstance(view, View):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                "Only views can be averaged over feature sets",
                expected="a method that compares stored features, such as hw.TRAK()",
                found=getattr(view, "title", repr(view)),
            )
        sets = [sets] if isinstance(sets, str) else sets
        self.view, self.sets, self.tasks = view, sets, dict(tasks or {})
        self.weights = None if weights is None else [float(w) for w in weights]
        if self.weights is not None and (
            sets is None
            or len(sets) != len(self.weights)
            or not all(math.isfinite(w) for w in self.weights)
        ):
            raise InputError(
                "The weights do not fit the sets",
                expected="sets by name, and a finite weight for each",
                found=f"{len(self.weights)} weights for {'all' if sets is None else len(sets)}",
            )

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The view's, as an ensemble."""
        return f"{self.view.name}-ensemble"

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The view's, as an ensemble."""
        return f"{self.view.title} over feature sets"

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the view's scores."""
        return self.view.unit

    @property
    def additive(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the view is."""
        return self.view.additive

    def members(self, index: Index) -> list[tuple[str, float]]:
        """(set, weight).

        Raises:
            InputError: when there is none.
        """
        names = list(set_names(index) if self.sets is None else self.sets)
        if not names:
            raise InputError(
                "The index has no feature sets beside its own",
                expected="one for each checkpoint of a training",
                do="build them: headwater index MODEL CORPUS OUT --run RUN (hw.add_checkpoints)",
            )
        weights = self.weights or [1 / len(names)] * len(names)
        return list(zip(names, weights, strict=True))

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        made = [self._ready(index, name, queries, modules) for name, _ in self.members(index)]
        weights = [weight for _, weight in self.members(index)]
        if self.view.weighted:
            _share_weights(made)
        for one, _, _ in made:  # a set may have left out what another has
            among = with_features(one, among)
        streams = [self.view.stream_features(one, p, u, among) for one, p, u in made]
        for blocks in zip(*streams, strict=True):
            total = np.zeros(blocks[0][1].shape)
            for weight, (_, block) in zip(weights, blocks, strict=True):
                total += weight * block
            yield blocks[0][0], total.astype(np.float32)

    def _ready(
        self, index: Index, name: str, queries: Sequence[Query], modules: Sequence[str] | None
    ) -> tuple[Index, Prepared, np.ndarray[Any, Any]]:
        """A set with its view made ready and the queries' features at its weights."""
        if name == OWN:
            return index, self.view.prepare(index, modules), index.query_features(queries)
        with visiting(index, name, self.tasks.get(name)) as one:
            return one, self.view.prepare(one, modules), one.query_features(queries)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            **self.view.describe(),
            "ensemble": "all" if self.sets is None else list(self.sets),
            "weights": self.weights,
        }


def _share_weights(made: Sequence[tuple[Index, Prepared, Any]]) -> None:
    """Give every member the mean of all members' 1 - p, example by example."""
    held = [[shard.weight for shard in index.shards()] for index, _, _ in made]
    shared: list[torch.Tensor] = []
    for weights in zip(*held, strict=True):
        given = [weight for weight in weights if weight is not None]
        shared.append(torch.stack(given).mean(dim=0))
    for _, prepared, _ in made:
        prepared.weights = shared
