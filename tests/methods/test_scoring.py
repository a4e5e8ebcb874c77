"""Top-k, groups, ids and ranks: the same as sorting everything, and refused where meaningless."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.engine.errors import HeadwaterError, InputError
from headwater.evidence.rankers import METHODS, method_by_name
from headwater.methods.method import choose_blocks
from headwater.methods.scoring import Keeper
from headwater.methods.trackstar import crossing
from headwater.methods.view import View
from models import SENTENCES, Mlp, byte_tokenizer, class_loss, class_margin, tiny_llama


@cache
def index(output: str = "loss", projection: Any = None) -> hw.Index:
    """40 examples of 5 classes in 4 groups; some of them twice, so that scores tie."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    y = rng.integers(0, 5, 40)
    x[30:], y[30:] = x[:10], y[:10]
    names = rng.permutation(40)
    corpus = hw.Corpus.from_columns(
        {"x": x, "y": y},
        ids=[f"n{i:02d}" for i in names],
        metadata={
            "group": [f"g{i % 4}" for i in range(40)],
            "odd": [bool(i % 2) for i in range(40)],
        },
    )
    task = hw.Task(Mlp(), class_loss, margin=class_margin)
    features = hw.Features(projection=projection, output=output, storage="float32")  # type: ignore[arg-type]
    return hw.Index.build(None, task, corpus, features, hw.Plan(shard_rows=7))


def query(seed: int = 0, label: int = 1) -> hw.Query:
    x = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    return hw.Query(columns={"x": x, "y": np.int64(label)})


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(
        st.sampled_from([-1.5, -1.0, 0.0, -0.0, 0.5, 2.0, 3.0]), min_size=1, max_size=60
    ),
    k=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    seed=st.integers(0, 1000),
)
def test_keeping_by_blocks_is_sorting_everything(
    values: list[float], k: int, cuts: list[int], seed: int
) -> None:
    scores = np.array(values, dtype=np.float32)
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    names = [f"id{i}" if i % 2 else f"{i:04d}" for i in shuffled]
    places = np.argsort(np.argsort(names))
    keeper = Keeper(k)
    edges = sorted({0, len(scores), *[min(c, len(scores)) for c in cuts]})
    for start, end in pairwise(edges):
        keeper.offer(scores[start:end], places[start:end], np.arange(start, end))
    right = sorted(range(len(scores)), key=lambda i: (float(scores[i]), names[i]))[:k]
    assert keeper.positions.tolist() == right
    assert keeper.places.tolist() == places[right].tolist()
    assert keeper.values.tolist() == scores[right].tolist()


def expected_top(row: np.ndarray, ids: list[str], k: int, allowed: Any = None) -> tuple[Any, Any]:
    places = [i for i in range(len(ids)) if allowed is None or allowed(i)]
    best = sorted(places, key=lambda i: (-row[i], ids[i]))[:k]
    worst = sorted(places, key=lambda i: (row[i], ids[i]))[:k]
    return best, worst


@pytest.mark.parametrize("k", [1, 3, 7, 100])
@pytest.mark.parametrize("method", [hw.GradDot(), hw.TrackStar(), hw.LRelatIF()])
def test_top_is_a_full_sort_with_ties_by_id(method: Any, k: int) -> None:
    queries = [query(0), query(1, 2)]
    rows = hw.scores(index(), queries, method=method)
    assert len(np.unique(rows[0])) < 40  # copies tie
    for row, top in zip(rows, hw.top(index(), queries, k, method=method), strict=True):
        best, worst = expected_top(row, index().ids, k)
        assert top.positions == best
        assert top.ids == [index().ids[i] for i in best]
        assert top.scores == row[best].tolist()
        assert top.opponent_positions == worst
        assert top.opponent_ids == [index().ids[i] for i in worst]
        assert top.opponent_scores == row[worst].tolist()


def test_top_of_some_ids_and_groups() -> None:
    row = hw.scores(index(), query(), method=hw.GradDot())[0]
    ids = index().ids
    wanted = {"n03", "n11", "n25", "n30"}
    (top,) = hw.top(index(), query(), 3, method=hw.GradDot(), ids=wanted)
    assert top.positions == expected_top(row, ids, 3, lambda i: ids[i] in wanted)[0]
    (top,) = hw.top(index(), query(), 6, method=hw.GradDot(), groups=("group", ["g1", "g2"]))
    assert top.positions == expected_top(row, ids, 6, lambda i: i % 4 in (1, 2))[0]
    (top,) = hw.top(index(), query(), 40, method=hw.GradDot(), groups=("odd", [True]), ids=wanted)
    assert top.positions == expected_top(row, ids, 40, lambda i: ids[i] in wanted and i % 2)[0]


