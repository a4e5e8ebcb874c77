"""`headwater ask --uncertainty`: the same as the function's, told in the table."""

from __future__ import annotations

import shlex
from pathlib import Path

from commands import Command

PROMPT, COMPLETION = "The capital of Peru is", " Lima"


def test_scores_come_with_how_far_they_go(hw: Command, built: Path) -> None:
    words = ("ask", built, PROMPT, COMPLETION, "--top", 2, "--no-tokens", "--uncertainty", 2)
    made = hw(*words, "--json").json
    for item in [*made["proponents"], *made["opponents"]]:
        (spread,) = item["spreads"]
        assert spread["over"] == "projection seeds"
        assert spread["count"] == 3
        assert spread["score"][0] <= item["score"] <= spread["score"][1]
    table = hw(*words)
    assert "over 3 projection seeds" in " ".join(table.out.split())
    again = shlex.split(made["reproduce"]["command"])
    assert "--uncertainty" in again
    assert hw(*again[1:], "--json").json["proponents"] == made["proponents"]


def test_what_has_none_is_told_in_one_line(hw: Command, built: Path) -> None:
    words = ("ask", built, PROMPT, COMPLETION)
    assert "views over the whole index" in hw(*words, "--uncertainty", 2, "--method", "ekfac").error
    assert "number of seeds" in hw(*words, "--uncertainty", -2).error
