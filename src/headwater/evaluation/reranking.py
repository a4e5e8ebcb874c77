"""Which method puts the documents that state a fact first? Two protocols, methods side by side.

Open retrieval ranks the whole corpus. FTRACE's reranking (Akyurek et al. 2022, arXiv 2205.11482)
ranks for each query a few hundred candidates: every gold document, documents that hold the same
answer, random ones, and the best of BM25. It was made for methods too dear to run on everything;
since the candidates hold all gold documents, its numbers are higher than those of open retrieval,
and the two must not stand in one column.

Nothing is won by a tie: equal scores are ordered by lot (a seeded hash of the id), and a score of 0
(no word shared, no rank in any list) takes its place in the ranking but is no find.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.paired import paired_difference
from headwater.evaluation.query_sets import QueryItem
from headwater.evaluation.retrieval import Retrieval, retrieval

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query

Array = np.ndarray[Any, Any]
Protocol = Literal["open", "ftrace"]

PROTOCOLS = ("open", "ftrace")
METRICS: tuple[str, ...] = ("mrr", "success", "recall")

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Candidates:
    """How many distractors FTRACE's protocol adds to the gold documents of a query.

    Attributes:
        same_target: documents that hold the completion's words. random: any. lexical: BM25's
            best. seed: of what is drawn.
    """

    same_target: int = 100
    random: int = 100
    lexical: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Compared:
    """One method's numbers.

    Attributes:
        method, title: its name and its paper's. given: what it works from, in words.
        result: MRR, success@k and recall@k.
        difference: of each metric to the first method's, paired by query; None for the first.
        seconds: that its scores took.
    """

    method: str
    title: str
    given: str
    result: Retrieval
    difference: dict[str, Estimate] | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Methods on the same queries by the same protocol.

    Attributes:
        protocol: "open" or "ftrace". queries: how many were asked.
        left_out: queries none of whose gold documents is in the index. absent: gold documents of
            the others that are not in it, and do not count.
        examples: documents of the index. depth: of the rankings (open).
        candidates: mean number of candidates of a query (ftrace); None for open.
        rows: one for each method, in the order given.
    """

    protocol: str
    queries: int
    left_out: int
    absent: int
    examples: int
    depth: int
    k: int
    candidates: float | None
    rows: list[Compared]


def compare(
    index: Index,
    items: Sequence[QueryItem],
    methods: Sequence[Method],
    *,
    protocol: Protocol = "open",
    k: int = 10,
    depth: int = 100,
    candidates: Candidates = Candidates(),
    lexical: Method | None = None,
    seed: int = 0,
) -> Comparison:
    """Rank by each method, and measure.

    Args:
        index: the examples. items: with completion and gold; see `query_sets.load_query_set`.
        methods: what is compared; differences are to the first.
        protocol: "open" ranks every example to `depth`; "ftrace" the candidates of each query.
        k: the cut of success and recall. depth: a gold document below it counts as not found
            ("open"; "ftrace" ranks all candidates).
        candidates: of the protocol "ftrace". lexical: the method that gives its lexical
            distractors (BM25); None = there are none.
        seed: of the intervals, and of the order of equal scores.

    Raises:
        InputError: for no methods or one twice, a query without gold or completion, no query whose
            gold is in the index, or what a method refuses.
    """
    _check(items, methods, protocol, k, depth)
    kept, left_out, absent = _with_gold(index, items)
    gold = [item.gold for item in kept]
    some = None
    if protocol == "ftrace":
        some = candidate_sets(index, kept, candidates, lexical)
    rows: list[Compared] = []
    first: Array | None = None
    for method in methods:
        started = time.perf_counter()
        queries = [item.query() for item in kept]
        if some is None:
            ranked = rank_all(index, queries, method, depth, seed)
        else:
            ranked = rank_candidates(index, queries, method, some, seed)
        seconds = time.perf_counter() - started
        by_query = per_query(ranked, gold, k)
        difference = None
        if first is not None:
            estimates = [
                paired_difference(first[:, i], by_query[:, i], seed=seed)
                for i in range(len(METRICS))
            ]
            difference = dict(zip(METRICS, estimates, strict=True))
        first = by_query if first is None else first
        result = retrieval(ranked, gold, k=k, seed=seed)
        rows.append(
            Compared(method.name, method.title, _given(method), result, difference, seconds)
        )
    mean = None if some is None else float(np.mean([len(one) for one in some]))
    return Comparison(protocol, len(kept), left_out, absent, len(index), depth, k, mean, rows)


