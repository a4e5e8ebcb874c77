"""The dict of a dataclass is that of the standard library."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headwater.engine.as_dict import as_dict


@dataclass(frozen=True, slots=True)
class Inner:
    text: str
    place: tuple[int, int] | None = None


@dataclass
class Outer:
    many: list[Inner]
    by_name: dict[str, Inner]
    pairs: list[tuple[Inner, float]]
    other: dict[str, Any] = field(default_factory=dict[str, Any])


class Pair(NamedTuple):
    one: int
    two: int


def test_it_is_that_of_the_standard_library() -> None:
    inner = Inner("a", (1, 2))
    whole = Outer([inner, Inner("b")], {"x": inner}, [(inner, 0.5)], {"n": [None, True, 3]})
    made = as_dict(whole)
    assert made == asdict(whole)
    assert type(made["pairs"][0]) is tuple
    made["other"]["n"].append(4)
    made["by_name"]["y"] = 1
    assert whole.other["n"] == [None, True, 3]
    assert list(whole.by_name) == ["x"]


def test_what_is_no_dataclass_is_given_as_it_is() -> None:
    array = np.arange(3)
    made = as_dict({"array": array, "pair": Pair(1, 2), "kind": Inner})
    assert made["array"] is array
    assert made["pair"] == Pair(1, 2)
    assert made["kind"] is Inner
