"""What a session tells of itself: the indexes, what each can be asked for, the limits."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from headwater import __version__
from headwater.engine.errors import HeadwaterError
from headwater.server.jobs import QUEUE
from headwater.server.schemas import MOST_TOKENS, MOST_TOP
from headwater.server.served import ModelState, Served, kinds_of

if TYPE_CHECKING:
    from headwater.methods.method import Method
    from headwater.server.workbench import Workbench

SAMPLED = 1000  # examples whose metadata say which columns there are


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
    """The metadata columns of the first examples."""
    seen: dict[str, None] = {}
    for document in islice(index.stream(), SAMPLED):
        seen |= dict.fromkeys(document.metadata)
    return list(seen)


def methods(workbench: Workbench, index: Served, state: ModelState) -> list[dict[str, Any]]:
    """Every method, and why it cannot be asked of this index where it cannot."""
    from headwater.evidence.rankers import METHODS

    return [
        {
            "name": name,
            "title": _said(method, "title", method.__name__),
            "unit": _said(method, "unit", "as its parts have"),
            "additive": method.additive,
            "influence": method.influence,
            "needs": method.needs,
            "costs": method.costs,
            "missing": _missing(workbench, index, name, state),
        }
        for name, method in METHODS.items()
    ]


def _said(method: Any, attribute: str, otherwise: str) -> str:
    """An attribute of the class; what depends on the instance's settings is not known yet."""
    found = getattr(method, attribute)
    return found if isinstance(found, str) else otherwise


def _missing(workbench: Workbench, index: Served, name: str, state: ModelState) -> str | None:
    """What the method wants and has not; found without a model, and without any work."""
    from headwater.evidence.rankers import METHODS, required
    from headwater.methods.view import View

    lacking = [one for one in required(name) if getattr(workbench.opening, one, None) is None]
    if lacking:
        flags = " and ".join(f"--{one} FOLDER" for one in lacking)
        return f"It needs {METHODS[name].needs}: start the server with {flags}."
    if state == "none" and (METHODS[name].influence or name == "repsim"):
        return "It needs the model, and there is none here."
    if not issubclass(METHODS[name], View):
        return None
    if not index.has_features:
        return "The index holds no features, so there is nothing to scan."
    try:
        method: Method | None = workbench.method(name)
        if isinstance(method, View):
            method.check(index)
    except HeadwaterError as error:
        return str(error)
    return None
