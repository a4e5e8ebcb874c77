"""All methods by their names: views of features, passes over the corpus, rankers of texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.evidence.fusion import Fusion
from headwater.evidence.lexical import BM25
from headwater.evidence.lexical_tantivy import Tantivy
from headwater.evidence.random_scores import Random
from headwater.evidence.repsim import RepSim
from headwater.evidence.semantic import Dense
from headwater.evidence.two_stage import TwoStage
from headwater.methods.arnoldi import Arnoldi
from headwater.methods.datainf import DataInf
from headwater.methods.dda import CEA, DDA
from headwater.methods.ekfac import EKFAC, KFAC
from headwater.methods.ensemble import Ensemble
from headwater.methods.grad_cos import GradCos
from headwater.methods.grad_dot import GradDot
from headwater.methods.less import LESS
from headwater.methods.logra import LoGra
from headwater.methods.lorif import LoRIF
from headwater.methods.magic import MAGICOfRun
from headwater.methods.mirrored import Mirrored
from headwater.methods.projected_ekfac import ProjectedEKFAC
from headwater.methods.relatif import LRelatIF
from headwater.methods.source import SOURCE
from headwater.methods.tracin import TracInCP
from headwater.methods.trackstar import TrackStar
from headwater.methods.trak import TRAK
from headwater.methods.view import View

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
        LoRIF,
        TRAK,
        EKFAC,
        KFAC,
        ProjectedEKFAC,
        DataInf,
        Arnoldi,
        Mirrored,
        TracInCP,
        LESS,
        SOURCE,
        DDA,
        CEA,
        MAGICOfRun,
        BM25,
        Tantivy,
        Dense,
        RepSim,
        Random,
    )
}


ENSEMBLE = "-ensemble"  # of a view's name: over all feature sets of the index


def method_by_name(name: str, **options: object) -> Method:
    """A method with its defaults, or with `options`.

    `bm25+trackstar` is the fusion of the two, `bm25:200:trackstar` the second on the first 200 of
    the first, `trak-ensemble` a view over the index's feature sets; each of them gets those of the
    options that it has.

    Raises:
        InputError: when there is none of this name (lists them), or no part has such an option.
    """
    parts = [part for part in parts_of(name) if part in METHODS]
    unknown = [option for option in options if not any(takes(part, option) for part in parts)]
    if unknown and len(parts) == len(parts_of(name)):
        own = list(dict.fromkeys(option for part in parts for option in options_of(part)))
        raise InputError(
            f"{name} does not take these options",
            expected=", ".join(own) or "none",
            found=", ".join(unknown),
        )
    return _made(name, options)


def parts_of(name: str) -> list[str]:
    """Names of the single methods in a name."""
    parts = [part for part in name.replace("+", ":").split(":") if not part.isdecimal()]
    return [part.removesuffix(ENSEMBLE) for part in parts]


def options_of(name: str) -> Sequence[str]:
    """The options of a single method."""
    given = inspect.signature(METHODS[name]).parameters.values()
    return [one.name for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def required(name: str) -> list[str]:
    """The options without which a single method cannot be made."""
    given = inspect.signature(METHODS[name]).parameters
    return [one for one in options_of(name) if given[one].default is inspect.Parameter.empty]


def annotation(name: str, option: str) -> str:
    """How the type of a single method's option is written; empty where there is none."""
    if name not in METHODS or not takes(name, option):
        return ""
    return str(inspect.signature(METHODS[name]).parameters[option].annotation)


def takes(name: str, option: str) -> bool:
    """Whether a single method has this option."""
    return option in options_of(name)


def _made(name: str, options: dict[str, object]) -> Method:
    if "+" in name:
        return Fusion(*(_made(part, options) for part in name.split("+")))
    if ":" in name:
        return _two_stage(name, options)
    if name.endswith(ENSEMBLE):
        view = _made(name.removesuffix(ENSEMBLE), options)
        if isinstance(view, View):
            return Ensemble(view)
        raise InputError(
            "Only views of stored features make an ensemble",
            expected=", ".join(name for name, one in METHODS.items() if issubclass(one, View)),
            found=view.name,
        )
    if name not in METHODS:
        raise InputError("There is no such method", expected=", ".join(METHODS), found=name)
    mine = {key: value for key, value in options.items() if takes(name, key)}
    lacking = [one for one in required(name) if one not in mine]
    if lacking:
        raise InputError(
            f"{METHODS[name].title} lacks {' and '.join(lacking)}",
            expected=METHODS[name].needs,
            do="name it: " + ", ".join(f"--{one} FOLDER" for one in lacking),
        )
    for key, value in mine.items():
        _check_type(name, key, value)
    return METHODS[name](**mine)


def _check_type(name: str, option: str, value: object) -> None:
    """Refuse what its default says is of the wrong kind; the method itself checks the rest."""
    default = inspect.signature(METHODS[name]).parameters[option].default
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    numeric = set(annotation(name, option).split(" | ")) <= {"int", "float", "None", "Damping"}
    fits = {
        bool: isinstance(value, bool),
        int: number and isinstance(value, int),
        float: number,
        str: isinstance(value, str),
    }.get(type(default), not (numeric and isinstance(value, str)))
    if not fits:
        raise InputError(
            f"{METHODS[name].title}: {option} is of the wrong kind",
            expected=annotation(name, option),
            found=repr(value),
        )


def _two_stage(name: str, options: dict[str, object]) -> Method:
    first, _, rest = name.partition(":")
    count, _, then = rest.partition(":")
    if not count.isdecimal() or not then:
        raise InputError(
            "A two-stage search is not understood", expected="FIRST:COUNT:THEN", found=repr(name)
        )
    return TwoStage(_made(first, options), _made(then, options), int(count))
