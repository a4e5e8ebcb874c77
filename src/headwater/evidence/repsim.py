"""RepSim: which examples look alike to the model itself. Similarity of states, not cause.

    score(q, z) = max over the chunks c of z of cos(h(c), h(q))

h is the hidden state of one layer, pooled over the tokens: that of the last token (Li et al. 2024),
the mean, or the mean weighted by position (RDS+, Ivison et al. 2025). Hidden states share a few
large directions that say nothing; whitened by the corpus's own covariance (Su et al. 2021), with
    W = ((1 - s) C + s trace(C) / d)^-1/2,    h' = W (h - mean),
they no longer do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import InputError, NumericError, ResourceError
from headwater.engine.files import write_atomic
from headwater.engine.progress import Progress
from headwater.evidence.embeddings import Embeddings, build, check_storage, owners_of
from headwater.evidence.ranker import Ranker
from headwater.index.store import Store, prepared

if TYPE_CHECKING:
    import torch

    from headwater.index.index import Index
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk

POOLINGS = ("last", "mean", "weighted")
WHITENING = "whitening.safetensors"
BUDGET = 4096  # padded tokens of a batch

Array = np.ndarray[Any, Any]


class Whitening(NamedTuple):
    """mean float64 [d]; matrix float64 [d, d], symmetric."""

    mean: Array
    matrix: Array

    def __call__(self, rows: Array) -> Array:
        """W (h - mean) for each row, float64 [rows, d]."""
        return (rows - self.mean) @ self.matrix


class Opened(NamedTuple):
    """The vectors to compare with, and what has to be done to a query's."""

    embeddings: Embeddings
    whitening: Whitening | None


