"""Rank-c storage: the best approximation there is, scanned as if written out, kept like others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import flip, given_corpus, given_index, given_query, tree, vectors

import headwater as hw
from headwater.answer.tokens import stored_features
from headwater.engine.errors import HeadwaterError, InputError
from headwater.gradients.features import stored_rank
from headwater.gradients.layout import Block
from headwater.index import encoding, low_rank
from headwater.index.estimate import estimate
from headwater.index.mapped import map_tensors
from headwater.methods import view

Array = np.ndarray[Any, Any]
SIZES = ((9, 12), (12, 7), (8, 1), (2, 2))  # the last two are stored whole
WIDTH = sum(rows * columns for rows, columns in SIZES)
PLAIN = encoding.Basis.identity
ROUNDING = 0.012  # of int8, relative to the block's norm


def blocks_of(sizes: tuple[tuple[int, int], ...]) -> list[Block]:
    made, offset = [], 0
    for number, (rows, columns) in enumerate(sizes):
        made.append(Block(f"b{number}", offset, rows, columns))
        offset += rows * columns
    return made


def there_and_back(u: torch.Tensor, rank: int) -> torch.Tensor:
    blocks = blocks_of(SIZES)
    stored, scale = low_rank.encode(blocks, u, rank)
    assert stored.dtype == torch.int8
    assert (stored.shape[1], scale.shape[1]) == low_rank.widths(blocks, rank)
    return low_rank.decode(blocks, stored, scale, rank)


def random_features(n: int, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    return torch.from_numpy(vectors(n, seed, width))


def with_values(values: list[float], rows: int, columns: int, n: int = 40) -> torch.Tensor:
    """Matrices [n, rows, columns] of these singular values."""
    generator = torch.Generator().manual_seed(3)
    left = torch.linalg.qr(torch.randn((n, rows, len(values)), generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn((n, columns, len(values)), generator=generator).double())[0]
    return (left * torch.tensor(values).double()) @ right.transpose(1, 2)


CLEAR, CLOSE, EQUAL = [5.0, 2, 1, 0.5], [1.0, 0.999, 0.99, 0.3], [2.0, 2, 2, 0.1]


@pytest.mark.parametrize(("rows", "columns"), [(9, 12), (12, 7), (6, 6)])
@pytest.mark.parametrize("values", [CLEAR, CLOSE, EQUAL])
def test_the_leading_vector_is_that_of_the_decomposition(
    values: list[float], rows: int, columns: int
) -> None:
    """As good an approximation also where the largest values are nearly the same."""
    matrices = with_values(values, rows, columns)
    left = low_rank.leading(matrices.float()).double()
    assert torch.allclose(left.norm(dim=1), torch.ones(40).double(), atol=1e-5)
    kept = (matrices.transpose(1, 2) @ left[:, :, None])[:, :, 0].norm(dim=1)
    assert bool((kept > values[0] * (1 - (2e-3 if values is CLOSE else 1e-5))).all())
    if values is CLEAR:
        right = torch.linalg.svd(matrices)[0][:, :, 0]
        assert bool(((left * right).sum(dim=1).abs() > 1 - 1e-6).all())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("source", ["random", "close", "one"])
def test_blocks_are_stored_as_well_as_their_rank_allows(rank: int, source: str) -> None:
    """What is lost is what the best approximation loses, and the rounding of int8."""
    u = random_features(40)
    if source != "random":
        values = CLOSE if source == "close" else [3.0]
        for block in blocks_of(SIZES)[:2]:
            u[:, block.part] = with_values(values, block.rows, block.columns).flatten(1).float()
    held = there_and_back(u, rank).double()
    for block in blocks_of(SIZES)[:2]:
        exact = u[:, block.part].double().view(40, block.rows, block.columns)
        values = torch.linalg.svdvals(exact)
        best = values[:, rank:].square().sum(dim=1)
        lost = (held[:, block.part] - u[:, block.part]).square().sum(dim=1)
        size = values.square().sum(dim=1)
        assert bool((lost <= best * 1.01 + ROUNDING**2 * size).all())
        assert bool((lost >= best * 0.999).all())
    for block in blocks_of(SIZES)[2:]:
        lost = (held[:, block.part] - u[:, block.part]).norm(dim=1)
        assert bool((lost <= ROUNDING * u[:, block.part].norm(dim=1)).all())


def test_a_rank_that_saves_nothing_keeps_blocks_whole() -> None:
    blocks = blocks_of(SIZES)
    assert [place.pairs for place in low_rank.places(blocks, 1)] == [1, 1, 0, 0]
    assert [place.pairs for place in low_rank.places(blocks, 4)] == [4, 0, 0, 0]
    assert [place.pairs for place in low_rank.places(blocks, 5)] == [0] * 4
    assert low_rank.widths(blocks, 5) == (WIDTH, 4)
    assert low_rank.widths(blocks, 2) == (2 * (21 + 19) + 12, 6)
    u = random_features(20)
    lost = (there_and_back(u, 9) - u).norm(dim=1)
    assert bool((lost < ROUNDING * u.norm(dim=1)).all())


def test_zeros_and_extremes() -> None:
    u = random_features(12)
    u[3] = 0
    u[4, :108] = 0
    u[5] *= 1e-15
    u[6] *= 1e15
    held = there_and_back(u, 1)
    assert bool((held[3] == 0).all())
    assert bool((held[4, :108] == 0).all())
    ordinary = there_and_back(random_features(12), 1)
    assert torch.allclose(held[5] * 1e15, ordinary[5], rtol=1e-2, atol=1e-2)
    assert torch.allclose(held[6] / 1e15, ordinary[6], rtol=1e-2, atol=1e-2)
    assert bool((held[4, 108:] == ordinary[4, 108:]).all())


def test_the_same_rows_are_the_same_bytes_in_whatever_company() -> None:
    u = random_features(33)
    blocks = blocks_of(SIZES)
    whole = low_rank.encode(blocks, u, 2)
    again = low_rank.encode(blocks, u.clone(), 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("piece", [1, 1000, 1 << 18])
@pytest.mark.parametrize("few", [0, 1 << 20])
def test_a_scan_is_the_product_of_what_is_written_out(
    monkeypatch: pytest.MonkeyPatch, rank: int, piece: int, few: int
) -> None:
    """By factors and by writing blocks out, in pieces of any size."""
    monkeypatch.setattr(low_rank, "FEW", few)
    monkeypatch.setattr(low_rank, "PIECE", piece)
    blocks = blocks_of(SIZES)
    stored, scale = low_rank.encode(blocks, random_features(50), rank)
    held = low_rank.decode(blocks, stored, scale, rank).double()
    for count in (1, 7):
        w = random_features(count, 9)
        found = low_rank.LowRankProducts(blocks, w, rank).some(stored, scale)
        right = held @ w.double().T
        assert float((found - right).abs().max() / right.abs().max()) < 1e-6


# -- in an index --------------------------------------------------------------------------------


def index_of(u: Any, folder: Path | None = None, storage: str = "rank2", **options: Any) -> Any:
    return given_index(folder, u, sizes=SIZES, storage=storage, **options)


@pytest.mark.parametrize("method", [hw.GradDot(), hw.GradCos(), hw.LoGra(), hw.LRelatIF()])
@pytest.mark.parametrize("chunks", [1, 3])
def test_methods_score_what_is_stored(
    method: Any, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also documents of several chunks, and rows written out a few at a time."""
    monkeypatch.setattr(view, "WRITTEN_OUT", 4 * WIDTH * 4)
    made = vectors(25 * chunks, width=WIDTH).reshape(25, chunks, WIDTH)
    index = index_of(made if chunks > 1 else made[:, 0])
    z = stored_features(index, range(25)).astype(np.float64)
    q = vectors(5, 5, WIDTH).astype(np.float64)
    found = hw.scores(index, [given_query(one, SIZES) for one in q], method=method)
    rows = np.concatenate(
        [
            encoding.decode(
                index.blocks, index.calibration.basis, shard.u, shard.scale, "rank2"
            ).numpy()
            for shard in index.shards()
        ]
    ).astype(np.float64)
    whole = np.zeros((WIDTH, WIDTH))
    for block in index.blocks:
        r = rows[:, block.part].T @ rows[:, block.part] / len(rows)
        damped = r + 0.1 * np.trace(r) / len(r) * np.eye(len(r))
        curved = method.name in ("logra", "relatif")
        whole[block.part, block.part] = np.linalg.inv(damped) if curved else np.eye(len(r))
    right = q @ whole @ z.T
    if method.name != "logra" and method.norm != "none":
        norms = np.sqrt(np.einsum("ij,jk,ik->i", z, whole, z))
        if method.name == "gradcos" and chunks == 1:
            norms = np.linalg.norm(made[:, 0].astype(np.float64), axis=1)  # the exact ones
        right = right / norms
    if method.norm == "both":
        right = right / np.sqrt(np.einsum("ij,jk,ik->i", q, whole, q))[:, None]
    assert np.abs(found - right).max() / np.abs(right).max() < 2e-5


