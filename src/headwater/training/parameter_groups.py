"""Which parameters are decayed: the rule of transformers.Trainer, written out.

An optimizer file knows parameters only by number, in the order of these groups, so the rule is
what turns the numbers back into names. Older releases of transformers had another rule for norms;
both are here, for files written by either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Groups = tuple[dict[str, "torch.nn.Parameter"], dict[str, "torch.nn.Parameter"]]

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
_NORM_CLASS = re.compile(r"layernorm|rmsnorm", re.IGNORECASE)


def trainable_groups(model: torch.nn.Module) -> Groups:
    """The trainable parameters by name, in order: those that are decayed, and the others.

    Not decayed: parameters of LayerNorm modules, and those whose name speaks of a bias or a norm.
    """
    from torch import nn

    inside = _names_inside(model, lambda module: isinstance(module, nn.LayerNorm))
    return _split(model, lambda name: name in inside or bool(_NO_DECAY.search(name.lower())))


def trainable_groups_by_type(model: torch.nn.Module) -> Groups:
    """The same split by the older rule: norms are known by their class, biases by their name."""
    inside = _names_inside(model, lambda module: bool(_NORM_CLASS.search(type(module).__name__)))
    return _split(model, lambda name: name in inside or "bias" in name)


def _names_inside(model: torch.nn.Module, is_norm: Callable[[torch.nn.Module], bool]) -> set[str]:
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if is_norm(module)
        for name, _ in module.named_parameters()
    }


def _split(model: torch.nn.Module, plain: Callable[[str], bool]) -> Groups:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return (
        {name: p for name, p in named.items() if not plain(name)},
        {name: p for name, p in named.items() if plain(name)},
    )
