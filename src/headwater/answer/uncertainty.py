"""How far a shown example's score and rank move: under other projections, at other checkpoints.

Other seeds. The features of the best and worst documents, and of a random sample of the others, are
computed again under every seed (and the index's own) in one pass of the model. The method is then
prepared on those few as on any index, with the curvature of the sample: of everything where the
sample is everything. What is told of a seed is how far it moves a score from the own seed's, both
by that same curvature. Its rank counts a document of the sample for those that it stands for.

Other checkpoints. Feature sets beside the index's own hold every document, so nothing but the
query's gradient is computed: a score and a rank come from a scan of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.answer.answer import Spread
from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.progress import Progress
from headwater.evidence.fusion import best_first
from headwater.gradients.features import TopEigenvectors
from headwater.gradients.reseeded import Reseeded
from headwater.index.feature_sets import set_names
from headwater.index.in_memory import InMemory
from headwater.training.checkpoint_features import visiting

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.view import View
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk

SAMPLE = 256  # documents that stand for all the others
NEAR = 20  # documents at either end that another seed could bring forward, at least

Array = np.ndarray[Any, Any]
Parts = Sequence[tuple[float, "Chunk"]]


@dataclass
class Case:
    """One query's scores, whose uncertainty is asked.

    Args:
        index, method, modules: what scored. query, parts: it, and its weighted chunks.
        scores: float32 [documents]; NaN for those that take no part.
        best, worst: positions that are shown at either end.
    """

    index: Index
    method: View
    modules: Sequence[str] | None
    query: Query
    parts: Parts
    scores: Array
    best: Sequence[int]
    worst: Sequence[int]

    def rank(self, position: int, scores: Array, counts: Array) -> int:
        """Its rank from its own end among documents that count for so many each."""
        here = scores[position]
        with np.errstate(invalid="ignore"):
            opposes = position in self.worst and position not in self.best
            before = scores < here if opposes else scores > here
        return 1 + round(float(counts[before].sum()))


def require_seeds(index: Index) -> None:
    """Raise InputError when the index's projections are not random."""
    projection = index.features.projection
    if projection is None or isinstance(projection, TopEigenvectors):
        raise InputError(
            "The index's features are not projected at random, so no seed makes them uncertain",
            expected="a projection such as 16x16",
            found="full gradients" if projection is None else "eigenvectors",
            do="leave out uncertainty (--uncertainty)",
        )


def over_seeds(case: Case, seeds: int, sample: int = SAMPLE) -> tuple[dict[int, Spread], list[str]]:
    """The spread of every shown document over the index's seed and `seeds` others; and notes."""
    index = case.index
    near, drawn = _documents(case, sample)
    positions = np.sort(np.concatenate([near, drawn]))
    numbers = [index.features.seed + i for i in range(seeds + 1)]
    everything = len(positions) == int(np.isfinite(case.scores).sum())
    stands = np.isin(positions, drawn) | everything
    others = int(np.isfinite(case.scores).sum()) - len(near)
    counts = np.where(np.isin(positions, near), 1.0, others / max(1, len(drawn)))
    made = _scores(case, positions, stands, numbers)
    shown = dict.fromkeys([*case.best, *case.worst])
    place = {int(p): i for i, p in enumerate(positions)}
    small = Case(
        case.index,
        case.method,
        case.modules,
        case.query,
        case.parts,
        made[0],
        [place[p] for p in case.best],
        [place[p] for p in case.worst],
    )
    all_of = np.ones(len(case.scores))
    found: dict[int, Spread] = {}
    drift = 0.0
    for position in shown:
        i, own = place[position], float(case.scores[position])
        values = [own, *(own + float(row[i] - made[0][i]) for row in made[1:])]
        ranks = [case.rank(position, case.scores, all_of)]
        ranks += [small.rank(i, row, counts) for row in made[1:]]
        found[position] = _spread("projection seeds", values, ranks)
        drift = max(drift, abs(float(made[0][i]) - own))
    told = f"uncertainty over {seeds + 1} projection seeds from {len(positions):,} documents"
    if everything:
        return found, [f"{told}, which are all"]
    return found, [
        f"{told}; with the index's own seed the curvature of these few moves a shown score by at "
        f"most {drift:.2g}"
    ]


