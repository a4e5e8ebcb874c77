"""`--set`: the parameters of a method that have no option of their own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from commands import Command

from headwater.cli.queries import choose_method, parse_settings
from headwater.curvature.damping import RelativeDamping
from headwater.engine.errors import InputError
from headwater.methods.ekfac import EKFAC

PROMPT, COMPLETION = "The capital of Peru is", " Lima"


def test_values_are_json_or_text() -> None:
    given = ["segments=3", "fast=true", "rates=[0.1, 2]", "optimizer=adam", "top-k=null", "x=a=b"]
    assert parse_settings(given) == {
        "segments": 3,
        "fast": True,
        "rates": [0.1, 2],
        "optimizer": "adam",
        "top_k": None,
        "x": "a=b",
    }
    for wrong in ("segments", "=3", "a b=3"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            parse_settings([wrong])
    with pytest.raises(InputError, match="twice"):
        parse_settings(["k=1", "k=2"])


def test_the_commands_damping_is_relative_for_every_method() -> None:
    method = choose_method("ekfac", None, damping=0.2)
    assert isinstance(method, EKFAC)
    assert method.damping == RelativeDamping(0.2)
    absolute = choose_method("ekfac", None, settings=["damping=0.2"])
    assert isinstance(absolute, EKFAC)
    assert absolute.damping != RelativeDamping(0.2)


def test_a_setting_changes_the_method_and_is_reproduced(hw: Command, index: Path) -> None:
    words = ("ask", index, PROMPT, COMPLETION, "--method", "ekfac", "--no-tokens", "--json")
    plain = hw(*words).json
    ended = hw(*words, "--damping", 0.2, "--set", "fisher=empirical", "--set", "examples=20")
    assert ended.code == 0, ended.err
    found = ended.json
    assert found["method"] != plain["method"]
    scores = [one["score"] for one in found["proponents"]]
    assert scores != [one["score"] for one in plain["proponents"]]
    command = shlex.split(found["reproduce"]["command"])
    assert "fisher=empirical" in command
    assert command[command.index("--damping") + 1] == "0.2"
    assert "left_out" not in found["reproduce"]
    again = hw(*command[1:], "--json").json
    assert [one["score"] for one in again["proponents"]] == scores


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "ekfac", "--set", "nonsense=3"), "does not take"),
        (("--method", "source", "--set", "segmnts=3"), "does not take"),
        (("--method", "ekfac", "--set", "fisher=3"), "of the wrong kind"),
        (("--method", "ekfac", "--set", "fisher=sampled"), "Unknown Fisher"),
        (("--method", "ekfac", "--set", "examples=many"), "of the wrong kind"),
        (("--method", "ekfac", "--damping", 0.1, "--set", "damping=0.2"), "one option"),
        (("--method", "datainf", "--set", "damping=high"), "of the wrong kind"),
    ],
)
def test_a_bad_setting_is_one_line(
    hw: Command, built: Path, words: tuple[object, ...], said: str
) -> None:
    assert said in hw("ask", built, PROMPT, COMPLETION, *words).error
