"""All methods by their names on the command line: views of features, and rankers of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.evidence.lexical import BM25
from headwater.evidence.random_scores import Random
from headwater.evidence.repsim import RepSim
from headwater.evidence.semantic import Dense
from headwater.methods.grad_cos import GradCos
from headwater.methods.grad_dot import GradDot
from headwater.methods.logra import LoGra
from headwater.methods.relatif import LRelatIF
from headwater.methods.trackstar import TrackStar
from headwater.methods.trak import TRAK

if TYPE_CHECKING:
    from headwater.methods.method import Method

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        TrackStar,
        GradCos,
        GradDot,
        LoGra,
        LRelatIF,
        TRAK,
        BM25,
        Dense,
        RepSim,
        Random,
    )
}


def method_by_name(name: str, **options: object) -> Method:
    """A method with its defaults, or with `options`.

    Raises:
        InputError: when there is none of this name (lists them), or it has no such option.
    """
    if name not in METHODS:
        raise InputError("There is no such method", expected=", ".join(METHODS), found=name)
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise InputError(
            f"{METHODS[name].title} does not take these options",
            expected="the options of its own",
            found=", ".join(options),
        ) from error
