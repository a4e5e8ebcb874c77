"""All methods by their names on the command line: views of features, and rankers of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.evidence.fusion import Fusion
from headwater.evidence.lexical import BM25
from headwater.evidence.random_scores import Random
from headwater.evidence.repsim import RepSim
from headwater.evidence.semantic import Dense
from headwater.evidence.two_stage import TwoStage
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

    `bm25+trackstar` is the fusion of the two, `bm25:200:trackstar` the second on the first 200 of
    the first; options are then those of the one method that takes them.

    Raises:
        InputError: when there is none of this name (lists them), or it has no such option.
    """
    if "+" in name:
        return Fusion(*(_part(part, options) for part in name.split("+")))
    if ":" in name:
        return _two_stage(name, options)
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


def parts_of(name: str) -> list[str]:
    """Names of the single methods in a name."""
    return [part for part in name.replace("+", ":").split(":") if not part.isdecimal()]


def _part(name: str, options: dict[str, object]) -> Method:
    mine = options if "trackstar" in parts_of(name) and "eval_queries" in options else {}
    return method_by_name(name, **mine)


def _two_stage(name: str, options: dict[str, object]) -> Method:
    first, _, rest = name.partition(":")
    count, _, then = rest.partition(":")
    if not count.isdecimal() or not then:
        raise InputError(
            "A two-stage search is not understood", expected="FIRST:COUNT:THEN", found=repr(name)
        )
    return TwoStage(_part(first, options), _part(then, options), int(count))