class RepSim(Ranker):
    """Cosine of the studied model's hidden states.

    The query's state is that of its prompt and completion together, as one text; with `pooling=
    "last"`, the state of the completion's last token. A document of several chunks counts with
    its best one; one whose state is not finite scores NaN.

    Args:
        layer: 0 = the embeddings, 1 = after the first layer, ..., -1 = the last, after the final
            norm; counted from the end when negative.
        pooling: "last", "mean" or "weighted" (weights 1, 2, 3, ... by position).
        whiten: subtract the corpus's mean state and whiten by its covariance.
        shrinkage: share of the covariance that is replaced by a multiple of the identity, 0 to 1.
        storage: of the states, "float16" or "float32". budget: padded tokens of a batch.

    Raises:
        InputError: for parameters out of range.
    """

    name = "repsim"
    unit = "cosine of hidden states (similarity; not a cause)"
    needs = "a language model"
    costs = "the model over the corpus once, without gradients; a scan"

    def __init__(
        self,
        layer: int = -1,
        pooling: str = "last",
        whiten: bool = False,
        *,
        shrinkage: float = 0.1,
        storage: str = "float16",
        budget: int = BUDGET,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError("Unknown pooling", expected=", ".join(POOLINGS), found=pooling)
        if not 0 <= shrinkage <= 1:
            raise InputError("Shrinkage is a share", expected="from 0 to 1", found=shrinkage)
        self.layer, self.pooling, self.whiten = layer, pooling, whiten
        self.shrinkage, self.storage, self.budget = shrinkage, check_storage(storage), budget

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """RepSim, and whether it is whitened."""
        return "RepSim (whitened)" if self.whiten else "RepSim"

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        record = {"method": self.name, **self._settings(), "whiten": self.whiten}
        return record | ({"shrinkage": self.shrinkage} if self.whiten else {})

    def _settings(self) -> dict[str, Any]:
        return {"layer": self.layer, "pooling": self.pooling, "storage": self.storage}

    def _parts(self, index: Index, query: Query) -> Sequence[tuple[float, Chunk]]:
        return _language_model(index).query_chunks(query)

    def _blocks(self, index: Index, items: Sequence[Chunk]) -> Iterator[tuple[int, Array]]:
        opened: Opened = self._opened(index)
        rows = self._states(_language_model(index), items).astype(np.float64)
        if not np.isfinite(rows).all():
            raise NumericError("The model's hidden state of a query is not finite")
        if opened.whitening is not None:
            rows = opened.whitening(rows)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        yield from opened.embeddings.blocks(rows)

    # -- stores ---------------------------------------------------------------------------

    def _read(self, index: Index) -> Opened:
        _check_kind(index)
        settings = {"ranker": self.name, "task": index.manifest["task"], **self._settings()}
        plain = Store(index, "semantic", settings)
        if not self.whiten:
            return Opened(Embeddings(prepared(plain, self._build, grows=True)), None)
        white = Store(index, "semantic", settings | {"whiten": self.shrinkage})
        # Other documents have another covariance: what is whitened does not grow.
        prepared(white, lambda store: self._build_whitened(store, plain))
        return Opened(Embeddings(white), _read_whitening(white))

    def _build(self, store: Store) -> None:
        task = _language_model(store.index)

        def make(positions: range) -> tuple[Array, Array]:
            chunks = store.index.chunks(positions)
            owners = owners_of(positions, [len(mine) for mine in chunks])
            return self._states(task, [chunk for mine in chunks for chunk in mine]), owners

        build(store, make, self.storage, "hidden states")

    def _build_whitened(self, store: Store, plain: Store) -> None:
        states = Embeddings(prepared(plain, self._build, grows=True))
        whitening = whiten(states, self.shrinkage)
        _write_whitening(store, whitening)

        def make(positions: range) -> tuple[Array, Array]:
            rows, owners = states.vectors(positions)
            return whitening(rows), owners

        build(store, make, self.storage, "whitened states", also=[WHITENING])

    # -- the model ------------------------------------------------------------------------

    def _states(self, task: CausalLM, chunks: Sequence[Chunk]) -> Array:
        """Pooled hidden states, float32 [chunks, d]."""
        import torch

        from headwater.engine.memory import out_of_memory

        made: list[Array] = [np.zeros(0, np.float32)] * len(chunks)
        lengths = [chunk.length for chunk in chunks]
        with task.running(), torch.no_grad():
            for part in batches_by_length(lengths, self.budget):
                try:
                    rows = self._batch(task, [chunks[i] for i in part])
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    raise ResourceError(
                        f"Memory ran out on hidden states of {len(part)} chunks",
                        do=f"use RepSim(budget=...) below {self.budget}",
                    ) from error
                for place, row in zip(part, rows, strict=True):
                    made[place] = row
        return np.stack(made)

    def _batch(self, task: CausalLM, chunks: Sequence[Chunk]) -> Array:
        import torch

        ids = task.collate(chunks)["input_ids"]
        states = _layer(task, ids, self.layer)
        states = states if states.dtype == torch.float64 else states.float()
        lengths = torch.tensor([chunk.length for chunk in chunks], device=states.device)
        places = torch.arange(ids.shape[1], device=states.device)
        if self.pooling == "last":
            weights = (places == lengths[:, None] - 1).to(states)
        else:
            weights = (places < lengths[:, None]).to(states)
            if self.pooling == "weighted":
                weights = weights * (places + 1)
        weights = weights / weights.sum(dim=1, keepdim=True)
        # Padding takes no part, whatever is in it: 0 times a number that is not finite is not 0.
        states = states.masked_fill(weights[:, :, None] == 0, 0.0)
        return torch.einsum("bt,btd->bd", weights, states).float().cpu().numpy()


def whiten(states: Embeddings, shrinkage: float) -> Whitening:
    """Mean and inverse square root of the shrunk covariance of all finite states.

    Raises:
        InputError: when the covariance has no inverse.
    """
    d = states.dimensions
    count, total, products, shift = 0, np.zeros(d), np.zeros((d, d)), np.zeros(d)
    with Progress("covariance", None, "states") as progress:
        for rows in states.groups():
            rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
            if not count and len(rows):  # near the mean, so that squares do not cancel
                shift = rows.mean(axis=0)
            rows -= shift
            count, total, products = (
                count + len(rows),
                total + rows.sum(0),
                products + rows.T @ rows,
            )
            progress.advance(len(rows))
    if not count:
        raise InputError("No hidden state of the corpus is finite")
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    values = np.maximum(values, 0)
    shrunk = (1 - shrinkage) * values + shrinkage * values.mean()
    if shrunk.min() <= 1e-12 * max(shrunk.max(), 1e-300):
        raise InputError(
            "The covariance of the hidden states has no inverse",
            expected=f"more than {d} documents that differ, or a shrinkage above 0",
            found=f"{count} states, shrinkage {shrinkage}",
        )
    return Whitening(mean + shift, (vectors / np.sqrt(shrunk)) @ vectors.T)


def _write_whitening(store: Store, whitening: Whitening) -> None:
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(x) for name, x in whitening._asdict().items()}
    write_atomic(store.folder / WHITENING, lambda path: save_file(tensors, path))


def _read_whitening(store: Store) -> Whitening:
    from headwater.index.mapped import map_tensors

    found = map_tensors(store.path(WHITENING))
    return Whitening(found["mean"].numpy(), found["matrix"].numpy())


def _layer(task: CausalLM, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Hidden states of a layer, [batch, length, d]."""
    model: Any = task.model
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = getattr(network, network.base_model_prefix)
    if layer == -1:  # the others need not be kept
        return decoder(input_ids=ids, use_cache=False).last_hidden_state
    states = decoder(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise InputError(
            "The model has no such layer",
            expected=f"from {-len(states)} to {len(states) - 1} (0 = the embeddings)",
            found=layer,
        )
    return states[layer]


def _check_kind(index: Index) -> None:
    kind = index.manifest["task"]["kind"]
    if kind != "causal_lm":
        raise InputError(
            "RepSim reads the hidden states of a language model",
            expected="an index of a CausalLM, with or without features",
            found=f"an index of kind '{kind}'",
        )


def _language_model(index: Index) -> CausalLM:
    _check_kind(index)
    return index.task  # pyright: ignore[reportReturnType] - its kind says so
