"""The command line run in this process, and small things to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models import byte_tokenizer, tiny_llama

PLACES = ["Peru", "Chile", "Kenya", "Japan", "Norway", "Ghana"]
CITIES = ["Lima", "Santiago", "Nairobi", "Tokyo", "Oslo", "Accra"]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        assert self.code != 0
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line


Command = Callable[..., Ended]


def save_model(folder: Path, seed: int = 0) -> Path:
    tiny_llama(dtype=torch.float32, seed=seed).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def rows() -> list[dict[str, Any]]:
    patterns = ["The capital of {p} is {c}.", "{c} lies in {p}.", "Trains to {c} cross {p}."]
    return [
        {"id": f"{place}-{number}", "text": pattern.format(p=place, c=city), "source": place}
        for place, city in zip(PLACES, CITIES, strict=True)
        for number, pattern in enumerate(patterns)
    ]


def write_rows(path: Path, values: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path