def test_curvature_is_of_what_is_stored_and_of_narrow_blocks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.curvature.autocorrelation.WIDEST_LOW_RANK", 90)
    u = vectors(30, width=WIDTH)
    index_of(u, tmp_path, storage="rank1", worker=(0, 2))  # one worker's share of the shards
    half = map_tensors(tmp_path / "statistics" / "shard-00000.safetensors")
    assert "sum.0" not in half
    assert "sum.1" in half
    index = index_of(u, storage="rank1")
    held = stored_features(index, range(30)).astype(np.float64)
    means = index.autocorrelation().means()
    assert means[0] is None
    part = held[:, index.blocks[1].part]
    assert means[1] is not None
    assert np.allclose(means[1].numpy(), part.T @ part / 30, rtol=1e-4, atol=1e-6)
    with pytest.raises(HeadwaterError, match="too wide.*LoRIF"):
        hw.scores(index, given_query(u[0], SIZES), method=hw.LoGra())
    index.append(given_corpus(u[:4], "more", SIZES))
    assert index.autocorrelation().means()[0] is None
    assert index.autocorrelation().count == 34


def test_an_index_takes_the_room_that_was_foretold(tmp_path: Path) -> None:
    sizes = ((64, 64), (64, 48), (16, 16))
    blocks = blocks_of(sizes)
    width = sum(rows * columns for rows, columns in sizes)
    index = given_index(
        tmp_path, vectors(64, width=width), sizes=sizes, storage="rank1", shard_rows=64
    )
    row = encoding.bytes_per_row(blocks, "rank1")
    assert row == (128 + 112 + 32) + 3 * 4 + 3 * 4
    (path,) = (index.path / "features").glob("*.safetensors")
    assert abs(path.stat().st_size - 64 * (row + 16)) < 1500  # the header
    told = estimate(index.task, given_corpus(vectors(64, width=width), "e", sizes), index.features)
    assert told.disk_bytes["features"] == 64 * (row + 16)
    statistics = sum(p.stat().st_size for p in (index.path / "statistics").glob("*.safetensors"))
    assert told.disk_bytes["statistics"] == pytest.approx(statistics, rel=0.05)


