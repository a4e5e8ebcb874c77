"""Building: the same bytes whoever builds and however often, and one line for what does not fit."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import (
    FULL,
    Given,
    build_given,
    given_corpus,
    given_index,
    given_loss,
    process,
    times,
    tree,
    vectors,
)

import headwater as hw
from headwater.engine.errors import BusyError, InputError, MismatchError, ResourceError
from headwater.engine.files import locked
from headwater.gradients.compute import Gradients
from headwater.index.manifest import read_manifest

FEATURES = hw.Features(projection=None)


def build(folder: Path, n: int = 20, **plan: Any) -> hw.Index:
    options = {"shard_rows": 4} | plan
    return hw.Index.build(folder, Given(), given_corpus(vectors(n)), FEATURES, hw.Plan(**options))


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    first = tree(tmp_path / "a")
    assert first == tree(tmp_path / "b")
    kinds = {name.split("/")[0] for name in first}
    assert kinds == {".setup.lock", "manifest.json", "corpus", "features", "statistics", "done"}


def test_building_again_changes_nothing(tmp_path: Path) -> None:
    build(tmp_path / "a")
    before = times(tmp_path / "a")
    index = build(tmp_path / "a")
    assert times(tmp_path / "a") == before
    assert len(index) == 20


def test_no_path_is_a_folder_that_goes_with_the_index() -> None:
    index = given_index(None, vectors(5))
    folder = index.path
    assert folder.is_dir()
    del index
    assert not folder.exists()


def test_workers_in_turn_make_what_one_makes(tmp_path: Path) -> None:
    build(tmp_path / "one")
    for number in (2, 0, 1):
        index = build(tmp_path / "three", worker=(number, 3))
    assert tree(tmp_path / "three") == tree(tmp_path / "one")
    assert len(list(index.shards())) == 5


def test_workers_at_once_make_what_one_makes(tmp_path: Path) -> None:
    started = [
        process(build_given, str(tmp_path / "three"), 20, 4, (number, 3)) for number in range(3)
    ]
    for one in started:
        one.join()
    assert [one.exitcode for one in started] == [0, 0, 0]
    build(tmp_path / "one")
    assert tree(tmp_path / "three") == tree(tmp_path / "one")


def test_a_worker_s_index_waits_for_the_others(tmp_path: Path) -> None:
    """What one worker leaves is not an index yet: it says so, and is one when the rest is there."""
    first = build(tmp_path / "a", worker=(0, 2))
    query = hw.Query(columns=given_corpus_row())
    with pytest.raises(InputError, match=r"not finished.*5 shards.*3 done"):
        hw.scores(first, query, method=hw.GradDot())
    build(tmp_path / "a", worker=(1, 2))
    assert np.abs(hw.scores(first, query, method=hw.GradDot())).min() > 0


def given_corpus_row() -> dict[str, Any]:
    return next(iter(given_corpus(vectors(1, seed=5)).documents())).content


def test_there_is_no_such_worker(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such worker.*0 to 2.*3"):
        build(tmp_path / "a", worker=(3, 3))


@pytest.mark.parametrize(
    ("lock", "named"), [(".setup.lock", "index at"), ("done/.00001.lock", "Shard 00001")]
)
def test_two_writers_at_once_are_kept_apart(tmp_path: Path, lock: str, named: str) -> None:
    if lock.startswith("done"):
        build(tmp_path / "b")  # the folder must hold an index for the shard to matter
        _take(tmp_path / "b", tmp_path / "a")
    with (
        locked(tmp_path / "a" / lock, "other"),
        pytest.raises(BusyError, match=f"{named}.*another process"),
    ):
        build(tmp_path / "a")
    build(tmp_path / "a")
    build(tmp_path / "c")
    assert tree(tmp_path / "a") == tree(tmp_path / "c")


def _take(source: Path, folder: Path) -> None:
    """An index whose calibration is frozen and whose shards are all to be done."""
    for name, data in tree(source).items():
        if name.split("/")[0] in ("corpus", "manifest.json") or "calibration" in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"complete": False, "shards": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))


# -- what does not fit ---------------------------------------------------------------------------


def half_built(folder: Path) -> dict[str, bytes]:
    """Two of five shards are done."""

    class Enough(Exception):
        pass

    made = 0
    original = Gradients.stream

    def stream(self: Any, *args: Any) -> Any:
        nonlocal made
        made += (folder / "manifest.json").exists()
        if made > 2:
            raise Enough
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gradients, "stream", stream)
        with pytest.raises(Enough):
            build(folder)
    assert len(list((folder / "done").glob("*.json"))) == 2
    return tree(folder)


def test_a_half_built_index_says_how_far_it_is(tmp_path: Path) -> None:
    half_built(tmp_path / "a")
    with pytest.raises(InputError, match=r"not finished.*expected 5 shards.*found 2 done"):
        hw.Index.open(tmp_path / "a")
    assert len(build(tmp_path / "a")) == 20


class OtherLoss(Given):
    kind = "other"


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("model", {"task": Given(seed=1)}),
        ("kind", {"task": OtherLoss()}),
        ("storage", {"features": hw.Features(projection=None, storage="float16")}),
        ("projection", {"features": hw.Features(projection=hw.TwoSided(2, 2))}),
        ("output", {"features": hw.Features(projection=None, output="margin")}),
        ("seed", {"features": hw.Features(projection=None, seed=1)}),
        ("second_moment", {"features": hw.Features(projection=None, second_moment="estimate")}),
        ("corpus", {"corpus": given_corpus(vectors(20, seed=1))}),
        ("corpus", {"corpus": given_corpus(vectors(21))}),
        ("corpus", {"corpus": given_corpus(vectors(20), "f")}),
    ],
)
def test_going_on_with_something_else_is_refused(
    tmp_path: Path, field: str, other: dict[str, Any]
) -> None:
    folder = tmp_path / "a"
    before = half_built(folder)
    same = {"task": Given(), "corpus": given_corpus(vectors(20)), "features": FEATURES}
    with pytest.raises(MismatchError, match=field):
        hw.Index.build(folder, **(same | other))
    assert tree(folder) == before
    build(folder)
    build(tmp_path / "whole")
    assert tree(folder) == tree(tmp_path / "whole")


def test_another_module_filter_is_refused(tmp_path: Path) -> None:
    corpus = given_corpus(vectors(8))

    def first(name: str, module: Any) -> bool:
        return name.endswith("0")

    def second(name: str, module: Any) -> bool:
        return name.endswith("1")

    one = hw.Features(projection=None, parameters=first)
    hw.Index.build(tmp_path / "a", Given(), corpus, one)
    other = hw.Features(projection=None, parameters=second)
    with pytest.raises(MismatchError, match=r"parameters.*with part\.0\.weight"):
        hw.Index.build(tmp_path / "a", Given(), corpus, other)
    assert len(hw.Index.build(tmp_path / "a", Given(), corpus, one)) == 8


def test_an_index_stopped_before_its_manifest_is_of_its_task(tmp_path: Path) -> None:
    """Chunks that one task has cut are not given to another."""

    class Enough(Exception):
        pass

    def stop(*args: Any, **_: Any) -> None:
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headwater.index.build.calibrate", stop)
        with pytest.raises(Enough):
            build(tmp_path / "a")
    corpus = given_corpus(vectors(20))
    with pytest.raises(MismatchError, match=r"task.*'model'"):
        hw.Index.build(tmp_path / "a", Given(seed=1), corpus, FEATURES)
    with pytest.raises(MismatchError, match="another corpus"):
        hw.Index.build(tmp_path / "a", Given(), given_corpus(vectors(20, seed=1)), FEATURES)
    build(tmp_path / "a", shard_rows=5)  # nothing has been paid for that depends on it
    build(tmp_path / "b", shard_rows=5)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(InputError, match="neither empty nor an index"):
        build(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"
    with pytest.raises(InputError, match=r"thesis\.tex.*cannot be written"):
        build(tmp_path / "thesis.tex")


def test_an_index_opened_with_another_task_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "a")
    with pytest.raises(MismatchError, match=r"task.*'model'"):
        hw.Index.open(tmp_path / "a", Given(seed=1))
    with pytest.raises(InputError, match="does not say where its model is"):
        _ = hw.Index.open(tmp_path / "a").task


# -- what runs out -------------------------------------------------------------------------------


def test_a_full_disk_stops_cleanly_and_the_build_goes_on(tmp_path: Path) -> None:
    """There is room for a few more writes at each start, and in the end for all of them."""
    build(tmp_path / "whole", n=8)
    whole = tree(tmp_path / "whole")
    folder, original = tmp_path / "a", os.fsync
    failures = 0
    for room in range(0, 60, 3):
        written = 0

        def fsync(handle: int, room: int = room) -> None:
            nonlocal written
            written += 1
            if written > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            original(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                build(folder, n=8)
            except ResourceError:
                failures += 1
                assert not list(folder.rglob("*.tmp"))
            else:
                break
    assert failures > 2
    assert tree(folder) == whole


@pytest.mark.parametrize("library", ["safetensors.torch.save_file", "pyarrow.parquet.write_table"])
def test_a_full_disk_by_the_words_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(library, full)
    with pytest.raises(ResourceError, match="disk is full"):
        build(tmp_path / "a")
    monkeypatch.undo()
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_too_little_memory_halves_the_budget_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hw.scores(build(tmp_path / "a"), query := _query(), method=hw.GradDot())
    original, sizes = Gradients.batch, list[int]()

    def batch(self: Any, chunks: Any, role: Any = "example") -> Any:
        if role == "example" and len(chunks) > 3:
            raise torch.OutOfMemoryError("out of memory")
        if role == "example":
            sizes.append(len(chunks))
        return original(self, chunks, role)

    monkeypatch.setattr(Gradients, "batch", batch)
    index = build(tmp_path / "b", budget=16, shard_rows=10)
    manifest = read_manifest(tmp_path / "b")
    assert manifest["budget"] == 16
    assert manifest["calibration"]["budget"] == 2
    assert [shard["budget"] for shard in manifest["shards"]] == [2, 2]
    assert max(sizes) == 2
    found = hw.scores(index, query, method=hw.GradDot())
    assert np.allclose(found, right, rtol=0.05, atol=0.3)  # int8; another basis sample's rounding


def _query() -> hw.Query:
    return hw.Query(columns=given_corpus_row())


def test_too_little_memory_for_a_single_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch(self: Any, chunks: Any, role: Any = "example") -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Gradients, "batch", batch)
    with pytest.raises(ResourceError, match="single chunk of 1 tokens"):
        build(tmp_path / "a")


def test_columns_come_back_from_the_index_as_they_were_given() -> None:
    """Numbers without an axis stay without one; words stay words."""
    task = hw.Task(torch.nn.Sequential(torch.nn.Linear(3, 2)), loss=_label_loss)
    columns = {"x": vectors(4, width=3), "y": np.array([0, 1, 1, 0])}
    corpus = hw.Corpus.from_columns(columns, metadata={"source": ["a", None, "b", "ü"]})
    index = hw.Index.build(None, task, corpus, hw.Features(**FULL))  # type: ignore[arg-type]
    found = index.documents([2, 0])
    assert [int(one.content["y"]) for one in found] == [1, 0]
    assert found[0].content["y"].shape == ()
    assert found[1].content["x"].tolist() == columns["x"][0].tolist()
    assert index.metadata("source") == ["a", None, "b", "ü"]
    assert index.ids == [document.id for document in corpus.documents()]
    with pytest.raises(InputError, match=r"'colour'.*source"):
        index.metadata("colour")


def _label_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def test_the_gradients_are_those_that_were_given() -> None:
    """The yardstick of these tests: `Given` has the gradient its columns hold."""
    u = vectors(3)
    made = Gradients(Given(), FEATURES).batch(
        [Given().chunks(one)[0] for one in given_corpus(u).documents()]
    )
    assert np.allclose(made.u.numpy(), u, atol=1e-6)
    assert given_loss is not None
