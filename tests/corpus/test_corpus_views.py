"""Selections, samples, counts and the description of a corpus."""

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.corpus import Corpus
from headwater.engine.errors import InputError


def corpus(n: int, start: int = 0) -> Corpus:
    return Corpus.from_documents(
        [{"text": f"t{i}", "id": f"d{i}", "even": i % 2 == 0} for i in range(start, n)]
    )


def ids(view) -> list[str]:
    return [d.id for d in (view.documents() if isinstance(view, Corpus) else view)]


def test_selections_meet_every_condition():
    whole = corpus(10)
    even = whole.select(where=lambda d: d.metadata["even"])
    assert ids(even) == ["d0", "d2", "d4", "d6", "d8"]
    assert ids(even.select(without={"d2"}, ids=["d8", "d2", "d3", "d0", "none"])) == ["d0", "d8"]
    assert ids(whole.select(ids=set())) == []
    assert len(ids(whole)) == 10
    assert (even.count(), even.count(), whole.count()) == (5, 5, 10)
    with pytest.raises(InputError, match="expected a set of ids"):
        whole.select(ids="d1")


def test_selections_keep_content_ids():
    rows = Corpus.from_documents([{"text": "a", "n": n} for n in range(3)])
    last = ids(rows)[2]
    assert ids(rows.select(where=lambda d: d.metadata["n"] == 2)) == [last]


def test_a_selection_reports_its_own_bad_rows():
    whole = Corpus.from_documents([{"text": "a"}, {"text": 1}], skip_bad=True)
    view = whole.select(ids=[])
    assert (ids(view), len(view.bad), whole.bad) == ([], 1, [])


def test_count_reads_once(monkeypatch):
    whole = corpus(4)
    assert whole.count() == 4
    monkeypatch.setattr(whole, "documents", None)
    assert whole.count() == 4


@given(st.integers(0, 30), st.integers(0, 35), st.integers(0, 5))
def test_a_sample_is_small_ordered_and_repeatable(size, n, seed):
    if size == 0:
        return
    whole = corpus(size)
    sample = ids(whole.sample(n, seed))
    order = ids(whole)
    assert sample == [one for one in order if one in set(sample)]
    assert len(sample) == len(set(sample)) == min(n, size)
    assert sample == ids(whole.sample(n, seed))
    keys = {one: hashlib.sha256(f"{seed}:{one}".encode()).hexdigest() for one in order}
    assert set(sample) == set(sorted(order, key=keys.__getitem__)[:n])
    grown = ids(corpus(size + 3).sample(n, seed))
    assert {one for one in grown if one in set(order)} <= set(sample)


def test_samples_depend_on_the_seed_and_are_even():
    whole = corpus(400)
    drawn = [ids(whole.sample(40, seed)) for seed in range(20)]
    assert len({tuple(one) for one in drawn}) == 20
    middle = sum(int(one[1:]) for sample in drawn for one in sample) / 800
    assert 180 < middle < 220
    with pytest.raises(InputError, match="n >= 0"):
        whole.sample(-1, 0)


def test_description(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x"}\n')
    view = Corpus.open(path, columns={"text": "body"}).select(ids=["b", "a"], without={"c"})
    described = json.loads(json.dumps(view.describe()))
    assert described["kind"] == "text"
    assert described["columns"] == {"text": "body"}
    assert described["sources"] == [
        {"name": str(path), "size": 14, "mtime": path.stat().st_mtime},
    ]
    assert described["selections"][0]["ids"]["count"] == 2
    again = Corpus.open(path, columns={"text": "body"}).select(ids=("a", "b"))
    assert again.describe()["selections"][0] == described["selections"][0]
    many = [f"d{n}" for n in range(500)]
    told = [Corpus.open(path, columns={"text": "body"}).select(ids=m) for m in (many, many[::-1])]
    assert told[0].describe() == told[1].describe()
    other = again.select(ids=("a", "c")).describe()["selections"]
    assert other[0] != other[1]
    assert repr(view).startswith("Corpus('")


def test_importing_is_light():
    code = (
        "import sys, headwater.corpus;"
        "print([m for m in ('torch', 'pyarrow', 'fsspec', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
