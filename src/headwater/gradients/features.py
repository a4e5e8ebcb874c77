"""What an index stores of each example: which output, which parameters, which projection.

Whatever acts on a gradient before it is projected is chosen here and needs its own build; what acts
afterwards is a method's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    import torch

    from headwater.gradients.second_moment import SecondMoment

STORAGES = ("int8", "float16", "float32")
ModuleFilter = Callable[[str, "torch.nn.Module"], bool]


def _positive(*values: int) -> None:
    if min(values) < 1:
        raise InputError("A projection's sizes must be positive", found=values)


def stored_rank(storage: str) -> int | None:
    """The pairs of singular vectors that `rank1`, `rank2`, ... keep of a block; else None."""
    found = re.fullmatch(r"rank([1-9][0-9]{0,3})", storage)
    return int(found[1]) if found else None


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"Unknown {name}", expected=" or ".join(allowed), found=repr(value))


@dataclass(frozen=True)
class TwoSided:
    """`P G Q^T` for each parameter by itself, P [rows, out], Q [columns, in].

    A side that is already no wider than its target is left alone.
    """

    rows: int = 16
    columns: int = 16

    def __post_init__(self) -> None:
        _positive(self.rows, self.columns)


@dataclass(frozen=True)
class TopEigenvectors(TwoSided):
    """`P G Q^T` with P and Q the directions of most curvature, by EK-FAC on the calibration sample.

    Makes EK-FAC influence, as far as these directions carry it, a view of the index
    (`hw.ProjectedEKFAC`). Both sides are always turned. Only for linear layers and without a
    second moment.

    Args:
        fisher: "true" (labels drawn from the model) or "empirical" (those of the corpus).
    """

    fisher: str = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("fisher", self.fisher, ("true", "empirical"))


@dataclass(frozen=True)
class LayerBlocks:
    """The TrackStar paper's layout: blocks of consecutive layers, attention and MLP apart.

    The projections of a block's parameters (independent P_m, Q_m) are summed into one
    rows x columns matrix. A model of fewer layers than `groups` has one group a layer.
    """

    rows: int = 64
    columns: int = 64
    groups: int = 8

    def __post_init__(self) -> None:
        _positive(self.rows, self.columns, self.groups)


@dataclass(frozen=True)
class Features:
    """What is stored of each example.

    Args:
        projection: `TwoSided`, `LayerBlocks`, `TopEigenvectors`, or None for full gradients (small
            models).
        parameters: "linear" (the weights of Linear, Conv1D and Conv2d layers without the output
            head; of a model with an adapter, the adapter's), "linear+base" (the adapter's and the
            base's), "all" (embeddings, norms, biases and the head too), or a filter
            `(module name, module) -> bool` of such layers.
        output: "loss", or "margin" (the log-odds, for TRAK; stores 1 - p as well).
        second_moment: None, "estimate" (from the calibration sample), or a `SecondMoment` read
            from an optimizer state.
        storage: "int8", "float16", "float32", or "rank1", "rank2", ...: of each block its so many
            leading pairs of singular vectors (least room for wide projections; see `hw.LoRIF`).
        seed: of the projections.
    """

    projection: TwoSided | LayerBlocks | None = TwoSided()
    parameters: str | ModuleFilter = "linear"
    output: Literal["loss", "margin"] = "loss"
    second_moment: Literal["estimate"] | SecondMoment | None = None
    storage: str = "int8"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("output", self.output, ("loss", "margin"))
        if stored_rank(self.storage) is None and self.storage not in STORAGES:
            expected = f"{', '.join(STORAGES)}, or rank1, rank2, ..."
            raise InputError("Unknown storage", expected=expected, found=repr(self.storage))
        if isinstance(self.parameters, str):
            _one_of("parameters", self.parameters, ("linear", "linear+base", "all"))
        if isinstance(self.second_moment, str):
            _one_of("second_moment", self.second_moment, ("estimate",))
        turned = isinstance(self.projection, TopEigenvectors)
        if turned and (self.second_moment is not None or self.parameters == "all"):
            raise InputError(
                "TopEigenvectors are those of the plain gradients of linear layers",
                expected='second_moment=None and parameters="linear" or a filter',
                found="a second moment" if self.second_moment is not None else 'parameters="all"',
            )

    def describe(self) -> dict[str, Any]:
        """JSON-serialisable; a filter is recorded as the parameters it chose, by the layout."""
        projection: dict[str, Any] | None = None
        if self.projection is not None:
            projection = {"kind": type(self.projection).__name__, **vars(self.projection)}
        moment = self.second_moment
        described = moment
        if moment is not None and not isinstance(moment, str):
            described = f"{moment.label} [{moment.digest}]"
        return {
            "projection": projection,
            "parameters": self.parameters if isinstance(self.parameters, str) else "filter",
            "output": self.output,
            "second_moment": described,
            "storage": self.storage,
            "seed": self.seed,
        }

    @classmethod
    def from_description(cls, record: dict[str, Any]) -> Features:
        """The Features a manifest describes (its second moment is read with the index)."""
        kinds = {kind.__name__: kind for kind in (TwoSided, LayerBlocks, TopEigenvectors)}
        projection = record["projection"]
        if projection is not None:
            fields = {k: v for k, v in projection.items() if k != "kind"}
            projection = kinds[projection["kind"]](**fields)
        parameters = record["parameters"]
        return cls(
            projection=projection,
            parameters="linear" if parameters == "filter" else parameters,
            output=record["output"],
            second_moment="estimate" if record["second_moment"] == "estimate" else None,
            storage=record["storage"],
            seed=record["seed"],
        )
