"""Maps: neighbours stay together, the record tells what it was made of, damage is mended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_facts import FEATURES, corpus, task

import headwater as hw
from headwater.answer.tokens import stored_features
from headwater.engine.errors import DamageError, InputError
from headwater.index.store import Store
from headwater.server.layout import kept_neighbours, laid_out, nearest
from headwater.server.maps import FILE, Gradients, make_map, map_store, read_map, widest
from headwater.tasks.texts import Texts


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("maps") / "index"
    hw.Index.build(out, task(8), corpus(), FEATURES, hw.Plan(shard_rows=8))
    return out


@pytest.fixture
def index(built: Path, tmp_path: Path) -> hw.Index:
    return hw.Index.open(shutil.copytree(built, tmp_path / "copy"))


def clusters(count: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around as many middles in 30 dimensions, and whose they are."""
    random = np.random.default_rng(1)
    owners = np.repeat(np.arange(count), each)
    x = random.normal(size=(count, 30))[owners] + 0.15 * random.normal(size=(count * each, 30))
    return (x - x.mean(axis=0)).astype(np.float32), owners


def test_clusters_stay_together_and_apart() -> None:
    x, owners = clusters(30, 16)
    y = laid_out(x)
    assert y.shape == (480, 2)
    assert float(np.abs(y).max()) == pytest.approx(1)
    near, _ = nearest(y, y, 10, own=True)
    assert (owners[near] == owners[:, None]).mean() > 0.98
    plain = x[:, :2]  # what two directions alone would give
    near, _ = nearest(plain, plain, 10, own=True)
    assert (owners[near] == owners[:, None]).mean() < 0.75
    assert np.array_equal(y, laid_out(x))
    kept = kept_neighbours(x, y)
    assert kept is not None
    assert kept > 0.3


def test_nearest_is_exact_for_few_and_close_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clusters(60, 25)
    near, squared = nearest(x, x, 5, own=True)
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    right = np.sort(distance, axis=1)[:, :5]
    assert np.allclose(squared, right, atol=1e-3)
    assert (near != np.arange(len(x))[:, None]).all()
    monkeypatch.setattr("headwater.server.layout.AT_ONCE", 100_000)
    other, _ = nearest(x, x, 5, own=True)
    shared = [len(set(a) & set(b)) for a, b in zip(near.tolist(), other.tolist(), strict=True)]
    assert sum(shared) / (5 * len(x)) > 0.9


def test_more_points_than_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.server.layout.LANDMARKS", 200)
    x, owners = clusters(6, 80)
    y = laid_out(x)
    near, _ = nearest(y, y, 10, own=True)
    assert (owners[near] == owners[:, None]).mean() > 0.95


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 20])
def test_few_and_equal_points(count: int) -> None:
    for x in (np.zeros((count, 4), np.float32), np.eye(max(count, 4), 4, dtype=np.float32)[:count]):
        y = laid_out(x)
        assert y.shape == (count, 2)
        assert np.isfinite(y).all()
    assert laid_out(np.zeros((count, 1), np.float32)).shape == (count, 2)


def test_widest_directions_are_those_of_the_features(index: hw.Index) -> None:
    """Against a full decomposition of the decoded features."""
    rows = Gradients(index)
    x = widest(rows, most=8)
    u = stored_features(index, range(len(index)))
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    u = u - u.mean(axis=0)
    right = np.linalg.svd(u, compute_uv=False)[:4]
    found = np.linalg.norm(x, axis=0)[:4]
    assert np.allclose(found, right, rtol=0.05)
    assert np.allclose(x.mean(axis=0), 0, atol=1e-4)
    # Copies of a text have the same gradient.
    copies = [index.ids.index(f"again-{i}") for i in range(3)]
    assert np.allclose(x[copies[0]], x[copies[1]], atol=1e-3)


