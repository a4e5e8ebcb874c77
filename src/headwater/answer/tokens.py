"""Which words carry a score: by position in the example, and by token of the query's target.

Both split the same number with the norms held fixed: the example's shares come from one backward
pass over it (`<v, u_z>` position by position), the target's from one pass for each of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.index.encoding import decode
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.view import Prepared, View

Array = np.ndarray[Any, Any]

LONGEST_CHARACTER = 4  # tokens (bytes) of one character
MOST_CHUNKS = 8  # of one example that are walked token by token
MOST_TARGETS = 32  # target tokens that are looked at one by one


def text_of(index: Index, ids: Sequence[int]) -> list[str]:
    """Each token as text; a character of several tokens stands with the last of them."""
    tokenizer: Any = getattr(index.task, "tokenizer")  # noqa: B009 - language models only
    texts: list[str] = []
    held: list[int] = []  # tokens of a character that is not complete
    for token in ids:
        held.append(int(token))
        text = tokenizer.decode(held)
        if text.endswith("\ufffd") and len(held) < LONGEST_CHARACTER:
            texts.append("")
        else:
            texts.append(text)
            held = []
    return texts


def decoded(index: Index, position: int) -> str:
    """The text of an example that was given as tokens; empty for what is no text."""
    chunks = index.chunks([position])[0]
    if "input_ids" not in chunks[0].content:
        return ""
    tokenizer: Any = getattr(index.task, "tokenizer")  # noqa: B009 - language models only
    return "".join(tokenizer.decode(chunk.content["input_ids"].tolist()) for chunk in chunks)


def example_shares(
    index: Index, chunks: Sequence[Chunk], v: Array, factor: float
) -> list[tuple[str, float]]:
    """(token, share of the score) over an example's chunks.

    Args:
        v: the query's direction M u_q / n_q [size]. factor: w_z / n_z of the example.
    """
    shares: list[tuple[str, float]] = []
    for chunk in chunks[:MOST_CHUNKS]:
        if "input_ids" not in chunk.content:
            return []
        values = index.gradients.positions(chunk, v) * factor
        words = text_of(index, chunk.content["input_ids"])
        shares += [(word, float(value)) for word, value in zip(words, values, strict=True)]
    return shares


def target_parts(
    parts: Sequence[tuple[float, Chunk]],
) -> list[tuple[int, list[tuple[float, Chunk]]]]:
    """The query split into one part for each token of its target: (token id, weighted chunk)."""
    split: list[tuple[int, list[tuple[float, Chunk]]]] = []
    for weight, chunk in parts:
        if "labels" not in chunk.content:
            return []
        labels = chunk.content["labels"]
        for position in np.flatnonzero(labels >= 0):
            one = np.full_like(labels, -100)
            one[position] = labels[position]
            content = {**chunk.content, "labels": one}
            split.append((int(labels[position]), [(weight, Chunk(content, 0, chunk.length))]))
    return split


def stored_features(index: Index, positions: Sequence[int], weighted: bool = False) -> Array:
    """Features of these documents as stored, in their own coordinates, float32 [n, size].

    `weighted`: each chunk's times its 1 - p, for methods that weigh examples by it.
    """
    made = np.zeros((len(positions), index.size), dtype=np.float32)
    for shard in index.shards():
        for place, position in enumerate(positions):
            if not shard.first <= position < shard.first + shard.documents:
                continue
            rows = (shard.document == position - shard.first).nonzero().flatten()
            u = shard.u[rows[0] : rows[-1] + 1]
            scale = None if shard.scale is None else shard.scale[rows[0] : rows[-1] + 1]
            features = decode(
                index.blocks, index.calibration.basis, u, scale, index.features.storage
            )
            if weighted and shard.weight is not None:
                features = features * shard.weight[rows[0] : rows[-1] + 1, None]
            made[place] = features.sum(dim=0).numpy()
    return made


def by_target(
    index: Index,
    method: View,
    prepared: Prepared,
    *,
    whole: Array,
    split: Array,
    shown: Sequence[int],
) -> Array:
    """Scores of the shown examples split over target tokens, [shown, targets].

    Args:
        whole: the query's features [size]. split: those of its target tokens [targets, size].
        shown: positions of the examples.
    """
    directions = target_directions(index, method, prepared, whole=whole, split=split)
    features = torch.from_numpy(stored_features(index, shown, method.weighted)).double()
    values = (features @ directions.T).numpy()
    if prepared.scale is not None:
        values = values * prepared.scale[list(shown), None]
    return values


def target_directions(
    index: Index, method: View, prepared: Prepared, *, whole: Array, split: Array
) -> torch.Tensor:
    """M u_t / n_q of each target token, float64 [targets, size]; they sum to the whole query's."""
    directions = method.directions(index, prepared, split).double()
    if method.norm != "both":
        return directions
    # Each part was divided by its own norm; the score has the whole query's.
    own = _norms(index, method, prepared, split)
    one = _norms(index, method, prepared, whole[None])
    return directions * (own / one.clamp(min=1e-30))[:, None]


def _norms(index: Index, method: View, prepared: Prepared, u: Array) -> torch.Tensor:
    features = torch.from_numpy(np.ascontiguousarray(u)).double()
    total = torch.zeros(len(features), dtype=torch.float64)
    turned = features
    if prepared.inverse is not None:
        turned = prepared.inverse.apply(index.blocks, features)
    for number in prepared.chosen:
        part = index.blocks[number].part
        total += (features[:, part] * turned[:, part]).sum(dim=1)
    return total.clamp(min=0).sqrt()
