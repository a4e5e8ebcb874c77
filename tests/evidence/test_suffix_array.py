"""The suffix array and its searches against sorting and searching by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater.evidence.suffix_array as module
from headwater.engine.errors import DamageError
from headwater.evidence.suffix_array import SortedSuffixes, WholePointers, map_file


def sorted_suffixes(tokens: list[int], width: int, folder: Path) -> SortedSuffixes:
    kind = np.dtype(f">u{width}")
    np.array(tokens, dtype=kind).tofile(folder / "tokens")
    module.write_suffix_array(folder / "tokens", width, folder / "array")
    pointers = WholePointers(map_file(folder / "array"), width, 4)
    return SortedSuffixes(map_file(folder / "tokens"), pointers, kind)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.sampled_from([2, 4]))
@settings(max_examples=60, deadline=None)
def test_order_is_that_of_the_tokens(tmp_path_factory, tokens, width):
    folder = tmp_path_factory.mktemp("order")
    sorted_suffixes(tokens, width, folder)
    naive = sorted(range(len(tokens)), key=lambda start: tokens[start:])
    assert np.fromfile(folder / "array", dtype="<i4").tolist() == naive


def test_large_ids_sort_by_number_not_by_low_byte(tmp_path):
    tokens = [256, 1, 65534, 255, 2, 256, 0]
    sorted_suffixes(tokens, 4, tmp_path)
    naive = sorted(range(len(tokens)), key=lambda start: tokens[start:])
    assert np.fromfile(tmp_path / "array", dtype="<i4").tolist() == naive


def test_blocks_of_the_array_are_joined(tmp_path, monkeypatch):
    tokens = np.random.default_rng(0).integers(0, 3, 500).tolist()
    sorted_suffixes(tokens, 2, tmp_path)
    whole = (tmp_path / "array").read_bytes()
    monkeypatch.setattr(module, "PIECE", 7)
    sorted_suffixes(tokens, 2, tmp_path)
    assert (tmp_path / "array").read_bytes() == whole


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_longest_of_all_starts(tmp_path_factory, data):
    """Texts that end without a separator, repeats beyond a window, token 0 beside the padding."""
    text = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=40))
    text *= data.draw(st.integers(1, 4))
    cut = data.draw(st.integers(0, len(text)))
    query = text[cut:] + data.draw(st.lists(st.integers(0, 2), max_size=8))
    query = query[: data.draw(st.integers(1, 120))] or [0]
    folder = tmp_path_factory.mktemp("longest")
    found = sorted_suffixes(text, data.draw(st.sampled_from([2, 4])), folder)
    starts = np.arange(len(query))
    lengths = found.longest(np.array(query), starts, len(query) - starts)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        fits = [n for n in range(len(query) - start + 1) if occurs(text, query[start : start + n])]
        assert length == max(fits)


def occurs(text: list[int], phrase: list[int]) -> bool:
    size = len(phrase)
    return any(text[i : i + size] == phrase for i in range(len(text) - size + 1))


def test_long_repeats_beyond_many_windows(tmp_path):
    rng = np.random.default_rng(1)
    passage = rng.integers(0, 50, 300).tolist()
    text = [*passage, 60, *passage[:200], 61, *rng.integers(0, 50, 500).tolist()]
    found = sorted_suffixes(text, 2, tmp_path)
    query = [*passage[:250], 62, *passage[100:]]
    starts = np.arange(len(query))
    lengths = found.longest(np.array(query), starts, len(query) - starts)
    assert lengths[:200].tolist() == [250 - start for start in range(200)]
    assert lengths[251] == 200
    assert lengths[250] == 0


def test_a_later_start_may_reach_further(tmp_path):
    a, b, c = np.random.default_rng(3).integers(0, 50, (3, 40)).tolist()
    found = sorted_suffixes([*a, *b, 60, *b, *c], 2, tmp_path)
    lengths = found.longest(np.array([*a, *b, *c]), np.arange(120), 120 - np.arange(120))
    assert lengths.tolist() == [*range(80, 40, -1), *range(80, 0, -1)]


def test_what_follows_is_the_same_read_or_leapt_over(tmp_path, monkeypatch):
    tokens = [65535, *np.random.default_rng(2).integers(0, 5, 400).tolist(), 65535, 1, 2, 65535, 1]
    found = sorted_suffixes(tokens, 2, tmp_path)
    for phrase in ([1], [1, 2], [4, 4], [0]):
        interval = found.interval(found.bytes_of(np.array(phrase)))
        read = dict(found.following(*interval, len(phrase)))
        with monkeypatch.context() as patch:
            patch.setattr(module, "BLOCK", 0)
            assert dict(found.following(*interval, len(phrase))) == read
        assert 65535 not in read


def test_an_empty_file_is_damage(tmp_path):
    (tmp_path / "tokens").touch()
    with pytest.raises(DamageError, match="tokens is damaged"):
        map_file(tmp_path / "tokens")
