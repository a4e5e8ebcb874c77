"""Where each parameter's projected gradient goes in the feature vector.

A block is a contiguous stretch of the vector with its own second-order statistics: one parameter
(`TwoSided`, full gradients) or several layers of one sort (`LayerBlocks`).

The partition rule of LayerBlocks: L numbered layers are split into min(groups, L) runs as equal as
possible (layer l goes to run l * runs // L); in a run, a parameter belongs to the attention block
if its name contains "attn" or "attention", else to the MLP block. Parameters before the first
numbered layer join the first run, those after the last one the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from headwater.gradients.features import LayerBlocks, TopEigenvectors, TwoSided
from headwater.gradients.parameters import Parameter, Use


@dataclass(frozen=True)
class Block:
    """A stretch [offset, offset + size) of the feature vector: a `rows` x `columns` matrix."""

    name: str
    offset: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Dimensions of the block."""
        return self.rows * self.columns

    @property
    def part(self) -> slice:
        """The block's columns of a feature matrix."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Place:
    """Where a parameter goes: its block, and which of its sides are projected."""

    block: Block
    project_out: bool
    project_in: bool


@dataclass(frozen=True)
class Layout:
    """The blocks in order, and each parameter's place (by parameter name)."""

    blocks: tuple[Block, ...]
    places: dict[str, Place]

    @property
    def size(self) -> int:
        """Dimensions of the feature vector."""
        return self.blocks[-1].offset + self.blocks[-1].size

    def describe(self) -> list[dict[str, Any]]:
        """JSON-serialisable, with the parameters of each block."""
        members: dict[str, list[str]] = {block.name: [] for block in self.blocks}
        for name, place in self.places.items():
            members[place.block.name].append(name)
        return [
            {"name": b.name, "rows": b.rows, "columns": b.columns, "parameters": members[b.name]}
            for b in self.blocks
        ]


def make_layout(uses: list[Use], projection: TwoSided | LayerBlocks | None) -> Layout:
    """The layout of these parameters under `projection`; deterministic in their order."""
    parameters = list({use.parameter.name: use.parameter for use in uses}.values())
    if isinstance(projection, LayerBlocks):
        return _layer_blocks(parameters, projection)
    blocks: list[Block] = []
    places: dict[str, Place] = {}
    offset = 0
    for parameter in parameters:
        rows, columns = _sides(parameter, projection)
        block = Block(parameter.name, offset, rows, columns)
        offset += block.size
        blocks.append(block)
        turned = isinstance(projection, TopEigenvectors)
        out, inn = turned or rows < parameter.rows, turned or columns < parameter.columns
        places[parameter.name] = Place(block, out, inn)
    return Layout(tuple(blocks), places)


def _sides(parameter: Parameter, projection: TwoSided | None) -> tuple[int, int]:
    if projection is None:
        return parameter.rows, parameter.columns
    if parameter.columns == 1:  # a vector: all of the block's dimensions for its one side
        return min(parameter.rows, projection.rows * projection.columns), 1
    return min(parameter.rows, projection.rows), min(parameter.columns, projection.columns)


def _layer_blocks(parameters: list[Parameter], projection: LayerBlocks) -> Layout:
    numbers = [layer_number(parameter.name) for parameter in parameters]
    layers = sorted({number for number in numbers if number is not None})
    runs = max(1, min(projection.groups, len(layers)))
    rank = {layer: index * runs // max(len(layers), 1) for index, layer in enumerate(layers)}
    seen_layer = False
    keys: list[tuple[int, str]] = []
    for parameter, number in zip(parameters, numbers, strict=True):
        seen_layer |= number is not None
        run = rank[number] if number is not None else (runs - 1 if seen_layer else 0)
        keys.append((run, "attention" if re.search("attn|attention", parameter.name) else "mlp"))
    blocks: dict[tuple[int, str], Block] = {}
    size = projection.rows * projection.columns
    for key in sorted(set(keys)):
        name = f"layers {key[0]} {key[1]}"
        blocks[key] = Block(name, len(blocks) * size, projection.rows, projection.columns)
    places = {
        parameter.name: Place(blocks[key], True, True)
        for parameter, key in zip(parameters, keys, strict=True)
    }
    return Layout(tuple(blocks.values()), places)


def layer_number(name: str) -> int | None:
    """The first number among the parts of a dotted name: its layer."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
