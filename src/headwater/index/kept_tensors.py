"""Tensors kept in an index's folder for the next time: a help, never a need.

What cannot be read counts as missing, and what cannot be written is only noted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwater.engine.errors import HeadwaterError
from headwater.engine.files import write_atomic
from headwater.index.mapped import map_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

logger = logging.getLogger(__name__)


def recall(path: Path) -> dict[str, torch.Tensor]:
    """The tensors that were kept there; none where there are none, or they are damaged."""
    if not path.exists():
        return {}
    try:
        return map_tensors(path)
    except HeadwaterError:
        return {}


def remember(path: Path, tensors: Mapping[str, torch.Tensor], said: str) -> None:
    """Keep these tensors; `said` names them in the log where that fails."""
    from safetensors.torch import save_file

    ready = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        write_atomic(path, lambda temporary: save_file(ready, temporary))
    except Exception as error:
        logger.info("%s are not kept: %s", said, error)
