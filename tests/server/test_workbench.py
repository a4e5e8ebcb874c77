"""Names, one model in memory, consent, and what is worked out once."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.engine.errors import InputError
from headwater.engine.kept import Kept
from headwater.evidence.rankers import method_by_name
from headwater.index import model as loading
from headwater.server import served
from headwater.server.asking import KINDS
from headwater.server.jobs import Jobs, Missing
from headwater.server.named import named
from headwater.server.schemas import OfIndex
from headwater.server.served import Served
from headwater.server.streams import ended
from headwater.server.workbench import Opening, Workbench

QUERY = hw.Query("The capital of Peru is", " Lima")


@pytest.fixture
def own(places: dict[str, Path]) -> Workbench:
    """A workbench of this test's own."""
    return Workbench(list(places.values()))


def test_names_are_told_apart_and_are_no_paths(places: dict[str, Path], own: Workbench) -> None:
    assert list(own.paths) == ["one", "same", "other", "texts"]
    for name in ("", "two", "../one", str(places["one"]), "one/"):
        with pytest.raises(Missing, match="no such index here; expected one, same"):
            own.path(name)
    many = [Path("/a/x/index"), Path("/b/x/index"), Path("/b/y")]
    assert list(named(many)) == ["a-x-index", "b-x-index", "y"]
    with pytest.raises(InputError, match="given twice"):
        named([places["one"], places["one"] / "." / ""])
    with pytest.raises(InputError, match="no index to serve"):
        Workbench([])


