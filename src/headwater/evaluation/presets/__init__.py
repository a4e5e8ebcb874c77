"""The boards that can be asked for by name. Each preset names its recipe completely.

A preset is a module with `setting(asked)`, which trains its model (or finds it in the cache) and
says what is judged by what; or with `preset(asked)`, where a board is made of several settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.evaluation.board import board

if TYPE_CHECKING:
    from headwater.evaluation.board import Board
    from headwater.evaluation.presets.common import Asked

PRESETS = {
    "digits": "a small net on images with wrong labels: LDS, detection, leave-top-k-out",
    "linear": "ridge and logistic regression: against exact leave-one-out",
    "small-lm": "a transformer on real English: LDS on two banks, agreement with MAGIC",
    "facts": "the demo's facts: retrieval, tail patch, leave-top-k-out",
    "scaling": "three sizes x three amounts of training on the facts: TrackStar beside BM25",
}


def preset_board(name: str, asked: Asked) -> Board:
    """The board of a preset.

    Raises:
        InputError: when there is none of this name, or it lacks a package.
    """
    if name not in PRESETS:
        raise InputError("There is no such preset", expected=", ".join(PRESETS), found=repr(name))
    module: Any = importlib.import_module(f"headwater.evaluation.presets.{name.replace('-', '_')}")
    whole: Any = getattr(module, "preset", None)
    return board(module.setting(asked)) if whole is None else whole(asked)
