"""Kronecker factors kept in an index's folder, so that the next query finds them fitted.

Two files, of eigenvectors and of eigenvalues, mapped into memory when they are read. The key holds
all that the factors depend on: the fit, the layers, a fingerprint of the weights at every visit,
and, of a task that is given by functions, what these make of a few examples. Processes that ask
for the same factors at the same time fit them together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import DamageError
from headwater.index.factors import (
    BASES,
    LEAST,
    PARTS,
    VALUES,
    Factors,
    Fit,
    Visit,
    fit_factors,
    read_factors,
)
from headwater.index.store import Store
from headwater.tasks.task import model_fingerprint

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.task import Task

FOLDER = "factors"  # below the store's, whose sweep would meet the files of a fit that is running
INPUTS = 2  # raised when layers are told apart in another way: what was fitted before is not read
PROBED = 8  # examples whose losses tell one task from another
FILES = [f"{FOLDER}/{BASES}", f"{FOLDER}/{VALUES}"]


def factors_for(
    index: Index,
    layers: Layers,
    fit: Fit,
    visits: Sequence[Visit] = (nullcontext,),
    among: Mask | None = None,
) -> Factors:
    """The factors of every layer: read where they were kept, else fitted and kept.

    Args, Raises: as in `fit_factors`; DamageError when a file is not what was written.
    """
    prints: list[str] = []
    probe: list[str] = []
    for visit in visits:
        with visit():
            prints.append(model_fingerprint(layers.task.model))
            if layers.task.kind == "general" and not probe:
                probe = _probe(index, layers.task, fit)
    shapes = {n: [one.rows, one.columns, one.bias] for n, one in layers.layers.items()}
    settings: dict[str, Any] = {"factors": asdict(fit), "layers": shapes, "weights": prints}
    settings["task"] = index.manifest["task"]
    if probe:
        settings["losses"] = probe
    if layers.scales:
        settings["scaling"] = layers.digest
    if among is not None:
        settings["documents"] = _digest(index, among)
    settings["parts"] = [PARTS, LEAST]  # the last bits depend on them
    settings["inputs"] = INPUTS
    store = Store(index, "curvature", settings)
    folder = store.folder / FOLDER
    if not store.ready():
        with store.building():
            pass  # only what another state of the corpus left is removed
        fit_factors(index, layers, fit, visits, folder, among)
        with store.building():
            _finish(store)
    try:
        for name in FILES:
            store.path(name)
        return read_factors(folder, layers.task.device)
    except (KeyError, ValueError) as error:
        raise DamageError(
            "The kept curvature is not complete",
            found=str(error),
            do="remove the index's folder curvature; it is fitted again",
        ) from error


def _probe(index: Index, task: Task, fit: Fit) -> list[str]:
    """Losses of the first examples, and of them with drawn labels where a fit draws them.

    Functions have no names that last, but what they say of given weights tells them apart. To so
    few digits that they are the same however many threads have added them up.
    """
    import torch

    made: list[str] = []
    first = index.chunks(range(min(PROBED, len(index))))
    with task.running(), torch.no_grad():
        for chunk in [chunk for mine in first for chunk in mine][:PROBED]:
            batch = task.collate([chunk])
            made.append(f"{float(task.loss(batch)):.4g}")
            if fit.fisher == "true":
                made.append(f"{float(task.loss(task.resample(batch, [fit.seed]))):.4g}")
    return made


def _digest(index: Index, among: Mask) -> str:
    """What tells one choice of documents from another."""
    chosen = [name for name, there in zip(index.ids, among, strict=True) if there]
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]


def _finish(store: Store) -> None:
    """Make the store count; for who holds it."""
    if store.ready():  # another process was faster
        return
    if not all((store.folder / name).is_file() for name in FILES):
        raise DamageError(
            "The index's corpus changed while its curvature was fitted", do="start again"
        )
    store.finish(FILES, {})
    for lock in (store.folder / FOLDER).glob(".*.lock"):
        lock.unlink(missing_ok=True)