def over_checkpoints(case: Case) -> tuple[dict[int, Spread], list[str]]:
    """The spread of every shown document over the feature sets of other weights; and notes."""
    index = case.index
    rows, names, notes = [case.scores], ["own"], list[str]()
    for name in set_names(index):
        try:
            with visiting(index, name) as one:
                if one.manifest["task"]["model"] == index.manifest["task"]["model"]:
                    continue  # other features of the same weights
                rows.append(_scanned(case, one))
                names.append(name)
        except HeadwaterError as error:
            notes.append(f"feature set {name} takes no part in the uncertainty: {error.wrong}")
    if len(rows) == 1:
        return {}, notes
    all_of = np.ones(len(case.scores))
    found = {
        position: _spread(
            "checkpoints",
            [float(row[position]) for row in rows],
            [case.rank(position, row, all_of) for row in rows],
        )
        for position in dict.fromkeys([*case.best, *case.worst])
    }
    return found, [*notes, f"uncertainty over the weights of {', '.join(names)}"]


def _scanned(case: Case, one: Index) -> Array:
    """Scores of all documents in a feature set; NaN where the index gave none."""
    prepared = case.method.prepare(one, case.modules)
    row = np.full(len(case.scores), np.nan, dtype=np.float32)
    among = np.isfinite(case.scores)
    u = one.query_features([case.query])
    for first, block in case.method.stream_features(one, prepared, u, among):
        row[first : first + block.shape[1]] = block[0]
    return row


def _documents(case: Case, sample: int) -> tuple[Array, Array]:
    """Positions near either end, the shown ones among them; and a random sample of the others."""
    order = best_first(case.scores, case.index.examples.id_order, len(case.scores))
    depth = max(NEAR, 4 * max(len(case.best), len(case.worst)))
    near = np.unique([*order[:depth], *order[-depth:], *case.best, *case.worst]).astype(np.int64)
    rest = np.setdiff1d(order, near)
    generator = np.random.Generator(np.random.PCG64(case.index.features.seed))
    return near, np.sort(generator.permutation(rest)[:sample])


def _scores(case: Case, positions: Array, stands: Array, seeds: Sequence[int]) -> list[Array]:
    """Scores of these documents under each seed, float32 [documents]."""
    index = case.index
    gradients = Reseeded(index.gradients, seeds)
    pieces = index.chunks(positions.tolist())
    chunks = [chunk for piece in pieces for chunk in piece]
    owners = torch.repeat_interleave(
        torch.arange(len(pieces)), torch.tensor([len(piece) for piece in pieces])
    )
    u, weight = _features(gradients, chunks, index.manifest["budget"], len(seeds))
    asked, _ = _features(
        gradients, [chunk for _, chunk in case.parts], index.manifest["budget"], len(seeds), "query"
    )
    shares = torch.tensor([share for share, _ in case.parts], dtype=torch.float32)
    spread = torch.from_numpy(stands)[owners]
    made: list[Array] = []
    for i, member in enumerate(gradients.members):
        small = InMemory(index, member, u[:, i].contiguous(), owners, weight, spread)
        prepared = case.method.prepare(small, case.modules)
        query = (shares @ asked[:, i])[None].numpy()
        blocks = case.method.stream_features(small, prepared, query)
        made.append(np.concatenate([block[0] for _, block in blocks]))
    return made


def _features(
    gradients: Reseeded, chunks: Sequence[Chunk], budget: int, seeds: int, role: Any = "example"
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """float32 [chunks, seeds, size], and 1 - p of each chunk where the method weighs by it."""
    u = torch.zeros((len(chunks), seeds, gradients.layout.size))
    weight: torch.Tensor | None = None
    with Progress("other projections", len(chunks), "texts") as progress:
        for part, made in gradients.stream(chunks, budget, role):
            u[part] = made.u.float().cpu().view(len(part), seeds, -1)
            if made.weight is not None:
                weight = torch.zeros(len(chunks)) if weight is None else weight
                weight[part] = made.weight.detach().float().cpu()
            progress.advance(len(part))
    return u, weight


def _spread(over: str, values: Sequence[float], ranks: Sequence[int]) -> Spread:
    return Spread(over, len(values), (min(values), max(values)), (min(ranks), max(ranks)))


def spreads(case: Case, seeds: int) -> tuple[Mapping[int, list[Spread]], list[str]]:
    """All that is known of the uncertainty of the shown documents, by position; and notes."""
    found: dict[int, list[Spread]] = {}
    notes: list[str] = []
    for some, told in (over_seeds(case, seeds), over_checkpoints(case)):
        for position, one in some.items():
            found.setdefault(position, []).append(one)
        notes += told
    return found, notes
