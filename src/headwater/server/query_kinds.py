"""Which of the four usual kinds a query is, by what its line, or the name of its set, says.

Nothing is guessed here: where neither tells, it is a query and no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["fact", "choice", "sum", "open"]
FIELDS = ("kind", "category", "task", "task_type", "task_name", "type", "dataset")
# Words that begin so tell the kind; with a space at the end: words that are just that.
BEGINNINGS: dict[Kind, tuple[str, ...]] = {
    "sum": ("arithm", "math ", "maths ", "addition ", "subtraction ", "multiplication "),
    "choice": ("commonsens", "common sense "),
    "open": ("open ", "openended ", "generat", "story ", "stories "),
    "fact": ("fact", "knowledge "),
}


def told_kind(record: Mapping[str, Any], set_name: str = "") -> Kind | None:
    """The kind that the first telling field names, else the name of the set; None = not told."""
    said = [value for name in FIELDS if isinstance(value := record.get(name), str)]
    return next((kind for text in [*said, set_name] if (kind := kind_in(text)) is not None), None)


def kind_in(text: str) -> Kind | None:
    """The kind that a text names."""
    words = " ".join(["", *re.findall(r"[a-z]+", text[:200].casefold()), ""])
    for kind, beginnings in BEGINNINGS.items():
        if any(f" {one}" in words for one in beginnings):
            return kind
    return None
