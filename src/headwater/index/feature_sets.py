"""Feature sets: further features of one corpus beside the index's own, by other weights or outputs.

`<index>/feature_sets/<name>/` is an index folder in all but its corpus, which is that of the index
it lies in. A set per checkpoint makes an ensemble; a set of margins beside one of losses lets two
methods share a corpus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError, MismatchError
from headwater.engine.files import locked, make_folder, sweep
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features
from headwater.index.build import (
    Plan,
    begin,
    build_shards,
    finish,
    require_features,
    restore,
)
from headwater.index.manifest import NAME, SETS, Manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.task import Task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OWN = "own"  # names the features that the index itself holds, so no set may be called so
WEIGHTS = ("model", "autocast", "dtype")  # in which the task of a set may differ from the index's


def add_features(
    index: Index,
    name: str,
    task: Task | None = None,
    features: Features = Features(),  # noqa: B008 - frozen
    plan: Plan | None = None,
    source: Mapping[str, Any] | None = None,
) -> Index:
    """Build the feature set `name` of this index's corpus, or go on with it.

    Args:
        index: finished, with or without features of its own.
        name: letters, digits, `.`, `_`, `-`; not "own", which means the index's own features.
        task: with other weights, but the same way of reading examples; None = the index's own.
        features: what is stored. plan: how it is run; shards are those of the index.
        source: joins what the manifest says of where the model came from.

    Returns:
        The set, an `Index` of the same examples; not complete while other workers have shards.

    Raises:
        InputError: for such a name, or when the task reads examples otherwise.
        MismatchError: when the folder holds other features.
    """
    task = index.task if task is None else task
    if not _NAME.fullmatch(name):
        raise InputError("No name for a feature set", expected=_NAME.pattern, found=repr(name))
    if name == OWN:
        raise InputError(
            'No name for a feature set: "own" means the features that the index itself holds',
            expected="another name",
            found=repr(name),
        )
    _require_reading(index.manifest["task"], task.describe())
    plan = plan or Plan()
    folder = index.path / SETS / name
    gradients = Gradients(task, features)
    make_folder(folder)
    wait = plan.worker[1] > 1
    with locked(folder / ".setup.lock", f"The feature set {name} of {index.path}", wait=wait):
        manifest = _set_up(folder, index.manifest, gradients, plan, source or {})
    build_shards(folder, manifest, gradients, plan)
    finish(folder)
    return type(index)(folder, read_manifest(folder), task)


def _set_up(
    folder: Path, whole: Manifest, gradients: Gradients, plan: Plan, source: Mapping[str, Any]
) -> Manifest:
    """The set's manifest, of the corpus as it is now."""
    if not (folder / NAME).exists():
        manifest = begin(folder, gradients, whole["corpus"], whole["shard_rows"], plan)
        manifest["source"] = {**manifest["source"], **source}
        write_manifest(folder, manifest)
        return manifest
    sweep(folder)
    manifest = read_manifest(folder)
    require_features(manifest, gradients)
    held, now = manifest["corpus"]["shards"], whole["corpus"]["shards"]
    if held != now[: len(held)]:
        raise MismatchError(
            f"The feature set {folder.name} is of another corpus", do=f"remove {folder}"
        )
    if held != now:  # the index has grown since
        manifest |= {"corpus": whole["corpus"], "complete": False}
        write_manifest(folder, manifest)
    restore(folder, manifest, gradients)
    return manifest


def _require_reading(held: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise InputError unless both tasks make the same tokens of an example."""
    for field in sorted({*held, *asked} - {*WEIGHTS}):
        if held.get(field) != asked.get(field):
            raise InputError(
                f"The task of a feature set must read examples as the index does: {field} differs",
                expected=held.get(field),
                found=asked.get(field),
            )


def set_names(index: Index) -> list[str]:
    """Names of the finished sets of the index's present corpus, in the order of their names.

    Numbers count as numbers: checkpoint-900 comes before checkpoint-1000.
    """
    shards = index.manifest["corpus"]["shards"]
    found: list[str] = []
    for path in (index.path / SETS).glob(f"*/{NAME}"):
        if _NAME.fullmatch(path.parent.name):
            manifest = read_manifest(path.parent)
            if manifest["complete"] and manifest["corpus"]["shards"] == shards:
                found.append(path.parent.name)
    return sorted(found, key=in_order)


def in_order(name: str) -> list[tuple[int, int | str]]:
    """A key by which names sort with their numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in parts]


def open_set(index: Index, name: str, task: Task | None = None) -> Index:
    """A finished set as an `Index` of the same examples.

    Raises:
        InputError: when there is none of this name; names those that are there.
        MismatchError: when `task` is not the one it was built with.
    """
    names = set_names(index)
    if name not in names:
        raise InputError(
            "The index has no such feature set", expected=", ".join(names) or "none", found=name
        )
    made = type(index).open(index.path / SETS / name, task)
    made.examples = index.examples
    return made