def test_scores_and_ranks_of_some() -> None:
    whole = hw.scores(index(), query(), method=hw.TrackStar())[0]
    chosen = {"ids": ["n03", "n11", "n25"], "method": hw.TrackStar()}
    row = hw.scores(index(), query(), **chosen)[0]
    there = [i for i, name in enumerate(index().ids) if name in chosen["ids"]]
    assert np.flatnonzero(np.isfinite(row)).tolist() == there
    assert (row[there] == whole[there]).all()
    best = sorted(there, key=lambda i: -whole[i])
    ranked = hw.rank(index(), query(), **chosen)
    assert [r.name for r in ranked] == [index().ids[i] for i in best]
    texts = hw.scores(index(), query(), groups=("odd", ["True"]))[0]  # as a command line has it
    assert np.isfinite(texts).tolist() == [bool(i % 2) for i in range(40)]
    one = hw.rank(index(), query(), by="group", groups=("group", "g1"))
    assert [(r.name, r.examples) for r in one] == [("g1", 10)]


def test_self_influence_of_some_modules() -> None:
    kinds = hw.GradDot(), hw.LoGra(), hw.LRelatIF()
    first, last = (["layers.0.*"], ["layers.2.*"])
    for method in kinds[:2]:  # sums over blocks
        parts = [hw.self_influence(index(), method=method, modules=m) for m in (first, last)]
        whole = hw.self_influence(index(), method=method)
        np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-4)
    own = hw.self_influence(index(), method=kinds[2], modules=first)
    np.testing.assert_allclose(
        own**2, hw.self_influence(index(), method=kinds[1], modules=first), rtol=1e-4
    )


def test_rank_of_examples() -> None:
    ranked = hw.rank(index(), query(), method=hw.TrackStar(), keep=0.3)
    row = hw.scores(index(), query(), method=hw.TrackStar())[0]
    best, _ = expected_top(row, index().ids, 40)
    assert [r.name for r in ranked] == [index().ids[i] for i in best]
    assert [r.keep for r in ranked] == [True] * 12 + [False] * 28
    assert all(r.keep for r in hw.rank(index(), query()))


@pytest.mark.parametrize("method", [None, hw.GradDot(), hw.LoGra()])
def test_rank_of_groups_is_by_sums(method: Any) -> None:
    queries = [query(0), query(1, 2)]
    ranked = hw.rank(index(), queries, by="group", method=method, keep=0.5)
    row = hw.scores(index(), hw.Query.mean(queries), method=method or hw.LoGra())[0]
    sums = {f"g{g}": float(row[g::4].astype(np.float64).sum()) for g in range(4)}
    assert [r.name for r in ranked] == sorted(sums, key=lambda g: -sums[g])
    assert [r.score for r in ranked] == pytest.approx(sorted(sums.values(), reverse=True))
    assert [r.examples for r in ranked] == [10] * 4
    assert [r.keep for r in ranked] == [True, True, False, False]


def test_additive_scores_of_a_mean_are_the_mean_of_scores() -> None:
    one, other = query(0), query(1, 2)
    rows = hw.scores(index(), [one, other, hw.Query.mean([one, other])], method=hw.LoGra())
    np.testing.assert_allclose(rows[2], rows[:2].mean(axis=0), rtol=1e-4, atol=1e-6)


VIEWS = [
    name for name, method in METHODS.items() if issubclass(method, View) or not method.influence
]


@pytest.mark.parametrize("name", VIEWS)
def test_additive_methods_and_only_those_rank_groups(name: str) -> None:
    method = method_by_name(name)
    assert method.name == name
    assert method.describe()["method"] == name
    turned = hw.TopEigenvectors(2, 2, "empirical") if name == "ekfac-view" else None
    built = index("margin" if name == "trak" else "loss", turned)
    if method.additive:
        assert len(hw.rank(built, query(), by="group", method=method)) == 4
    else:
        with pytest.raises(InputError, match="may not be summed"):
            hw.rank(built, query(), by="group", method=method)


# -- TrackStar's mixing ---------------------------------------------------------------------


def test_crossing_by_hand() -> None:
    # 131,072 dimensions: k = 2000; of the sorted spectra the 2,000th counts
    train, held = np.full(3000, 9.0), np.full(2500, 5.0)
    train[1999], held[1999] = 6.0, 2.0
    assert crossing(train, held, 131072) == 6 / (2 + 6)
    # 64 dimensions: k = round(0.98) = 1
    assert crossing(np.array([8.0, 1.0]), np.array([2.0, 1.0]), 64) == 8 / 10
    # fewer dimensions still: the first
    assert crossing(np.array([3.0]), np.array([1.0]), 1) == 3 / 4
    # R_eval of rank 2: k = 3 is capped by it
    assert crossing(np.array([9.0, 6.0, 1.0]), np.array([4.0, 2.0]), 196608) == 6 / 8
    # at that lambda both scaled spectra meet
    share = crossing(np.array([8.0]), np.array([2.0]), 64)
    assert share * 2.0 == pytest.approx((1 - share) * 8.0)


