"""What is kept beside the features: built once, found again, and damage seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headwater as hw
import headwater.index.store as module
from headwater.engine.errors import DamageError
from headwater.index.store import KINDS, Store, damaged_stores, prepared, stores
from phrase_models import text_index


def build(names: list[str]) -> Any:
    def made(store: Store) -> None:
        for name in names:
            (store.folder / name).write_text(f"{name} of {len(store.index)}")
        store.finish(names, {"count": len(names)})

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_once_and_checked(tmp_path: Path, kind: str) -> None:
    index = text_index(["a river", "a sea"], tmp_path / "i")
    store = prepared(Store(index, kind, {"x": 1}), build(["one", "two"]))
    assert prepared(Store(index, kind, {"x": 1}), None).path("one").read_text() == "one of 2"  # type: ignore[arg-type]
    assert list(stores(index.path)) == [(kind, store.folder)]
    store.path("two").write_text("two of 3")
    assert damaged_stores(index.path) == [f"{kind}/{store.key}/two"]
    with pytest.raises(DamageError, match="never finished"):
        store.path("three")


def test_curvature_is_a_kind() -> None:
    assert "curvature" in KINDS


def test_the_record_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:04d}" for number in range(200)]
    index = text_index(["a river"], tmp_path / "i")
    prepared(Store(index, "semantic", {}), build(names))
    read: list[str] = []
    kept = module.read_json
    monkeypatch.setattr(module, "read_json", lambda path: read.append(path.name) or kept(path))
    store = Store(index, "semantic", {})
    assert all(store.path(name).exists() for name in names)
    assert read == ["record.json"]


@pytest.mark.parametrize("grows", [False, True])
def test_what_another_process_has_built_meanwhile_stays(tmp_path: Path, grows: bool) -> None:
    index = text_index(["a river"], tmp_path / "i")
    prepared(Store(index, "semantic", {}), build(["one"]), grows=grows)
    store = Store(index, "semantic", {})
    with store.building(grows=grows):
        assert store.ready()


def test_a_store_that_grows_keeps_what_is_sound(tmp_path: Path) -> None:
    """A damaged file goes; a folder goes as a whole; without a record's word, everything."""
    index = text_index(["a river"], tmp_path / "i")
    names = ["one", "two", "f/three", "f/four", "g/five"]

    def build_all(store: Store) -> None:
        for name in names:
            (store.folder / name).parent.mkdir(exist_ok=True)
        build(names)(store)

    store = prepared(Store(index, "lexical", {}), build_all)
    (store.folder / "two").write_text("no")
    (store.folder / "f/four").write_text("no")
    index.append(hw.Corpus.from_documents([{"id": "n", "text": "a sea"}]))
    with store.building(grows=True) as folder:
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "g", "one", "state.json"]
        build_all_again = [p for p in names if not (folder / p).exists()]
        assert build_all_again == ["two", "f/three", "f/four"]
        (folder / "f").mkdir()
        build_all(store)
    assert prepared(store, None).path("g/five").read_text() == "g/five of 2"  # type: ignore[arg-type]
    (store.folder / "record.json").write_text("{")
    with store.building(grows=True) as folder:
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "state.json"]
