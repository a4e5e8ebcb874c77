"""Views: methods that only compare stored gradients, `w_z <u_z, M u_q> / (n_z n_q)`.

A view never touches the model for training examples. Everything on the query's side (M, n_q) goes
into one direction per query, everything on the example's side (1 / n_z) into one number per
document, and what is left is a scan. A document of several chunks counts with the sum of their `u`,
before any normalising.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from headwater.engine.errors import DamageError, InputError
from headwater.engine.progress import Progress
from headwater.index.encoding import coordinates, decode
from headwater.index.kept_tensors import recall, remember
from headwater.index.scan import ROWS, Directions, Products
from headwater.index.selection import with_features
from headwater.methods.method import Method, Scores, choose_blocks, require_output

if TYPE_CHECKING:
    from headwater.curvature.metric import Metric, Root
    from headwater.index.index import Index, Shard
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

Norm = Literal["none", "examples", "both"]
WRITTEN_OUT = 64 << 20  # bytes


@dataclass
class Prepared:
    """A view made ready for an index.

    Args:
        inverse: M by its factors; None = identity.
        scale: 1 / n_z for each document, float32 [documents]; None = 1.
        chosen: numbers of the blocks that take part.
        notes: what a reader of the scores should know.
        weights: w_z of each row, a tensor for each shard; None = what the shards say.
    """

    inverse: Metric | None
    scale: np.ndarray[Any, Any] | None
    chosen: list[int]
    notes: list[str] = field(default_factory=list[str])
    weights: list[torch.Tensor] | None = None


class View(Method):
    """A method by its M (`fit`), its norms (`norm`) and its weights (`weighted`)."""

    norm: Norm = "none"
    weighted = False

    @abstractmethod
    def fit(self, index: Index) -> tuple[Metric | None, list[str]]:
        """M for this index (None = identity), and notes for the reader."""

    def prepare(self, index: Index, modules: Sequence[str] | None = None) -> Prepared:
        """Factor M and find the documents' norms; done once for any number of queries."""
        self.check(index)
        chosen = choose_blocks(index.blocks, modules)
        inverse, notes = self.fit(index)
        scale = None
        if self.norm != "none":
            norms = document_norms(index, inverse, chosen)
            scale = np.where(norms > 0, 1 / np.maximum(norms, 1e-30), 0).astype(np.float32)
        return Prepared(inverse, scale, chosen, notes)

    def check(self, index: Index) -> None:
        """Raise InputError when the index's features are not those the method needs."""
        require_output(index, self.title, weighted=self.weighted)

    def directions(self, index: Index, prepared: Prepared, u: np.ndarray[Any, Any]) -> torch.Tensor:
        """M u_q / n_q in the coordinates of `u`, float32 [queries, size]."""
        features = torch.from_numpy(np.ascontiguousarray(u)).double()
        kept = torch.zeros_like(features)
        for number in prepared.chosen:
            part = index.blocks[number].part
            kept[:, part] = features[:, part]
        inverse = prepared.inverse
        v = kept if inverse is None else inverse.apply(index.blocks, kept)
        if self.norm == "both":
            norms = (kept * v).sum(dim=1).clamp(min=0).sqrt()
            v = v / norms.clamp(min=1e-30)[:, None]
        return v.float()

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        prepared = self.prepare(index, modules)
        yield from self.stream_features(index, prepared, index.query_features(queries), among)

    def stream_features(
        self,
        index: Index,
        prepared: Prepared,
        u: np.ndarray[Any, Any],
        among: Mask | None = None,
    ) -> Scores:
        """The same for queries whose features [queries, size] are known."""
        among = with_features(index, among)  # what was left out is stored as zeros
        v = self.directions(index, prepared, u)
        w = index.calibration.basis.direction(index.blocks, v)
        products = Products(Directions(w, index.blocks, prepared.chosen), index.features.storage)
        with Progress("scanning", len(index), "examples") as progress:
            for number, shard in enumerate(index.shards()):
                part = slice(shard.first, shard.first + shard.documents)
                if among is None or among[part].any():
                    dots = torch.cat(list(products.rows(shard.u, shard.scale)))
                    given = prepared.weights
                    weight = shard.weight if given is None else given[number]
                    if self.weighted and weight is not None:
                        dots = dots * weight[:, None]
                    scores = by_document(shard, dots).T.numpy()
                    if prepared.scale is not None:
                        scores = scores * prepared.scale[part]
                    scores = np.ascontiguousarray(scores, dtype=np.float32)
                    if not np.isfinite(scores).all():
                        raise DamageError(
                            f"The features of shard {number} are damaged: scores are not finite",
                            do=f"run headwater inspect {index.path}, then the build command again",
                        )
                    if among is not None:
                        scores[:, ~among[part]] = np.nan
                    yield shard.first, scores
                progress.advance(shard.documents)

    def self_influence(
        self, index: Index, modules: Sequence[str] | None = None
    ) -> np.ndarray[Any, Any]:
        """Score of each document for itself, float32 [documents]: w_z u_z^T M u_z / n_z.

        NaN for documents without features.

        Raises:
            InputError: for a unit-norm method, whose self-influence is 1 for every example.
        """
        if self.norm == "both":
            raise InputError(
                f"The self-influence of {self.title} is 1 for every example",
                do="use GradDot, LoGra or l-RelatIF",
            )
        self.check(index)
        chosen = choose_blocks(index.blocks, modules)
        inverse, _ = self.fit(index)
        if self.weighted:
            parts = list(_norms(index, inverse, chosen, weighted=True))
            values = torch.cat(parts).float().numpy()
        else:
            norms = document_norms(index, inverse, chosen)
            values = (norms if self.norm == "examples" else norms**2).astype(np.float32)
        among = with_features(index)
        return values if among is None else np.where(among, values, np.float32(np.nan))


