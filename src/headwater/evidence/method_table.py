"""What the methods say of themselves, read from a file: to import them all brings torch.

That takes seconds, and a list of methods needs none of it. The file is written by
`python -m headwater.evidence.method_table` whenever a method says something else of itself; a test
compares the two.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.methods.method import Method

TABLE = Path(__file__).with_name("methods.json")
# Rankers of texts: what has no model is ranked by them, and must not wait for torch.
OF_TEXTS = {
    "bm25": ("headwater.evidence.lexical", "BM25"),
    "tantivy": ("headwater.evidence.lexical_tantivy", "Tantivy"),
    "random": ("headwater.evidence.random_scores", "Random"),
}


@dataclass(frozen=True)
class Told:
    """One method, as it is told of before it is made.

    Args:
        name, title, unit, additive, influence, needs, costs: of its class; a title or a unit that
            depends on options is put in general words.
        required: the options without which it cannot be made.
        view: whether it only compares stored features. weighted: whether it wants those of margins.
    """

    name: str
    title: str
    unit: str
    additive: bool
    influence: bool
    needs: str
    costs: str
    required: list[str]
    view: bool
    weighted: bool


@cache
def method_table() -> tuple[Told, ...]:
    """All of them, in the order of `rankers.METHODS`."""
    return tuple(Told(**one) for one in json.loads(TABLE.read_text(encoding="utf-8")))


def method_of_texts(name: str) -> Method | None:
    """A ranker of texts with its defaults, made without the other methods; None for others."""
    if name not in OF_TEXTS:
        return None
    module, of = OF_TEXTS[name]
    return getattr(import_module(module), of)()


def tell() -> tuple[Told, ...]:
    """The same from the methods themselves."""
    from headwater.evidence.rankers import METHODS, required
    from headwater.methods.view import View

    return tuple(
        Told(
            name,
            _said(method, "title", method.__name__),
            _said(method, "unit", "as its parts have"),
            method.additive,
            method.influence,
            method.needs,
            method.costs,
            required(name),
            issubclass(method, View),
            issubclass(method, View) and method.weighted,
        )
        for name, method in METHODS.items()
    )


def _said(method: Any, attribute: str, otherwise: str) -> str:
    """An attribute of the class; what depends on the instance's settings is not known yet."""
    found = getattr(method, attribute)
    return found if isinstance(found, str) else otherwise


if __name__ == "__main__":
    rows = [asdict(one) for one in tell()]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    TABLE.write_text(f"{text}\n", encoding="utf-8")