def checked_protocol(name: str) -> Protocol:
    """The protocol of this name; raises InputError when there is none."""
    if name in ("open", "ftrace"):
        return name
    raise InputError("There is no such protocol", expected=" or ".join(PROTOCOLS), found=name)


def per_query(
    ranked: Sequence[Sequence[str | None]], gold: Sequence[Sequence[str]], k: int
) -> Array:
    """MRR, success@k and recall@k of each query alone, float64 [queries, 3]."""
    alone = [
        retrieval([one], [right], k=k, resamples=1) for one, right in zip(ranked, gold, strict=True)
    ]
    return np.asarray([[one.mrr.value, one.success.value, one.recall.value] for one in alone])


def candidate_sets(
    index: Index,
    items: Sequence[QueryItem],
    candidates: Candidates = Candidates(),
    lexical: Method | None = None,
) -> list[Array]:
    """For each query the positions that are ranked, int64, ascending, none twice.

    All gold documents that the index holds, with the distractors of `Candidates`; what one source
    gives twice, or two give, counts once. A query's draws depend on the seed and its number. What
    `lexical` scores 0 is no lexical distractor, so there may be fewer of these.
    """
    from headwater.methods.scoring import top

    place = {name: position for position, name in enumerate(index.ids)}
    found = [[place[name] for name in item.gold if name in place] for item in items]
    holders = same_target(index, [item.completion or "" for item in items])
    best: list[list[int]] = [[] for _ in items]
    if lexical is not None and candidates.lexical:
        queries = [item.query() for item in items]
        found_by_words = top(index, queries, candidates.lexical, method=lexical)
        best = [
            [
                position
                for position, score in zip(one.positions, one.scores, strict=True)
                if score > 0
            ]
            for one in found_by_words
        ]
    sets: list[Array] = []
    for number, (right, holding, listed) in enumerate(zip(found, holders, best, strict=True)):
        generator = np.random.default_rng([candidates.seed, number])
        others = np.setdiff1d(holding, right)
        same = generator.permutation(others)[: candidates.same_target]
        count = min(candidates.random, len(index))
        drawn = generator.choice(len(index), size=count, replace=False)
        sets.append(np.unique(np.concatenate([right, same, drawn, listed]).astype(np.int64)))
    return sets


def same_target(index: Index, targets: Sequence[str]) -> list[Array]:
    """For each target the positions of the documents that hold its words, one after the other.

    Upper and lower case are one; punctuation and white space between words do not count. A target
    without a word is held by none, and a document of token ids holds none.
    """
    from headwater.corpus.document import plain_text

    wanted = {target: _words(target) for target in dict.fromkeys(targets)}
    by_first: dict[str, list[str]] = {}
    for target, words in wanted.items():
        if words:
            by_first.setdefault(words[0], []).append(target)
    found: dict[str, list[int]] = {target: [] for target in wanted}
    with Progress("reading examples", len(index), "examples") as progress:
        for position, document in enumerate(index.stream()):
            words = _words(plain_text(document))
            text = f" {' '.join(words)} "
            for word in by_first.keys() & set(words):
                for target in by_first[word]:
                    if f" {' '.join(wanted[target])} " in text:
                        found[target].append(position)
            progress.advance()
    return [np.asarray(found[target], dtype=np.int64) for target in targets]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def rank_all(
    index: Index, queries: Sequence[Query], method: Method, depth: int, seed: int = 0
) -> list[list[str | None]]:
    """The ids of the `depth` best documents for each query, best first; None = one that scores 0.

    Args:
        seed: of the order of equal scores.
    """
    from headwater.methods.scoring import Keeper

    drawn = lots(index.ids, seed)
    keepers = [Keeper(depth) for _ in queries]
    for first, block in method.stream(index, queries):
        part = slice(first, first + block.shape[1])
        for keeper, row in zip(keepers, block, strict=True):
            keeper.offer(-row, drawn[part], np.arange(first, part.stop))
    return [_named(index, keeper.positions, keeper.values) for keeper in keepers]