def test_a_reader_never_loads_a_model(own: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_task", lambda *_, **__: pytest.fail("a model was loaded"))
    index = own.index("one")
    assert len(index.documents([0])) == 1
    with pytest.raises(InputError, match="without its model"):
        _ = index.task
    assert own.index("one") is index
    with own.working("model"):
        assert own.index("one") is not index


def test_one_model_is_in_memory_and_the_same_model_is_shared(own: Workbench) -> None:
    with own.working("model"):
        assert own.model("one")[0] == "known"
        first = own.index("one").task
        assert own.model("one")[0] == "ready"
        assert own.index("same").task is first  # two indexes, one model
        other = own.index("other")
        other_task = other.task
        assert other_task is not first
        assert own.index("one").loaded is None
        assert own.index("same").loaded is None
        assert [own.model(name)[0] for name in ("one", "same", "other")] == [
            "known",
            "known",
            "ready",
        ]
        _ = other.gradients
        assert own.index("one").task is not None  # it comes again
        assert other.loaded is None


def test_a_model_that_loads_when_its_work_is_cancelled_is_kept(
    own: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, loads = threading.Event(), threading.Event(), list[str]()
    load_now = own._load_now

    def slowly(index: Served) -> Any:
        loads.append(index.path.name)
        begun.set()
        assert go.wait(30)
        return load_now(index)

    monkeypatch.setattr(own, "_load_now", slowly)
    jobs = Jobs(own, warm=False)
    try:
        asked = OfIndex(index="one")
        first = jobs.submit("load", asked, KINDS)
        assert begun.wait(30)
        jobs.cancel(first)
        assert first.state == "cancelled"  # at once, though the model goes on loading
        second = jobs.submit("load", asked, KINDS)
        assert second.state == "queued"
        go.set()
        assert asyncio.run(ended(jobs, second, 60))
        assert (second.state, first.state) == ("done", "cancelled")
        assert loads == ["one"]  # it was loaded once
    finally:
        go.set()
        jobs.close()


def test_a_model_that_somebody_else_names_waits_for_a_yes(
    own: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = os.getuid() + 1
    monkeypatch.setattr(served.os, "getuid", lambda: someone)
    state, name, note = own.model("one")
    assert (state, name is not None) == ("ask", True)
    assert note is not None
    assert "Another user" in note
    with own.working("model"):
        with pytest.raises(InputError, match=r"not loaded: Another user.*[Aa]llow it"):
            _ = own.index("one").task
        own.trust("one")
        assert own.model("one")[0] == "known"
        assert own.model("same")[0] == "ask"  # a yes is to one index
        assert own.index("one").task is not None
        with pytest.raises(InputError, match="not loaded"):
            _ = own.index("other").task
    trusting = Workbench([own.paths["one"]], Opening(trust_model=True))
    assert trusting.model("one")[0] == "known"
    elsewhere = Workbench([own.paths["one"]], Opening(model="/somewhere"))
    assert elsewhere.model("one")[0] == "none"  # named by who started the server, but not there


def test_what_keeps_a_model_away_is_told(own: Workbench, tmp_path: Path) -> None:
    assert own.model("texts") == (
        "none",
        None,
        "The index was made of texts alone: it has no model.",
    )
    moved = Path(shutil.copytree(own.paths["one"], tmp_path / "moved"))
    told = (moved / "manifest.json").read_text().replace("model-0", "model-gone")
    (moved / "manifest.json").write_text(told)
    state, _, note = Workbench([moved]).model("moved")
    assert state == "none"
    assert note is not None
    assert "--model" in note
    found = Workbench([moved], Opening(model=str(own.paths["one"].parent / "model-0")))
    assert found.model("moved")[0] == "known"
    with found.working("model"):
        assert found.index("moved").task is not None


def test_scores_are_those_of_the_library_and_are_worked_out_once(
    own: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own.working("model"):
        index = own.index("one")
        for name in ("trackstar", "graddot", "bm25"):
            found = own.scores("one", QUERY, name)
            right = hw.scores(index, QUERY, method=method_by_name(name))[0]
            assert np.array_equal(found, right, equal_nan=True)
            assert found.dtype == np.float32
            assert not found.flags.writeable
            assert own.scores("one", QUERY, name) is found
        some = own.scores("one", QUERY, "graddot", {"where": ("source", ["Peru"])})
        assert np.isfinite(some).sum() == 3
        verbatim = own.scores("one", QUERY, "verbatim")
        assert verbatim.shape == (len(index),)
        assert verbatim.max() > 0
        chosen = hw.Query(QUERY.prompt, " Lima.", words=(0, 5))
        assert own.score_key("one", chosen) != own.score_key(
            "one", hw.Query(QUERY.prompt, " Lima.")
        )


def test_scores_can_be_had_again_by_their_key(own: Workbench) -> None:
    key = own.score_key("one", QUERY, "bm25", {"where": ("source", ["Peru"])})
    first = own.scores(**own.scores_request(key))
    own._scores = Kept(1)  # as if others had pushed it out
    again = own.scores(**own.scores_request(key))
    assert again is not first
    assert np.array_equal(first, again, equal_nan=True)
    with pytest.raises(Missing, match="not known any more"):
        own.scores_request("no such key")


def test_an_answer_is_kept_no_longer_than_its_scores_can_be_had(own: Workbench) -> None:
    asked, made = OfIndex(index="one"), list[int]()

    def work(_: Any) -> dict[str, Any]:
        made.append(1)
        return {"scores": own.score_key("one", QUERY, "bm25")}

    def tell(event: str, data: dict[str, Any]) -> None: ...

    run = own.once("ask", asked, work)
    assert run(tell) == run(tell)
    assert len(made) == 1
    own._requests = Kept(1)  # as if others had pushed it out
    assert own.known("ask", asked) is None
    run(tell)
    assert len(made) == 2


def test_what_is_open_reads_on_when_its_folder_is_moved(
    places: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(places["texts"], tmp_path / "copy"))
    bench = Workbench([copy])
    before, told = bench.index("copy"), bench.manifest("copy")
    copy.rename(tmp_path / "elsewhere")
    assert bench.index("copy") is before
    assert bench.manifest("copy") is told


def test_an_index_that_grew_is_opened_anew(places: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(places["texts"], tmp_path / "copy"))
    bench = Workbench([copy])
    before = bench.index("copy")
    key = bench.score_key("copy", QUERY, "bm25")
    hw.Index.open(copy).append(hw.Corpus.from_documents([{"id": "new", "text": "Lima again."}]))
    after = bench.index("copy")
    assert after is not before
    assert len(after) == len(before) + 1
    assert bench.score_key("copy", QUERY, "bm25") != key


def test_what_is_kept_has_a_limit_and_the_oldest_goes_first() -> None:
    kept: Kept[str] = Kept(5, len)
    for value in ("ab", "c", "de"):
        kept.put(value, value)
    assert kept.get("ab") == "ab"  # now it is the newest
    kept.put("f", "f")
    assert [kept.get(one) for one in ("ab", "c", "de", "f")] == ["ab", None, "de", "f"]
    kept.put("large", "x" * 6)
    assert kept.get("large") is None
    kept.put("ab", "a")
    assert (kept.get("ab"), kept.held, len(kept)) == ("a", 4, 3)


def test_threads_that_get_ready_open_what_lies_ready(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Workbench([places["texts"]])
    built: list[Any] = []
    monkeypatch.setattr("headwater.evidence.verbatim._build", lambda *a: built.append(a))
    steps = sum(1 for _ in bench.warming("reader"))
    assert steps >= 2
    assert not built or (places["texts"] / "verbatim").is_dir()