def test_it_is_built_damaged_and_appended_to_like_any_other(tmp_path: Path) -> None:
    u = vectors(14, width=WIDTH)
    whole = index_of(u, tmp_path / "a", shard_rows=4)
    same = index_of(u, tmp_path / "b", shard_rows=4, worker=(0, 1))
    assert tree(whole.path) == tree(same.path)
    before = tree(whole.path)
    flip(whole.path / "features" / "00001.safetensors")
    assert whole.verify() == ["features/00001.safetensors"]
    index_of(u, tmp_path / "a", shard_rows=4)
    assert tree(whole.path) == before
    index = hw.Index.open(tmp_path / "a", whole.task)
    assert index.features.storage == "rank2"
    index.append(given_corpus(u, "copy", SIZES))
    held = stored_features(index, range(28))
    assert np.array_equal(held[:14], held[14:])
    assert index.verify() == []


def test_names_of_storage() -> None:
    assert [stored_rank(s) for s in ("rank1", "rank12", "int8", "rank", "rank0", "rank01")] == [
        1,
        12,
        None,
        None,
        None,
        None,
    ]
    for wrong in ("rank0", "rank-1", "rank", "rank1.5", "int4"):
        with pytest.raises(InputError, match="rank1"):
            hw.Features(storage=wrong)
    described = hw.Features(storage="rank4").describe()
    assert described["storage"] == "rank4"
    assert hw.Features.from_description(described).storage == "rank4"