def test_a_map_is_made_once(index: hw.Index) -> None:
    with pytest.raises(InputError, match="no map yet"):
        read_map(index, "features")
    made = make_map(index, "features")
    assert made["points"] == len(index)
    assert made["without_place"] == 0
    assert "gradients" in made["made_by"]
    places = read_map(index, "features")
    assert places.shape == (2, len(index))
    assert places.dtype == np.float32
    file = map_store(index, "features").folder / FILE
    before = file.stat().st_mtime_ns
    assert make_map(hw.Index.open(index.path), "features") == made
    assert file.stat().st_mtime_ns == before
    record = json.loads((file.parent / "record.json").read_text())
    assert record["settings"]["of"] == "features"
    assert record["corpus"]["documents"] == len(index)


def test_what_is_damaged_is_made_again(index: hw.Index) -> None:
    make_map(index, "features")
    right = read_map(index, "features")
    file = map_store(index, "features").folder / FILE
    data = bytearray(file.read_bytes())
    data[-3] ^= 255
    file.write_bytes(bytes(data))
    make_map(index, "features")
    assert np.array_equal(read_map(index, "features"), right)
    file.write_bytes(b"short")
    with pytest.raises(DamageError):
        read_map(index, "features")
    (file.parent / "record.json").write_text("{broken")
    make_map(index, "features")
    assert np.array_equal(read_map(index, "features"), right)


def test_a_map_of_a_corpus_that_has_grown_is_made_again(index: hw.Index) -> None:
    make_map(index, "features")
    index._task = task(8)
    more = [{"id": f"new-{i}", "text": f"The gnu has {i} horns.", "source": "x"} for i in range(3)]
    index.append(hw.Corpus.from_documents(more))
    with pytest.raises(InputError, match="no map yet"):
        read_map(index, "features")
    assert make_map(index, "features")["points"] == len(index)
    assert read_map(index, "features").shape == (2, len(index))
    assert isinstance(map_store(index, "features"), Store)


def test_an_index_of_texts_has_no_map_of_features(tmp_path: Path) -> None:
    plain = hw.Index.build(tmp_path / "texts", Texts(), corpus(), None)
    with pytest.raises(InputError, match="no features"):
        make_map(plain, "features")
    with pytest.raises(InputError, match="no such map"):
        make_map(plain, "../x")


def test_a_map_of_meanings(index: hw.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters:
        """An encoder: how often each of some letters stands in a text."""

        window = 256

        def describe(self) -> dict[str, str]:
            return {"encoder": "letters"}

        def encode(self, texts: list[str], *, query: bool) -> np.ndarray:
            counts = [[text.count(letter) + 1e-3 for letter in "abcdefgh"] for text in texts]
            made = np.array(counts, dtype=np.float32)
            return made / np.linalg.norm(made, axis=1, keepdims=True)

    monkeypatch.setattr("headwater.evidence.semantic.load_encoder", lambda _: Letters())
    made = make_map(index, "semantic")
    assert "embeddings" in made["made_by"]
    x, y = read_map(index, "semantic")
    copies = [index.ids.index(f"again-{i}") for i in range(3)]
    spread = float(np.hypot(x[copies] - x[copies[0]], y[copies] - y[copies[0]]).max())
    assert spread < 0.3


# -- over HTTP ----------------------------------------------------------------------------


def test_a_map_over_http(client: Any, work: Any) -> None:
    before = client.get("/api/map?index=same&of=features")
    assert before.status_code == 400
    assert before.json()["error"]["do"] == "compute it first"
    made = work("map", index="same", of="features")
    assert made["state"] == "done"
    ids = client.get("/api/map/ids?index=same&of=features").json()
    assert made["result"]["points"] == len(ids)
    found = client.get("/api/map?index=same&of=features")
    assert found.headers["content-type"] == "application/octet-stream"
    places = np.frombuffer(found.content, "<f4").reshape(2, -1)
    assert places.shape[1] == len(ids)
    assert np.isfinite(places).all()
    assert client.get("/api/map?index=none").status_code == 404
    assert client.get("/api/map?index=same&of=../x").status_code == 400
    assert work("map", index="texts", of="features")["state"] == "failed"
