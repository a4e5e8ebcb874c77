"""Points of many dimensions laid out in two, so that neighbours stay neighbours as far as they can.

It begins with the two widest directions. Then each point is drawn to its nearest neighbours and
pushed away from points drawn by lot, all at once, a little less each round (the forces of LargeVis
and UMAP: Tang et al. 2016, McInnes et al. 2018; the points are moved together instead of one after
the other, which makes it repeatable and quick in whole-array arithmetic). Where there are more
points than `LANDMARKS`, a sample is laid out, and every other point goes between its nearest ones.
Distances across the picture mean little; who stands beside whom means more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headwater.engine.progress import Progress

NEIGHBOURS = 15
LANDMARKS = 200_000
ROUNDS = 300
MANY = 50_000  # points from which fewer rounds do
FEWER_ROUNDS = 200
DRAWN = 4  # neighbours that draw a point in a round
PUSHED = 12  # points that push it
STRONGEST = 4.0  # that one force is
STEP = 0.35  # of the first round
SPREAD = 10.0  # of the first picture
CELLS = 1 << 24  # distances held at a time: 64 MiB
JUDGED = 1000  # points by which a layout is judged
NEAR = 10
AT_ONCE = 100_000_000  # distances that are all computed
AROUND = 16  # cells that are searched

Array = np.ndarray[Any, Any]


def laid_out(x: Array, seed: int = 0) -> Array:
    """Two coordinates for each point, float32 [n, 2], from about -1 to 1.

    Args:
        x: the points by their widest directions, widest first, float32 [n, d], centred.
    """
    count = len(x)
    if count <= 3 or not np.ptp(x, axis=0).any():
        return _scaled(np.pad(x[:, :2], ((0, 0), (0, max(0, 2 - x.shape[1])))))
    random = np.random.default_rng(seed)
    chosen = np.arange(count)
    if count > LANDMARKS:
        chosen = np.sort(random.choice(count, LANDMARKS, replace=False))
    some = np.ascontiguousarray(x[chosen])
    k = min(NEIGHBOURS, len(some) - 1)
    near, squared = nearest(some, some, k, own=True)
    placed = _moved(_first(some, random), near, _weights(squared), random)
    if len(chosen) == count:
        return _scaled(placed)
    made = np.empty((count, 2), dtype=np.float32)
    made[chosen] = placed
    rest = np.setdiff1d(np.arange(count), chosen)
    near, squared = nearest(x[rest], some, min(5, k))
    weight = 1 / (squared + 1e-3 * squared.mean() + 1e-30)
    made[rest] = (placed[near] * (weight / weight.sum(axis=1, keepdims=True))[..., None]).sum(1)
    return _scaled(made)


def nearest(
    x: Array, others: Array, k: int, *, own: bool = False, seed: int = 0
) -> tuple[Array, Array]:
    """The k nearest of the others, int64 [n, k], and their squared distances, nearest first.

    Of many points those in the cells around a point are looked at: a few of its true neighbours
    are missed, and it takes a twentieth of the time.

    Args:
        own: `x` are the others themselves, and no point is its own neighbour.
    """
    import torch

    points, wanted = torch.from_numpy(others), torch.from_numpy(np.ascontiguousarray(x))
    lengths = (points * points).sum(dim=1)
    near = np.zeros((len(x), k), dtype=np.int64)
    squared = np.zeros((len(x), k), dtype=np.float32)
    with Progress("neighbours", len(x), "examples") as progress:
        for asking, candidates in _cells(x, others, k + own, seed):
            there, length = points[candidates], lengths[candidates]
            step = max(1, CELLS // len(candidates))
            for start in range(0, len(asking), step):
                rows = asking[start : start + step]
                part = wanted[rows]
                distance = torch.addmm(length[None], part, there.T, alpha=-2.0)
                if own:
                    places = np.searchsorted(candidates, rows)
                    distance[np.arange(len(rows)), places] = float("inf")
                values, places = distance.topk(k, dim=1, largest=False)
                near[rows] = candidates[places.numpy()]
                values += (part * part).sum(dim=1)[:, None]
                squared[rows] = values.clamp(min=0).numpy()
                progress.advance(len(rows))
    return near, squared


def _cells(x: Array, others: Array, k: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Points that ask, and the others (ascending) among which their nearest are sought.

    All at once where that is little work; else by cells around points drawn by lot, each asking
    the cells that are nearest to its own.
    """
    if len(x) * len(others) <= AT_ONCE:
        yield np.arange(len(x)), np.arange(len(others))
        return
    count = round(len(others) ** 0.5)
    random = np.random.default_rng(seed)
    middles = others[np.sort(random.choice(len(others), count, replace=False))]
    cell_of = nearest(others, middles, 1)[0][:, 0]
    asked = cell_of if x is others else nearest(x, middles, 1)[0][:, 0]
    ends = np.cumsum(np.bincount(cell_of, minlength=count))[:-1]
    members = np.split(np.argsort(cell_of, kind="stable"), ends)
    around = nearest(middles, middles, count)[0]
    for cell in range(count):
        asking = np.flatnonzero(asked == cell)
        if not len(asking):
            continue
        sizes = np.cumsum([len(members[one]) for one in around[cell]])
        enough = max(AROUND, int(np.searchsorted(sizes, k)) + 1)
        yield asking, np.sort(np.concatenate([members[one] for one in around[cell][:enough]]))


