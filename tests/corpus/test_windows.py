"""Windows cover every position once as fresh; packing keeps order and room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.corpus.windows import Window, pack, windows
from headwater.engine.errors import InputError


@st.composite
def _cuts(draw):
    max_length = draw(st.integers(1, 40))
    return draw(st.integers(0, 300)), max_length, draw(st.integers(0, max_length - 1))


@given(_cuts())
def test_every_position_is_fresh_once_with_its_context(cut):
    n, max_length, overlap = cut
    found = windows(n, max_length, overlap)
    assert [p for w in found for p in range(w.fresh, w.end)] == list(range(n))
    for number, window in enumerate(found):
        assert 0 < window.end - window.start <= max_length
        assert window.fresh < window.end
        assert window.fresh - window.start == (overlap if number else 0)


def test_examples():
    assert windows(5, 5, 2) == [Window(0, 5, 0)]
    assert windows(6, 5, 2) == [Window(0, 5, 0), Window(3, 6, 5)]
    assert windows(10, 4, 0) == [Window(0, 4, 0), Window(4, 8, 4), Window(8, 10, 8)]
    assert windows(0, 4, 0) == []


@pytest.mark.parametrize("bad", [(5, 4, 4), (5, 4, -1), (5, 0, 0), (-1, 4, 0)])
def test_bad_parameters(bad):
    with pytest.raises(InputError, match=r"expected .*; found"):
        windows(*bad)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 90))
def test_packs_in_order_and_never_wastes_a_place_that_fits(lengths, room):
    groups = pack(lengths, room)
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in group) for group in groups]
    assert all(total <= room for total in sums)
    for total, following in zip(sums, groups[1:], strict=False):
        assert total + lengths[following[0]] > room


@pytest.mark.parametrize("lengths", [[3, 11], [0]])
def test_pack_refuses(lengths):
    with pytest.raises(InputError, match="cannot be packed"):
        pack(lengths, 10)
