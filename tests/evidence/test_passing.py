"""Examples of an index by a filter: those and no others, and no column that is not there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.cli.app import run
from headwater.engine.errors import InputError
from headwater.evidence.passing import narrowed, passing
from headwater.tasks.texts import Texts

ROWS: list[dict[str, Any]] = [
    {"id": "peru-1", "text": "The capital of Peru is Lima.", "source": "wiki", "year": 1999},
    {"id": "peru-2", "text": "Lima lies in Peru.", "source": "blog"},
    {"id": "chile-1", "text": "Santiago lies in Chile.", "source": "wiki", "year": 2004},
    {"id": "chile-2", "text": "The capital of Chile is Santiago.", "source": "blog", "Ort": "x"},
]
QUERY = hw.Query("The capital of Peru is", " Lima")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> hw.Index:
    folder = tmp_path_factory.mktemp("passing") / "index"
    return hw.Index.build(folder, Texts(), hw.Corpus.from_documents(ROWS), None)


@pytest.mark.parametrize(
    ("filter", "places"),
    [
        ("", [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ("lima", [0, 1]),
        ("source=wiki", [0, 2]),
        ("year>2000", [2]),
        ("source=blog or year<2000", [0, 1, 3]),
        ("Ort:*", [3]),  # a column of the last example alone
        ("id:peru -wiki source:*", [0, 1]),
        ("nothing", []),
    ],
)
def test_those_that_pass(index: hw.Index, filter: str, places: list[int]) -> None:
    assert np.flatnonzero(passing(index, filter)).tolist() == places
    assert np.flatnonzero(passing(index, f" {filter}")).tolist() == places


def test_a_column_that_no_example_has_is_named_with_those_there_are(index: hw.Index) -> None:
    with pytest.raises(InputError, match="the column sorce at character 6") as told:
        passing(index, "lima sorce=wiki")
    assert told.value.expected == "one of id, text, source, year, Ort"
    assert told.value.found == "sorce"
    assert str(told.value.do).startswith("did you mean source?")
    with pytest.raises(InputError, match=r'the column "no such" at character 2'):
        passing(index, '-"no such":a')
    with pytest.raises(InputError, match="the column score"):  # an example has none
        passing(index, "score>0")


def test_what_was_asked_for_is_narrowed(index: hw.Index) -> None:
    some = np.array([True, False, True, False])
    assert narrowed(index, some, None) is some
    assert narrowed(index, None, " ") is None
    assert narrowed(index, some, "peru") is not None
    assert np.flatnonzero(narrowed(index, some, "peru")).tolist() == [0]
    with pytest.raises(InputError, match="lets no example pass of those that were asked for"):
        narrowed(index, some, "id=peru-2")
    with pytest.raises(InputError, match="lets no example pass"):
        narrowed(index, None, "nothing")


def test_an_answer_of_those_that_pass_says_so_and_how_to_get_it_again(
    index: hw.Index, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"evidence": "lexical", "filter": " -source:wiki  "}
    answer = hw.ask(index, QUERY, **options)
    assert [one.id for one in answer.proponents] == ["peru-2", "chile-2"]
    assert any("only the 2 of 4 examples that pass “-source:wiki”" in n for n in answer.notes)
    assert "filter='-source:wiki'" in answer.reproduce["python"]
    command = shlex.split(answer.reproduce["command"])
    assert run([*command[1:], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in again["proponents"]] == ["peru-2", "chile-2"]
    assert hw.ask(index, QUERY, evidence="lexical", filter="").reproduce == (
        hw.ask(index, QUERY, evidence="lexical").reproduce
    )
    both = hw.ask(index, QUERY, evidence="lexical", filter="peru", groups=("source", ["wiki"]))
    assert [one.id for one in both.proponents] == ["peru-1"]
    with pytest.raises(InputError, match="the column sorce"):
        hw.ask(index, QUERY, evidence="lexical", filter="sorce:wiki")


def test_metadata_called_score_is_a_column_of_examples() -> None:
    """An example has no score of its own; a corpus may have one, of its quality for example."""
    rows = [{"id": f"d{n}", "text": "a text", "score": n} for n in range(5)]
    index = hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)
    assert passing(index, "score>2").tolist() == [False, False, False, True, True]
    assert passing(index, "-score>2").tolist() == [True, True, True, False, False]