def by_document(shard: Shard, rows: torch.Tensor) -> torch.Tensor:
    """Sums of rows [rows, k] over each document's chunks, [documents, k]."""
    if shard.one_to_one:
        return rows
    total = rows.new_zeros((shard.documents, rows.shape[1]))
    return total.index_add_(0, shard.document.long(), rows)


def document_norms(
    index: Index, inverse: Metric | None, chosen: Sequence[int]
) -> np.ndarray[Any, Any]:
    """`|u_z|` under M over the chosen blocks, float64 [documents]; kept beside the index."""
    if inverse is None and all(shard.one_to_one for shard in index.shards()):
        parts = [(s.norm[:, list(chosen)].double() ** 2).sum(dim=1).sqrt() for s in index.shards()]
        return torch.cat(parts).numpy()
    digest = hashlib.sha256(
        f"{'identity' if inverse is None else inverse.digest}|{list(chosen)}|{len(index)}".encode()
    ).hexdigest()[:24]
    path = index.path / "views" / f"{digest}.safetensors"
    kept = recall(path).get("norm")
    if kept is not None and len(kept) == len(index):
        return kept.numpy()
    norms = torch.cat(list(_norms(index, inverse, chosen))).sqrt()
    remember(path, {"norm": norms}, "norms")
    return norms.numpy()


def _norms(
    index: Index, inverse: Metric | None, chosen: Sequence[int], *, weighted: bool = False
) -> Iterator[torch.Tensor]:
    """Squared norms of each shard's documents, one pass over the index.

    `weighted`: the inner product of a document's u with the sum of its chunks' `w u` instead.
    """
    basis = index.calibration.basis
    roots = None if inverse is None else inverse.roots(basis.inverses)
    with Progress("norms of the examples", len(index), "examples") as progress:
        for shard in index.shards():
            total = torch.zeros(shard.documents, dtype=torch.float64)
            for start, end in document_ranges(shard, rows_at_a_time(index.size)):
                total += _piece(index, shard, start, end, roots, chosen, weighted)
                progress.advance(int(shard.document[end - 1]) - int(shard.document[start]) + 1)
            yield total


def _piece(
    index: Index,
    shard: Shard,
    start: int,
    end: int,
    roots: list[Root] | None,
    chosen: Sequence[int],
    weighted: bool,
) -> torch.Tensor:
    """Squared norms of the documents whose rows are [start, end), others zero."""
    scale = None if shard.scale is None else shard.scale[start:end]
    blocks, storage, u = index.blocks, index.features.storage, shard.u[start:end]
    if roots is None:
        rows = decode(blocks, index.calibration.basis, u, scale, storage)
    else:
        rows = coordinates(blocks, u, scale, storage)
    owners = shard.document[start:end].long()
    first = int(owners[0])
    sums = rows.new_zeros((int(owners[-1]) - first + 1, rows.shape[1]))
    sums.index_add_(0, owners - first, rows)
    others = sums
    if weighted and shard.weight is not None:
        others = torch.zeros_like(sums)
        others.index_add_(0, owners - first, rows * shard.weight[start:end, None])
    total = torch.zeros(shard.documents, dtype=torch.float64)
    part = total[first : first + len(sums)]
    for number in chosen:
        z, other = (x[:, index.blocks[number].part] for x in (sums, others))
        if roots is not None:
            z, other = roots[number](z), roots[number](other)
        part += (z.double() * other.double()).sum(dim=1)
    return total


def rows_at_a_time(size: int) -> int:
    """Rows of features that are written out in float32 at a time: about 64 MB of them."""
    return max(1, min(ROWS, WRITTEN_OUT // (4 * size)))


def document_ranges(shard: Shard, rows: int) -> Iterator[tuple[int, int]]:
    """Runs of about this many rows that never split a document."""
    owners = shard.document
    start = 0
    while start < len(owners):
        end = min(start + rows, len(owners))
        while end < len(owners) and owners[end] == owners[end - 1]:
            end += 1
        yield start, end
        start = end
