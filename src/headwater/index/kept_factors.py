"""Kronecker factors kept in an index's folder, so that the next query finds them fitted.

One file of eigenvectors and eigenvalues, mapped into memory when it is read. The key holds all that
the factors depend on: the fit, the layers, and a fingerprint of the weights at every visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.kronecker import LayerCurvature
from headwater.engine.errors import DamageError
from headwater.engine.files import write_atomic
from headwater.index.factors import Factors, Fit, Visit, fit_factors
from headwater.index.mapped import map_tensors
from headwater.index.store import Store, prepared
from headwater.tasks.task import model_fingerprint

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index

FILE = "factors.safetensors"


def factors_for(
    index: Index, layers: Layers, fit: Fit, visits: Sequence[Visit] = (nullcontext,)
) -> Factors:
    """The factors of every layer: read where they were kept, else fitted and kept.

    Args, Raises: as in `fit_factors`; DamageError when the file is not what was written.
    """
    prints: list[str] = []
    for visit in visits:
        with visit():
            prints.append(model_fingerprint(layers.task.model))
    shapes = {n: [one.rows, one.columns, one.bias] for n, one in layers.layers.items()}
    settings = {"factors": asdict(fit), "layers": shapes, "weights": prints}
    settings["task"] = index.manifest["task"]

    def build(store: Store) -> None:
        tensors = _tensors(fit_factors(index, layers, fit, visits))
        _write(store, tensors)
        store.finish([FILE], {})

    store = prepared(Store(index, "curvature", settings), build)
    return _read(map_tensors(store.path(FILE)), list(shapes), layers.task.device)


def _tensors(factors: Factors) -> dict[str, torch.Tensor]:
    """By name; what several layers share is there once, under the first."""
    made: dict[str, torch.Tensor] = {}
    first: dict[tuple[int, ...], str] = {}
    for name, one in factors.items():
        made[f"values.{name}"] = one.values
        for number, u in enumerate(one.out):
            made[f"out.{name}.{number}"] = u
        owner = first.setdefault(tuple(id(u) for u in one.inn), name)
        made[f"input_of.{name}"] = torch.tensor(list(owner.encode()), dtype=torch.int32)
        if owner == name:
            for number, u in enumerate(one.inn):
                made[f"inn.{name}.{number}"] = u
    return made


def _write(store: Store, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(store.folder / FILE, lambda temporary: save_file(ready, temporary))


def _read(tensors: dict[str, torch.Tensor], names: Sequence[str], device: Any) -> Factors:
    """The inverse of `_tensors`."""

    def blocks(prefix: str) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        while f"{prefix}.{len(found)}" in tensors:
            found.append(tensors[f"{prefix}.{len(found)}"].to(device))
        return found

    try:
        owners = {n: bytes(tensors[f"input_of.{n}"].tolist()).decode() for n in names}
        inputs = {owner: blocks(f"inn.{owner}") for owner in set(owners.values())}
        return {
            name: LayerCurvature(
                blocks(f"out.{name}"), inputs[owners[name]], tensors[f"values.{name}"].to(device)
            )
            for name in names
        }
    except (KeyError, ValueError) as error:
        raise DamageError(
            "The kept curvature is not complete",
            found=str(error),
            do="remove the index's folder curvature; it is fitted again",
        ) from error
