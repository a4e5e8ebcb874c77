"""An error is one line: what was wrong, what was expected, what was found, what to do."""

from __future__ import annotations

from headwater.engine import errors
from headwater.engine.errors import HeadwaterError, InputError


def test_one_line_says_it_all() -> None:
    error = InputError("The column is missing.", expected="text", found="body", do="name it")
    assert str(error) == "The column is missing; expected text; found body. Name it"
    assert (error.wrong, error.expected, error.found, error.do) == (
        "The column is missing.",
        "text",
        "body",
        "name it",
    )
    assert str(InputError("No", found=0)) == "No; found 0"


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and k is not HeadwaterError]
    codes = [kind.exit_code for kind in kinds if issubclass(kind, HeadwaterError)]
    assert len(codes) == len(set(codes)) == 6
    assert 0 not in codes