def lots(ids: Sequence[str], seed: int) -> Array:
    """What orders equal scores, the lowest first: a hash of each id and the seed, int64."""
    texts = (f"{seed}|{name}".encode("utf-8", "surrogatepass") for name in ids)
    drawn = (hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.asarray([int.from_bytes(one, "little", signed=True) for one in drawn], np.int64)


def _named(index: Index, positions: Array, scores: Array) -> list[str | None]:
    pairs = zip(positions.tolist(), scores.tolist(), strict=True)
    return [index.ids[position] if score != 0 else None for position, score in pairs]


def rank_candidates(
    index: Index,
    queries: Sequence[Query],
    method: Method,
    candidates: Sequence[Array],
    seed: int = 0,
) -> list[list[str | None]]:
    """The ids of each query's candidates, best first; None = one that scores 0.

    The method runs once, on the documents that are any query's candidate; a document that it has no
    score for (NaN) is not ranked.

    Args:
        candidates: positions for each query, int64, ascending. seed: of the order of equal scores.
    """
    among = np.zeros(len(index), dtype=bool)
    for positions in candidates:
        among[positions] = True
    scores = [np.full(len(positions), np.nan, dtype=np.float64) for positions in candidates]
    for first, block in method.stream(index, queries, None, among):
        ends = (first, first + block.shape[1])
        for row, positions, own in zip(block, candidates, scores, strict=True):
            low, high = np.searchsorted(positions, ends)
            own[low:high] = row[positions[low:high] - first]
    drawn = lots(index.ids, seed)
    ranked: list[list[str | None]] = []
    for positions, own in zip(candidates, scores, strict=True):
        there = ~np.isnan(own)
        positions, own = positions[there], own[there]
        order = np.lexsort((drawn[positions], -own))
        ranked.append(_named(index, positions[order], own[order]))
    return ranked


def _with_gold(index: Index, items: Sequence[QueryItem]) -> tuple[list[QueryItem], int, int]:
    """Queries with the gold that the index holds; how many have none, how many gold are absent."""
    there = set(index.ids)
    kept: list[QueryItem] = []
    absent = 0
    for item in items:
        gold = tuple(name for name in item.gold if name in there)
        if gold:
            absent += len(item.gold) - len(gold)
            kept.append(replace(item, gold=gold))
    if not kept:
        raise InputError(
            "No gold document of any query is in the index",
            expected=f"ids such as {index.ids[0]}",
            found=", ".join(items[0].gold[:3]),
        )
    return kept, len(items) - len(kept), absent


def _given(method: Method) -> str:
    held_out = getattr(method, "eval_queries", None)
    return method.needs + ("; held-out queries of the same template" if held_out else "")


def _check(
    items: Sequence[QueryItem], methods: Sequence[Method], protocol: str, k: int, depth: int
) -> None:
    checked_protocol(protocol)
    if not items:
        raise InputError("There is no query", expected="at least one")
    if not methods:
        raise InputError("There is no method to evaluate", expected="at least one")
    described = [json.dumps(one.describe(), sort_keys=True, default=str) for one in methods]
    twice = [one.title for n, one in enumerate(methods) if described[n] in described[:n]]
    if twice:
        raise InputError("A method is there more than once", found=", ".join(twice))
    if k < 1 or (protocol == "open" and k > depth):
        raise InputError("k is not usable", expected=f"from 1 to the depth, {depth}", found=k)
    for item in items:
        if item.completion is None or not item.gold:
            raise InputError(
                f"The query {item.id} cannot be evaluated",
                expected="a completion, and gold: the ids of the documents that state it",
                found="no completion" if item.completion is None else "no gold",
            )
