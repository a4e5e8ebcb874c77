"""Gradients of whole layers as matrices: what methods in full dimension make their numbers of.

A layer here is a Linear, Conv1D or Conv2d weight together with the bias of the same module: its
gradient is one matrix [out, in + 1], for a bias is the weight of an input that is always 1. The
matrices themselves are built for a few examples at a time only, and never where a product with
their factors will do. Scaled layers (`Layers.scaled`) give their gradients in other coordinates,
rows and columns multiplied: the one place where a preconditioner meets an example.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwater.engine.errors import InputError, MismatchError
from headwater.gradients.apart import SketchSink, can_tell, require_apart
from headwater.gradients.capture import Capture
from headwater.gradients.held import Held, LowRank, Rounded
from headwater.gradients.parameters import Parameter, choose_matrices, own_biases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.gradients.capture import Sink
    from headwater.gradients.compute import Role
    from headwater.gradients.features import ModuleFilter
    from headwater.tasks.task import Chunk, Task

SLAB_BYTES = 128 << 20  # of gradients that are built at a time
SKETCHED = 4  # chunks that are run in two orders
TRIES = 8  # batches in which some that differ are sought


@dataclass(frozen=True)
class Layer:
    """One layer: `rows` x `columns` of its gradient, the bias's column (the last) included.

    Args:
        name: of the weight. bias: of the bias, or None.
    """

    name: str
    rows: int
    columns: int
    bias: str | None


@dataclass(frozen=True)
class Scale:
    """What multiplies a layer's gradient [out, in + bias], row by row and column by column."""

    rows: torch.Tensor
    columns: torch.Tensor

    def apply(self, matrices: torch.Tensor) -> torch.Tensor:
        """Matrices [..., out, in + bias] scaled."""
        return matrices * self.rows.to(matrices)[:, None] * self.columns.to(matrices)

    def undo(self, matrices: torch.Tensor) -> torch.Tensor:
        """The inverse of `apply`."""
        return matrices / self.rows.to(matrices)[:, None] / self.columns.to(matrices)


