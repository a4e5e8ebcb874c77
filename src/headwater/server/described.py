"""What a session tells of itself: the indexes, what each can be asked for, the limits."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headwater import __version__
from headwater.engine.errors import HeadwaterError
from headwater.evidence.encoder import PACKAGE
from headwater.evidence.filters import number
from headwater.evidence.method_table import Told, method_table
from headwater.methods.method import require_output
from headwater.server.jobs import QUEUE
from headwater.server.schemas import MOST_TOKENS, MOST_TOP
from headwater.server.served import ModelState, Served, kinds_of

if TYPE_CHECKING:
    from headwater.server.workbench import Workbench

SAMPLED = 1000  # examples whose metadata say which columns there are
RUN = 25  # of them that stand beside each other: what is read at once
FEW = 12  # values that are few, be there ever so few examples
HANDFUL = 5  # values that split a corpus and hardly group it
NAMED = ("source", "label")  # columns that people group by wherever there are any
PACKAGES = {"tantivy": "tantivy", "dense": PACKAGE}  # that methods need beyond our own
LONG = 60  # characters, on average, of what is a text and no name


def session(workbench: Workbench, upload_bytes: int, queue: int = QUEUE) -> dict[str, Any]:
    """All of it, as the browser is told."""
    return {
        "version": __version__,
        "indexes": [index_info(workbench, name) for name in workbench.paths],
        "query_sets": workbench.set_names(),
        "boards": sorted(workbench.boards),
        "limits": {
            "queue": queue,
            "upload_bytes": upload_bytes,
            "max_tokens": MOST_TOKENS,
            "top": MOST_TOP,
        },
    }


def index_info(workbench: Workbench, name: str) -> dict[str, Any]:
    """One index; after the first time nothing is opened for it."""
    manifest, path = workbench.manifest(name), workbench.path(name)
    state, called, note = workbench.model(name)
    known = workbench.extra.setdefault("described", {})
    key = (name, workbench.stamp(name), state == "none")
    if key not in known:
        index = workbench.index(name)
        known[key] = {
            "methods": methods(workbench, index, state),
            "kinds": kinds_of(path, manifest, state),
            "columns": columns(index),
        }
    return {
        "name": name,
        "examples": manifest["corpus"]["documents"],
        "features": bool(manifest["features"]),
        "model": state,
        "model_name": called,
        "model_note": note,
        **known[key],
    }


def columns(index: Served) -> list[str]:
    """The metadata columns of examples from all over the corpus, the most useful to group by first.

    In this order, and among equals the one with fewer values first:

    1. `source`, then `label`, where they put several examples under each of several values;
    2. other columns that do so, texts before numbers and before both what has more than a handful
       of values: a few values only split the corpus;
    3. one value for all; almost as many values as examples (ids); long texts and lists.
    """
    count = len(index)
    starts = range(0, count, max(RUN, -(-count * RUN // SAMPLED)))
    positions = [at for first in starts for at in range(first, min(first + RUN, count))]
    found: dict[str, list[Any]] = {}
    for row in index.examples.rows(positions, ["metadata"]):
        for name, value in json.loads(row["metadata"]).items():
            found.setdefault(name, []).append(value)
    return sorted(found, key=lambda name: _use(name, found[name]))


def _use(name: str, values: list[Any]) -> tuple[int, ...]:
    """How little use a column is to group by; how many values it has decides among equals."""
    there = [one for one in values if one is not None]
    texts = [one if isinstance(one, str) else str(one) for one in there]
    different = len(set(texts))
    length = sum(map(len, texts)) / max(len(texts), 1)
    if length > LONG or any(isinstance(one, list | dict) for one in there):
        return 5, different
    if different > len(texts) / 2 and different > FEW:
        return 4, different
    if different < 2:
        return 3, different
    if name.lower() in NAMED:
        return 0, NAMED.index(name.lower())
    # Numbers come as texts, too: "1", "2".
    numbers = all(number(text) is not None for text in texts)
    return 1 + numbers, int(different <= HANDFUL), different


def methods(workbench: Workbench, index: Served, state: ModelState) -> list[dict[str, Any]]:
    """Every method, and why it cannot be asked of this index where it cannot."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "unit": one.unit,
            "additive": one.additive,
            "influence": one.influence,
            "needs": one.needs,
            "costs": one.costs,
            "missing": _missing(workbench, index, one, state),
        }
        for one in method_table()
    ]


def _missing(workbench: Workbench, index: Served, method: Told, state: ModelState) -> str | None:
    """What the method wants and has not; found without a model, and without any work."""
    lacking = [one for one in method.required if getattr(workbench.opening, one, None) is None]
    if lacking:
        flags = " and ".join(f"--{one} FOLDER" for one in lacking)
        return f"It needs {method.needs}: start the server with {flags}."
    if state == "none" and (method.influence or method.name == "repsim"):
        return "It needs the model, and there is none here."
    package = PACKAGES.get(method.name)
    if package is not None and find_spec(package) is None:
        return f"It needs the package {package}, which is not installed."
    if not method.view:
        return None
    if not index.has_features:
        return "The index holds no features, so there is nothing to scan."
    try:
        require_output(index, method.title, weighted=method.weighted)
    except HeadwaterError as error:
        return str(error)
    return None
