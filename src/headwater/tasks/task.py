"""A model and its two obligations: the loss of a training example, the measurement of a query.

Both are losses (lower = better supported), both are sums over what an example holds, and both come
back one number per example, so that one backward pass of their sum serves a whole batch.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.memory import out_of_memory

if TYPE_CHECKING:
    import torch

    from headwater.corpus.document import Document
    from headwater.tasks.query import Query

    Batch = dict[str, torch.Tensor]
    PerExample = Callable[[torch.nn.Module, Batch], torch.Tensor]

SAMPLED = 4096  # values of each parameter that enter a model's fingerprint


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one forward pass sees of a document.

    Args:
        content: arrays by name; for language models `input_ids` int32 [length], `labels` int32
            [length] (-100 where no loss is taken) and, for queries, `weights` float32 [length].
        offset: position of the first token in the document.
        length: number of tokens; 1 for examples that are no sequences.
    """

    content: dict[str, Any]
    offset: int
    length: int


class Task:
    """Any `torch.nn.Module` with a loss for each example.

    Args:
        model: the trained model.
        loss: `loss(model, batch) -> tensor [batch]`, where `batch` is a dict of stacked tensors.
        measurement: the same for queries; the loss when left out.
        margin: `margin(model, batch) -> tensor [batch]`, the log-odds of the right output, for
            methods that need it (TRAK).
        collate: from a list of chunk contents to a batch; stacks each column when left out.
        sample: `sample(model, batch, generator) -> batch`, with the labels drawn from what the
            model itself predicts; for methods that use the true Fisher (EK-FAC).
        device: where the model runs; its parameters' device when left out.
        autocast: run matrix products in this dtype (bfloat16), whatever the parameters' own.
    """

    kind = "general"

    def __init__(
        self,
        model: torch.nn.Module,
        loss: PerExample | None = None,
        *,
        measurement: PerExample | None = None,
        margin: PerExample | None = None,
        collate: Callable[[list[dict[str, Any]]], Batch] | None = None,
        sample: Callable[[torch.nn.Module, Batch, torch.Generator], Batch] | None = None,
        device: str | torch.device | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = unwrap(model)
        self.autocast = autocast
        if device is not None:
            self.model.to(device)
        self._loss = loss
        self._measurement = measurement or loss
        self._margin = margin
        self._collate, self._sample = collate, sample
        self.notes: list[str] = []

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        import torch

        first = next(iter(self.model.parameters()), None)
        return torch.device("cpu") if first is None else first.device

    def chunks(self, document: Document) -> list[Chunk]:
        """The pieces of `document` that are run, in order."""
        return [Chunk(dict(document.content), 0, 1)]

    def chunk_many(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        """`chunks` of several documents at once, where that is faster."""
        return [self.chunks(document) for document in documents]

    def query_chunks(self, query: Query) -> list[tuple[float, Chunk]]:
        """`query` as weighted chunks: its measurement is the weighted sum of theirs."""
        if query.parts:
            share = 1.0 / len(query.parts)
            return [(share * w, c) for part in query.parts for w, c in self.query_chunks(part)]
        return self._query_chunks(query)

    def _query_chunks(self, query: Query) -> list[tuple[float, Chunk]]:
        if query.columns is None:
            raise InputError(
                "This task takes queries by columns",
                expected="hw.Query(columns={...})",
                found=query.describe(),
            )
        signed: list[tuple[float, Mapping[str, Any]]] = [(1.0, query.columns)]
        if query.instead_of is not None and not isinstance(query.instead_of, str):
            signed.append((-1.0, {**query.columns, **query.instead_of}))
        return [(w, Chunk({k: to_array(v) for k, v in c.items()}, 0, 1)) for w, c in signed]

    def collate(self, chunks: Sequence[Chunk]) -> Batch:
        """Stack the chunks' columns into one batch on the model's device."""

        contents = [chunk.content for chunk in chunks]
        if self._collate is not None:
            batch = self._collate(contents)
        else:
            try:
                batch = {
                    name: self._tensor(np.stack([to_array(c[name]) for c in contents]))
                    for name in contents[0]
                }
            except (KeyError, ValueError, TypeError) as error:
                raise InputError(
                    "The examples' columns do not stack into a batch",
                    expected="numbers, of one shape in every example",
                    found=" ".join(str(error).split()),
                    do="give Task(..., collate=...)",
                ) from error
        return {name: value.to(self.device) for name, value in batch.items()}

    def _tensor(self, values: np.ndarray[Any, Any]) -> torch.Tensor:
        """A column; Python's own numbers come as float64, and are meant in the model's dtype."""
        import torch

        made = torch.as_tensor(values)
        first = next(iter(self.model.parameters()), None)
        if made.dtype == torch.float64 and first is not None and first.is_floating_point():
            return made.to(first.dtype)
        return made

    def loss(self, batch: Batch) -> torch.Tensor:
        """Training loss of each example, [batch]."""
        return self._per_example(self._loss, "loss", batch)

    def measurement(self, batch: Batch) -> torch.Tensor:
        """Measurement of each query, [batch]; a loss: lower = better supported."""
        return self._per_example(self._measurement, "measurement", batch)

    def margin(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Negated log-odds of the right output and its weight 1 - p, both [batch] (TRAK)."""
        import torch

        negated = -self._per_example(self._margin, "margin", batch)
        return negated, torch.sigmoid(negated.detach())

    def resample(self, batch: Batch, seeds: Sequence[int]) -> Batch:
        """The batch with its labels drawn from the model's own distribution (the true Fisher).

        Args:
            seeds: one for each example; what an example draws depends on its own seed only.

        Raises:
            InputError: when the task does not say how outputs are drawn.
        """
        import torch

        if self._sample is None:
            raise InputError(
                "This task does not say how its outputs are drawn",
                expected="Task(..., sample=...): (model, batch, generator) -> batch",
                do="give it, or take fisher='empirical'",
            )
        drawn: list[Batch] = []
        with torch.no_grad():
            for row, seed in enumerate(seeds):
                generator = torch.Generator(self.device).manual_seed(seed)
                one = {name: value[row : row + 1] for name, value in batch.items()}
                drawn.append(self._sample(self.model, one, generator))
        return {name: torch.cat([one[name] for one in drawn]) for name in batch}

    def _per_example(self, function: PerExample | None, name: str, batch: Batch) -> torch.Tensor:
        if function is None:
            raise InputError(f"This task has no {name}", do=f"give Task(..., {name}=...)")
        try:
            value = function(self.model, batch)
        except KeyError as error:
            if error.args and error.args[0] in batch:
                raise
            raise InputError(
                f"The task's {name} asks for a column that is not there",
                expected=error.args[0] if error.args else None,
                found=", ".join(batch),
            ) from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if out_of_memory(error) or isinstance(error, HeadwaterError):
                raise
            shapes = [f"{k} {list(v.shape)} {dtype_name(v.dtype)}" for k, v in batch.items()]
            raise InputError(
                f"The task's {name} failed ({type(error).__name__}: {_first_line(error)})",
                expected="columns of the shapes and dtypes that it takes",
                found=", ".join(shapes),
            ) from error
        size = next(iter(batch.values())).shape[0]
        if tuple(value.shape) != (size,):
            raise InputError(
                f"The task's {name} must give one number for each example",
                expected=f"a tensor of shape [{size}]",
                found=f"shape {list(value.shape)}",
            )
        return value

    def head_module(self) -> str | None:
        """Name of the output head among the model's modules, where there is one."""
        return None

    def describe(self) -> dict[str, Any]:
        """What an index must know of this task, JSON-serialisable."""
        record = {"kind": self.kind, "model": model_fingerprint(self.model)}
        if self.autocast is not None:
            record["autocast"] = dtype_name(self.autocast)
        return record

    @contextmanager
    def running(self) -> Generator[None]:
        """The model in eval mode, frozen, under autocast if asked for; afterwards as it was."""
        import torch

        with (
            evaluating(self.model),
            torch.autocast(
                self.device.type, dtype=self.autocast, enabled=self.autocast is not None
            ),
        ):
            yield


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The module behind `torch.compile` and data-parallel wrappers."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        wrapped = attribute == "_orig_mod" or "DataParallel" in type(model).__name__
        if inner is not None and wrapped:
            return unwrap(inner)
    return model


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """A column's value as a numpy array (torch tensors included)."""
    detach = getattr(value, "detach", None)
    return np.asarray(detach().cpu().numpy() if detach is not None else value)


@contextmanager
def evaluating(model: torch.nn.Module) -> Generator[None]:
    """The model in eval mode with frozen parameters, and afterwards as it was before."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in grads:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, wanted in grads:
            parameter.requires_grad_(wanted)


def model_fingerprint(model: torch.nn.Module) -> str:
    """A hash of the model: every parameter's name, shape, dtype and 4,096 evenly spaced values.

    Where their spacing shares a factor with a matrix's width they lie in few of its columns. Such a
    model has a second hash, after a hyphen, of values in all columns; the first is as it always
    was, so that an index with it alone can be opened (see `same_fingerprint`).
    """
    first, second, skewed = hashlib.sha256(), hashlib.sha256(), False
    state: Mapping[str, torch.Tensor] = model.state_dict()
    for name in sorted(state):
        value = state[name].detach()
        first.update(f"{name}|{tuple(value.shape)}|{value.dtype}".encode())
        flat = value.reshape(-1)
        step = max(1, flat.numel() // SAMPLED)
        first.update(flat[::step].float().cpu().numpy().tobytes())
        width = flat.numel() // max(1, value.shape[0]) if value.dim() > 1 else 1
        if math.gcd(step, width) > 1:
            skewed = True
            step = next(s for s in itertools.count(step) if math.gcd(s, width) == 1)
            second.update(flat[::step].float().cpu().numpy().tobytes())
    made = first.hexdigest()[:32]
    return f"{made}-{second.hexdigest()[:32]}" if skewed else made


def same_fingerprint(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints are of the same weights, as far as both tell."""
    if one is None or other is None:
        return one == other
    pairs = zip(one.split("-"), other.split("-"), strict=False)
    return all(mine == yours for mine, yours in pairs)