class Layers:
    """The layers of a task that are attributed, and hooks on them.

    Args:
        task: the task. parameters, modules: which, see `choose_matrices`.
        biases: take the layers' biases in, too; but not one of layers that share their weight and
            not their bias, or the other way round: those are no one matrix.
    """

    def __init__(
        self,
        task: Task,
        parameters: str | ModuleFilter = "linear",
        *,
        modules: Sequence[str] | None = None,
        biases: bool = True,
    ) -> None:
        self.task = task
        self.uses = choose_matrices(task, parameters, modules)
        owned = own_biases(task.model, self.uses) if biases else {}
        self.layers: dict[str, Layer] = {}
        for p in (use.parameter for use in self.uses):
            bias = owned.get(p.name)
            self.layers[p.name] = Layer(p.name, p.rows, p.columns + (bias is not None), bias)
        self.capture = Capture(task, self.uses)
        counts = Counter(use.parameter.name for use in self.uses)
        self._tied = {name for name, count in counts.items() if count > 1}
        self._ready, self._tries = False, TRIES
        self.scales: Mapping[str, Scale] = {}

    def run(
        self,
        sink: MatrixSink,
        chunks: Sequence[Chunk],
        role: Role = "example",
        seeds: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """One forward and one backward pass over these chunks into `sink`; their losses [batch].

        Args:
            role: "query" takes the measurement, "example" the loss.
            seeds: of each chunk: its labels are drawn from the model's own distribution (the true
                Fisher).

        Raises:
            InputError: when the loss does not reach the layers, or a layer mixes examples.
        """
        self.learn(chunks[0])
        if self._tries and len(chunks) > 1:
            self._check_apart(chunks[:SKETCHED], role)
        sink.summed, sink.scales = self.summed, self.scales
        loss = self._captured(sink, chunks, role, seeds)
        sink.close()
        return loss

    def _captured(
        self, sink: Sink, chunks: Sequence[Chunk], role: Role, seeds: Sequence[int] | None
    ) -> torch.Tensor:
        """A pass over these chunks as one batch; their losses."""
        batch = self.task.collate(chunks)
        with self.task.running(), torch.enable_grad():
            if seeds is not None:
                batch = self.task.resample(batch, seeds)
            with self.capture.on(sink, len(chunks)):
                loss = (self.task.measurement if role == "query" else self.task.loss)(batch)
                if not loss.requires_grad:
                    raise InputError(
                        "The loss does not depend on the attributed layers",
                        expected="a loss that is differentiable in their outputs",
                        found="a loss without a graph",
                    )
                loss.sum().backward()
        return loss.detach()

    def _check_apart(self, chunks: Sequence[Chunk], role: Role) -> None:
        """Once, on the first batch in which some differ: in another order they are the same."""
        here, again = SketchSink(), SketchSink()
        self._captured(here, chunks, role, None)
        self._tries -= 1
        rows = list(here.rows.values())
        if not rows or not can_tell(torch.cat(rows, dim=1)):
            return
        self._tries = 0
        self._captured(again, list(chunks)[::-1], role, None)
        require_apart(
            rows,
            [again.rows[n].flip(0) if n in again.rows else one * 0 for n, one in here.rows.items()],
            float(torch.cat(rows, dim=1).norm(dim=1).max()),
        )

    def learn(self, chunk: Chunk) -> None:
        """Find out how the layers are called, once, on a first chunk."""
        if self._ready:
            return
        batch = self.task.collate([chunk])
        with self.task.running():
            self.capture.learn_sharing(lambda: self.task.loss(batch))
        self._ready = True

    def scaled(self, scales: Mapping[str, Scale]) -> Layers:
        """The same layers whose gradients come scaled; by weight name."""
        made = copy.copy(self)
        made.scales = scales
        return made

    @property
    def digest(self) -> str:
        """A hash of the scaling, empty where there is none."""
        digest = hashlib.sha256()
        for name in sorted(self.scales):
            digest.update(name.encode())
            for side in (self.scales[name].rows, self.scales[name].columns):
                digest.update(side.detach().double().cpu().numpy().tobytes())
        return digest.hexdigest()[:16] if self.scales else ""

    def laid_out(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Values by parameter name, as they are stored, as matrices [out, in + bias] by layer.

        Raises:
            MismatchError: when a layer's weight or bias has none.
        """
        kinds = {use.parameter.name: use.kind for use in self.uses}
        made: dict[str, torch.Tensor] = {}
        for name, layer in self.layers.items():
            lacking = [one for one in (name, layer.bias) if one is not None and one not in values]
            if lacking:
                raise MismatchError(
                    f"The optimizer's state has nothing for {lacking[0]}",
                    expected="state for every attributed parameter",
                    do="attribute only parameters that were trained (parameters=, modules=)",
                )
            stored = values[name].detach().to(self.task.device)
            matrix = stored.T if kinds[name] == "conv1d" else stored.flatten(1)
            if layer.bias is not None:
                matrix = torch.cat([matrix, values[layer.bias].detach().to(matrix)[:, None]], dim=1)
            made[name] = matrix.contiguous()
        return made

    @property
    def size(self) -> int:
        """Numbers in a gradient."""
        return sum(layer.rows * layer.columns for layer in self.layers.values())

    @property
    def summed(self) -> set[str]:
        """Weights whose gradient is the sum of several uses (tied, or called repeatedly)."""
        again = self.capture.repeated
        return self._tied | {u.parameter.name for u in self.uses if u.module in again}


class MatrixSink:
    """What the sinks of this kind share: inputs with the bias's ones, scaled or masked where asked.

    A subclass takes `joint` (an input that one or several layers share) and `layer`.

    Args:
        layers: by weight name. Whoever counts positions sets `lengths`, to tell padding; whoever
            adds chunks up sets `owners`, (whose, weight) of each of a batch.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = layers
        self.lengths: torch.Tensor | None = None  # of the batch; None = no padding
        self.owners: Sequence[tuple[int, float]] = ()
        self.summed: set[str] = set()  # layers used more than once in a pass
        self.scales: Mapping[str, Scale] = {}  # of layers in other coordinates
        self._uses: dict[str, list[tuple[Any, torch.Tensor]]] = {}

    def inputs(self, parameters: Sequence[Parameter], a: torch.Tensor) -> list[Any]:
        """The input a [batch, tokens, in] of these layers, made ready once.

        A layer that is scaled, or has several inputs, shares none of them: what is made of an input
        is one layer's coordinates.
        """
        members: dict[bool | str, list[str]] = {}
        for parameter in parameters:
            members.setdefault(self._input_of(parameter.name), []).append(parameter.name)
        made = {key: self.joint(names, self._own(names[0], a)) for key, names in members.items()}
        return [made[self._input_of(parameter.name)] for parameter in parameters]

    def _input_of(self, name: str) -> bool | str:
        alone = name in self.scales or name in self.summed
        return name if alone else self.layers[name].bias is not None

    def _own(self, name: str, a: torch.Tensor) -> torch.Tensor:
        """The input with the bias's ones, scaled."""
        if self.layers[name].bias is not None:
            a = torch.cat([a, torch.ones_like(a[..., :1])], dim=-1)
        if name not in self.scales:
            return a
        a = a.to(wide(a.dtype))
        return a * self.scales[name].columns.to(a)

    def joint(self, names: Sequence[str], a: torch.Tensor) -> Any:
        """What is kept of an input [batch, tokens, in + bias] that these layers share."""
        return a

    def linear(self, parameter: Parameter, kept: Any, d: torch.Tensor) -> None:
        """Output gradient d [batch, tokens, out] of a layer.

        A layer that is used more than once waits for `close`: its gradient is the sum over all
        its uses, as if they were further tokens.
        """
        if parameter.name in self.scales:
            d = d.to(wide(d.dtype))
            d = d * self.scales[parameter.name].rows.to(d)
        if parameter.name in self.summed:
            self._uses.setdefault(parameter.name, []).append((kept, d))
        else:
            self.layer(self.layers[parameter.name], kept, d)

    def close(self) -> None:
        """End of a batch."""
        for name, uses in self._uses.items():
            kept, d = (torch.cat(list(parts), dim=1) for parts in zip(*uses, strict=True))
            self.layer(self.layers[name], kept, d)
        self._uses.clear()

    def layer(self, layer: Layer, kept: Any, d: torch.Tensor) -> None:
        """A layer's output gradient with what `joint` kept of its input, once a batch."""
        raise TypeError(f"{type(self).__name__} takes no layers")

    def bias(self, parameter: Parameter, d: torch.Tensor) -> None:
        """Biases come with their layers."""

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: torch.Tensor) -> None:
        """Is no layer of this kind."""

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """Neither is this."""

    def real(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [batch, tokens, n] of real positions, flat [m, n]; padding is left out."""
        if self.lengths is None or rows.shape[1] != int(self.lengths.max()):
            return rows.reshape(-1, rows.shape[-1])
        lengths = self.lengths.to(rows.device)
        there = torch.arange(rows.shape[1], device=rows.device)[None] < lengths[:, None]
        return rows.reshape(-1, rows.shape[-1]) if bool(there.all()) else rows[there]


def slabs(batch: int, rows: int, columns: int, width: int) -> Iterator[slice]:
    """Slices of a batch for which gradients [slice, rows, columns] of `width` bytes fit."""
    count = max(1, SLAB_BYTES // max(1, rows * columns * width))
    yield from (slice(start, min(start + count, batch)) for start in range(0, batch, count))


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: float64 of float64, float32 of everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class SumSink(MatrixSink):
    """sum_i weight_i G_i of each layer, [out, in + bias]: no single example's matrix is built."""

    def __init__(self, layers: Mapping[str, Layer], weights: torch.Tensor) -> None:
        super().__init__(layers)
        self.weights = weights
        self.total: dict[str, torch.Tensor] = {}

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """total += sum over examples and tokens of weight d a^T."""
        dtype = wide(d.dtype)
        scaled = d.to(dtype) * self.weights.to(d.device, dtype)[:, None, None]
        made = scaled.flatten(0, 1).T @ kept.to(dtype).flatten(0, 1)
        held = self.total.get(layer.name)
        self.total[layer.name] = made if held is None else held.add_(made)


class DotSink(MatrixSink):
    """<V_q, G_i> summed over layers: out [queries, batch], for directions V by layer.

    Either the examples' matrices are built and meet all directions in one product, or each
    direction meets the factors, whichever takes fewer operations.

    Args:
        directions: [queries, out, in + bias] by layer, perhaps held in less memory; layers that
            are not there count as zero.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        directions: Mapping[str, Held],
        out: torch.Tensor,
    ) -> None:
        super().__init__(layers)
        self.directions, self.out = directions, out

    def layer(self, layer: Layer, kept: torch.Tensor, d: torch.Tensor) -> None:
        """out += <V, sum_t d_t a_t^T>."""
        v = self.directions.get(layer.name)
        if v is None:
            return
        if isinstance(v, LowRank):
            self.out += v.dots(kept.to(v.dtype), d.to(v.dtype))
            return
        if isinstance(v, Rounded):
            v = v.full()
        queries, tokens = len(v), d.shape[1]
        a, d = kept.to(v.dtype), d.to(v.dtype)
        if queries * tokens <= queries + tokens:
            for number, one in enumerate(v):
                self.out[number] += ((d @ one) * a).sum(dim=(1, 2))
            return
        flat = v.flatten(1)
        for part in slabs(len(d), layer.rows, layer.columns, v.element_size()):
            built = torch.bmm(d[part].transpose(1, 2), a[part]).flatten(1)
            swap = flat.stride(0) == 1 or queries >= len(built)  # up to four times as fast
            self.out[:, part] += (built @ flat.T).T if swap else flat @ built.T