def _weights(squared: Array) -> Array:
    """How strongly each neighbour draws, float32 [n, k], each row summing to 1.

    1 for the nearest, falling off so that a row's strengths sum to log2(k), as UMAP has them.
    """
    distance = np.sqrt(squared.astype(np.float64))
    beyond = distance - distance[:, :1]
    wanted = np.log2(max(distance.shape[1], 2))
    low, high = np.zeros(len(distance)), np.full(len(distance), np.inf)
    width = np.maximum(beyond.mean(axis=1), 1e-12)
    for _ in range(32):
        total = np.exp(-beyond / width[:, None]).sum(axis=1)
        high = np.where(total > wanted, width, high)
        low = np.where(total > wanted, low, width)
        width = np.where(np.isinf(high), np.minimum(width * 2, 1e12), (low + high) / 2)
        width = np.maximum(width, 1e-12)
    made = np.exp(-beyond / width[:, None])
    return (made / made.sum(axis=1, keepdims=True)).astype(np.float32)


def _first(x: Array, random: np.random.Generator) -> Array:
    """The two widest directions, and a little noise so that equal points can part."""
    flat = np.zeros((len(x), 2), dtype=np.float32)
    flat[:, : min(2, x.shape[1])] = x[:, :2]
    size = max(float(np.abs(flat).max()), 1e-30)
    noise = random.normal(scale=1e-3 * SPREAD, size=flat.shape)
    return (flat * (SPREAD / size) + noise).astype(np.float32)


def _moved(start: Array, near: Array, weights: Array, random: np.random.Generator) -> Array:
    """The layout after all rounds, float32 [n, 2]."""
    count = len(start)
    y = np.ascontiguousarray(start.T)  # x and y apart: whole-array arithmetic is quicker so
    bounds = np.cumsum(weights, axis=1)
    bounds = np.ascontiguousarray((bounds / bounds[:, -1:])[:, :-1])
    rows = np.arange(count)
    rounds = ROUNDS if count < MANY else FEWER_ROUNDS
    with Progress("laying out", rounds, "rounds") as progress:
        for number in range(rounds):
            force = np.zeros_like(y)
            for _ in range(DRAWN):
                lots = random.random((count, 1), dtype=np.float32)
                others = near[rows, (lots > bounds).sum(axis=1)]
                pull = _pull(y - y[:, others])
                force += pull
                for axis in (0, 1):
                    force[axis] -= np.bincount(others, pull[axis], count).astype(np.float32)
            for _ in range(PUSHED):
                force += _push(y - y[:, random.integers(0, count, count)])
            step = STEP * (1 - number / rounds)
            y += step * np.clip(force, -2 * STRONGEST, 2 * STRONGEST)
            progress.advance()
    return y.T


def _pull(between: Array) -> Array:
    """Towards the neighbour: the slope of log 1 / (1 + d^2); [2, n]."""
    squared = between[0] * between[0] + between[1] * between[1]
    return np.clip(between * (-2 / (1 + squared)), -STRONGEST, STRONGEST)


def _push(between: Array) -> Array:
    """Away from a point drawn by lot: the slope of log (1 - 1 / (1 + d^2)); [2, n]."""
    squared = between[0] * between[0] + between[1] * between[1]
    slope = np.float32(2) / ((np.float32(0.01) + squared) * (1 + squared))
    return np.clip(between * slope, -STRONGEST, STRONGEST)


def _scaled(y: Array) -> Array:
    """Centred, the farthest point at 1."""
    y = y.astype(np.float64)
    y = y - y.mean(axis=0) if len(y) else y
    size = float(np.abs(y).max()) if y.size else 0.0
    return (y / size if size > 0 else y).astype(np.float32)


def kept_neighbours(x: Array, y: Array, seed: int = 0) -> float | None:
    """Share of the ten nearest in `x` that are among the ten nearest in `y`, over a sample.

    None for so few points that everything is near.
    """
    if len(x) <= 4 * NEAR:
        return None
    chosen = np.random.default_rng(seed).choice(len(x), min(JUDGED, len(x)), replace=False)
    shared = 0
    sets: list[list[set[int]]] = []
    for space in (x, y):
        points = np.ascontiguousarray(space, dtype=np.float32)
        near, _ = nearest(points[chosen], points, NEAR + 1)
        sets.append([set(r.tolist()) - {int(c)} for r, c in zip(near, chosen, strict=True)])
    for one, other in zip(*sets, strict=True):
        shared += len(one & other)
    return shared / (NEAR * len(chosen))
