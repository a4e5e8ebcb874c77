"""The blocks of the feature vector, from a manifest."""

from __future__ import annotations

from typing import Any

from headwater.gradients.layout import Block


def layout_from(record: list[dict[str, Any]]) -> tuple[Block, ...]:
    """Blocks in order, as `Layout.describe` wrote them."""
    blocks: list[Block] = []
    offset = 0
    for entry in record:
        block = Block(entry["name"], offset, entry["rows"], entry["columns"])
        blocks.append(block)
        offset += block.size
    return tuple(blocks)
