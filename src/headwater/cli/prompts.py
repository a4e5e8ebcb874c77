"""Files of prompts: JSON Lines with their fields, or plain text with one prompt a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headwater.engine.errors import InputError
from headwater.engine.json_lines import json_object, numbered, read_text


@dataclass(frozen=True)
class PromptRow:
    """A line: its prompt, perhaps what followed it, its domain, and its id (or line number)."""

    prompt: str
    completion: str | None
    domain: str | None
    id: str


def read_prompts(path: Path, *, completions: bool = False) -> list[PromptRow]:
    """The prompts of a file; lines that begin with a brace make it JSON Lines.

    Args:
        completions: each line must have a completion, too (then it is JSON Lines in any case).

    Raises:
        InputError: naming the file and the line that cannot be used.
    """
    lines = numbered(read_text(path))
    if not lines:
        raise InputError(f"{path} holds no prompt", expected="at least one line")
    named = path.suffix in (".jsonl", ".json") or lines[0][1].lstrip().startswith("{")
    if not (completions or named):
        return [PromptRow(line, None, None, str(number)) for number, line in lines]
    return [_row(f"{path}, line {n}", n, line, completions) for n, line in lines]


def _row(place: str, number: int, line: str, completions: bool) -> PromptRow:
    values = json_object(place, line, "prompt")
    needed = ("prompt", "completion") if completions else ("prompt",)
    missing = [name for name in needed if values.get(name) is None]
    if missing:
        raise InputError(
            f"{place}: {missing[0]!r} is missing",
            expected=" and ".join(needed) + ", and perhaps domain and id",
            found=", ".join(values) or "no fields",
        )
    for name in needed:
        if not isinstance(values[name], str):
            raise InputError(
                f"{place}: {name} is not text", expected="a string", found=repr(values[name])[:60]
            )
    domain, own = values.get("domain"), values.get("id")
    return PromptRow(
        values["prompt"],
        values["completion"] if completions else None,
        None if domain is None else str(domain),
        str(number) if own is None else str(own),
    )