def test_too_few_evaluation_queries_fall_back_and_say_so() -> None:
    few = [query(s) for s in range(7)]
    method = hw.TrackStar(few)
    notes = method.prepare(index()).notes
    assert any("too few" in note for note in notes)
    plain = hw.scores(index(), query(50), method=hw.TrackStar())
    assert np.array_equal(hw.scores(index(), query(50), method=method), plain)
    enough = hw.TrackStar([query(s) for s in range(8)])
    assert any("lambda" in note for note in enough.prepare(index()).notes)
    assert not np.allclose(hw.scores(index(), query(50), method=enough), plain)
    forced = hw.TrackStar(few, mixing=0.9)
    assert not np.allclose(hw.scores(index(), query(50), method=forced), plain)
    assert forced.describe()["mixing"] == 0.9
    assert forced.describe()["eval_queries"] == 7


# -- what is refused ------------------------------------------------------------------------


def test_module_patterns() -> None:
    blocks = index().blocks
    names = [b.name for b in blocks]
    assert names == ["layers.0.weight", "layers.2.weight"]
    assert choose_blocks(blocks, None) == [0, 1]
    assert choose_blocks(blocks, ["*.2.*"]) == [1]
    assert choose_blocks(blocks, "*.2.*") == [1]  # a single pattern is not its letters


REFUSED: dict[str, tuple[Any, str]] = {
    "no such method": (lambda: method_by_name("influence"), "no such method"),
    "no such option": (lambda: method_by_name("gradcos", damping=0.1), "found damping"),
    "k of zero": (lambda: hw.top(index(), query(), 0), "k must be positive"),
    "no query": (lambda: hw.scores(index(), []), "no query"),
    "no module": (lambda: hw.scores(index(), query(), modules=["*attn*"]), "No module"),
    "no such id": (lambda: hw.top(index(), query(), ids=["nobody"]), "not in the index"),
    "no id": (lambda: hw.top(index(), query(), ids=[]), "No example"),
    "no group": (lambda: hw.top(index(), query(), groups=("group", ["g9"])), "No example"),
    "no column": (lambda: hw.rank(index(), query(), by="source"), "no metadata column"),
    "keep of nothing": (lambda: hw.rank(index(), query(), keep=0.0), "keep is a share"),
    "keep of too much": (lambda: hw.rank(index(), query(), keep=1.5), "keep is a share"),
    "loss features for TRAK": (
        lambda: hw.scores(index(), query(), method=hw.TRAK()),
        "needs margin features",
    ),
    "mixing beyond one": (lambda: hw.TrackStar(mixing=1.2), "mixing"),
    "mixing not a number": (lambda: hw.TrackStar(mixing=math.nan), "mixing"),
    "singular without damping": (
        lambda: hw.scores(index(), query(), method=hw.LoGra(damping=0.0)),
        "singular",
    ),
    "text for a task of columns": (
        lambda: hw.scores(index(), hw.Query("The", " cat")),
        "queries by columns",
    ),
    "a column missing": (
        lambda: hw.scores(index(), hw.Query(columns={"x": np.zeros(6, np.float32)})),
        "asks for a column that is not there; expected y; found x",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, match = REFUSED[name]
    with pytest.raises(HeadwaterError) as error:
        make()
    assert match in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_norms_are_measured_again(tmp_path: Path) -> None:
    corpus = hw.Corpus.from_columns({"text": SENTENCES})
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=64)
    index = hw.Index.build(tmp_path / "index", task, corpus)
    query = hw.Query("The capital of Peru", " is Lima")
    before = hw.scores(index, query)
    for path in (index.path / "views").iterdir():
        path.write_bytes(b"not norms")
    assert (hw.scores(index, query) == before).all()


def test_ties_by_id_take_no_room_for_long_ids() -> None:
    """An array of texts would be as wide as the longest id, for every example."""
    import tracemalloc

    ids = [f"n{i}" for i in range(2000)] + ["m" * 20_000]
    x, y = np.ones((len(ids), 6), dtype=np.float32), np.ones(len(ids), dtype=np.int64)
    made = hw.Corpus.from_columns({"x": x, "y": y}, ids=ids)
    task = hw.Task(Mlp(), class_loss)
    long = hw.Index.build(None, task, made, hw.Features(projection=None, storage="float32"))
    assert long.ids[-1] == ids[-1]
    tracemalloc.start()
    (top,) = hw.top(long, query(), 3, method=hw.GradDot())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert top.ids == sorted(ids)[:3]  # all are equal
    assert peak < 30e6, peak  # 160 MB as an array
