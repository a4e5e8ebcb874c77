"""Features of the same chunks under several seeds of the projections, from one pass of the model.

Forward and backward pass cost the same whatever is projected; a sink that passes each captured
factor on to one sink for every seed makes a further seed as cheap as its projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from headwater.gradients.compute import Gradients, Projected, Role
from headwater.gradients.sinks import FeatureSink

if TYPE_CHECKING:
    from headwater.gradients.parameters import Parameter
    from headwater.tasks.task import Chunk


class Fan:
    """Passes what is captured on to several sinks."""

    def __init__(self, sinks: Sequence[FeatureSink]) -> None:
        self.sinks = sinks

    def inputs(self, parameters: Sequence[Parameter], a: torch.Tensor) -> list[Any]:
        """For each parameter what every sink keeps of the inputs."""
        kept = [sink.inputs(parameters, a) for sink in self.sinks]
        return [tuple(one[i] for one in kept) for i in range(len(parameters))]

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """Each sink with its own inputs."""
        for sink, mine in zip(self.sinks, kept, strict=True):
            sink.linear(parameter, mine, d)

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """To each."""
        for sink in self.sinks:
            sink.bias(parameter, d)

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """To each."""
        for sink in self.sinks:
            sink.embedding(parameter, ids, d)

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """To each."""
        for sink in self.sinks:
            sink.whole(parameter, gradient)


class Reseeded(Gradients):
    """Gradients like others, projected under several seeds side by side.

    Args:
        like: whose task, features, parameters and second moment are taken.
        seeds: of the projections.

    Attributes:
        members: the gradients of each seed alone.
    """

    def __init__(self, like: Gradients, seeds: Sequence[int]) -> None:
        names = list(like.parameters)
        super().__init__(like.task, like.features, names=names, moment=like.moment)
        self.members = [
            Gradients(like.task, replace(like.features, seed=seed), names=names, moment=like.moment)
            for seed in seeds
        ]

    def batch(self, chunks: Sequence[Chunk], role: Role = "example") -> Projected:
        """Features of each seed in turn, [n, seeds * size]."""
        dtype = next(self.task.model.parameters()).dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        shape = (len(chunks), len(self.members), self.layout.size)
        u = torch.zeros(shape, dtype=wide, device=self.task.device)
        sinks = [FeatureSink(one.projectors, u[:, i]) for i, one in enumerate(self.members)]
        loss, weight = self._run(Fan(sinks), chunks, role)
        return Projected(u.flatten(1), loss, weight)
