"""Which parameters are attributed, and which are not: the choice and its coverage.

A parameter is counted once, however many modules use it (tied weights), and nothing is left out
silently: `coverage` names what is not attributed, by module type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    import torch

    from headwater.gradients.features import ModuleFilter
    from headwater.tasks.task import Task

Kind = Literal["linear", "conv1d", "conv2d", "embedding", "bias", "other"]
MATRICES: tuple[Kind, ...] = ("linear", "conv1d", "conv2d")  # gradients sum_t d_t a_t^T


@dataclass(frozen=True)
class Parameter:
    """One attributed parameter.

    Args:
        name: as in `model.named_parameters()`.
        kind: of its first use.
        shape: as stored.
        rows, columns: of its gradient, oriented (out, in); one-dimensional ones have one column.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    rows: int
    columns: int


@dataclass(frozen=True)
class Use:
    """One module's use of a parameter, under the module's own name for it (weight, bias, ...)."""

    module: str
    attribute: str
    kind: Kind
    parameter: Parameter


def choose(
    task: Task, parameters: str | ModuleFilter, names: list[str] | None = None
) -> tuple[list[Use], dict[str, Any]]:
    """The uses to capture, in module order, and the coverage.

    Args:
        task: the task whose model is meant.
        parameters: as in `Features`.
        names: parameter names fixed earlier (by a manifest); they then decide.

    Raises:
        InputError: when nothing is chosen, or the tied head is asked for as a module of its own.
    """
    model, head = task.model, task.head_module()
    owners = _owners(model)
    adapted = any("lora_" in name for name, _ in model.named_parameters())
    chosen: set[int] = set()
    for name, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            kind = kind_of(module, attribute)
            if names is not None:
                wanted = owners[id(parameter)] in names
            else:
                wanted = _wanted(name, module, kind, parameters, head, adapted)
            if wanted:
                _refuse_tied_head(parameters, names, name, head, owners[id(parameter)])
                chosen.add(id(parameter))
    uses = _uses(model, chosen, owners)
    if not uses:
        raise InputError(
            "No parameter of the model is attributed",
            expected="at least one Linear, Conv1D or Conv2d layer",
            found=", ".join(sorted({type(m).__name__ for m in model.modules()}))[:200],
        )
    return uses, coverage(model, uses)


def choose_matrices(
    task: Task, parameters: str | ModuleFilter, modules: Sequence[str] | None = None
) -> list[Use]:
    """The uses of weights whose gradients are taken as whole matrices.

    Args:
        task: the task whose model is meant.
        parameters: "linear", "linear+base" or a filter of modules, as in `Features`.
        modules: of these only weights whose name matches one of the patterns; None = all.

    Raises:
        InputError: for other parameters, when nothing is chosen, or when a chosen weight has a use
            whose share of its gradient would be missing.
    """
    if not callable(parameters) and parameters not in ("linear", "linear+base"):
        raise InputError(
            "These parameters can't be attributed in full dimension",
            expected='"linear", "linear+base", or a filter (module name, module) -> bool',
            found=repr(parameters),
        )
    uses, _ = choose(task, parameters)
    if modules is not None:
        patterns = [modules] if isinstance(modules, str) else list(modules)
        named = {
            use.parameter.name
            for use in uses
            if matches(use.parameter.name, patterns) or matches(f"{use.module}.weight", patterns)
        }
        if not named:
            raise InputError(
                "No attributed module matches",
                expected=f"a pattern of names such as {uses[0].module}",
                found=", ".join(patterns) or "no pattern",
            )
        uses = [use for use in uses if use.parameter.name in named]
    for use in uses:
        if use.kind not in MATRICES:
            raise InputError(
                f"The weight {use.parameter.name} is used by {use.module} too, which is no plain "
                "linear layer: its gradient would lack that share",
                expected="weights that only linear layers use",
                do="leave it out with a filter, or store features with parameters='all'",
            )
    return uses


def own_biases(model: torch.nn.Module, uses: Sequence[Use]) -> dict[str, str]:
    """By weight the name of the bias that is its own: of all its uses, and of no other weight's."""
    named = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, set[str | None]] = {}
    weights: dict[str | None, set[str]] = {}
    for use in uses:
        bias = getattr(model.get_submodule(use.module), "bias", None)
        name = named.get(id(bias))
        found.setdefault(use.parameter.name, set()).add(name)
        weights.setdefault(name, set()).add(use.parameter.name)
    return {
        weight: name
        for weight, names in found.items()
        if len(names) == 1 and (name := next(iter(names))) is not None and len(weights[name]) == 1
    }


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter's name, or that of its module, fits a pattern (`*` as in file names)."""
    module = name.rpartition(".")[0]
    return any(fnmatchcase(name, one) or fnmatchcase(module, one) for one in patterns)


def _owners(model: torch.nn.Module) -> dict[int, str]:
    """The first name of each parameter, by identity."""
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), f"{name}.{attribute}" if name else attribute)
    return owners


def _uses(model: torch.nn.Module, chosen: set[int], owners: dict[int, str]) -> list[Use]:
    made: dict[int, Parameter] = {}
    uses: list[Use] = []
    for name, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in chosen:
                continue
            kind = kind_of(module, attribute)
            if id(parameter) not in made:
                shape = tuple(parameter.shape)
                rows, columns = orient(kind, shape)
                made[id(parameter)] = Parameter(owners[id(parameter)], kind, shape, rows, columns)
            uses.append(Use(name, attribute, kind, made[id(parameter)]))
    return uses


def kind_of(module: torch.nn.Module, attribute: str) -> Kind:
    """How the gradient of this parameter is formed; "other" for layers that compute otherwise."""
    import torch

    forward = type(module).forward  # a subclass may scale, or take other inputs
    if isinstance(module, torch.nn.Linear) and forward is torch.nn.Linear.forward:
        return "linear" if attribute == "weight" else "bias"
    if isinstance(module, torch.nn.Embedding) and forward is torch.nn.Embedding.forward:
        plain = module.max_norm is None and not module.scale_grad_by_freq
        return "embedding" if plain else "other"
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return "conv1d" if attribute == "weight" else "bias"
    if isinstance(module, torch.nn.Conv2d) and forward is torch.nn.Conv2d.forward:
        # Grouped, reflecting and 'same' convolutions go the slower way of any other module.
        plain = module.groups == 1 and module.padding_mode == "zeros"
        if plain and not isinstance(module.padding, str):
            return "conv2d" if attribute == "weight" else "bias"
    return "other"


def orient(kind: Kind, shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) = (out, in) of a stored shape; transformers' Conv1D stores (in, out)."""
    if kind == "conv1d":
        return shape[1], shape[0]
    return (shape[0], prod(shape[1:])) if shape else (1, 1)


def _wanted(
    name: str,
    module: torch.nn.Module,
    kind: Kind,
    parameters: str | ModuleFilter,
    head: str | None,
    adapted: bool,
) -> bool:
    """Whether a weight of this module is chosen; `adapted`: whether the model has adapters."""
    if parameters == "all":
        return True
    if kind not in MATRICES:
        return False
    if callable(parameters):
        return bool(parameters(name, module))
    if head is not None and (name == head or name.startswith(f"{head}.")) and "lora_" not in name:
        return False
    return "lora_" in name if parameters == "linear" and adapted else True


def _refuse_tied_head(
    parameters: str | ModuleFilter, names: list[str] | None, name: str, head: str | None, owner: str
) -> None:
    if callable(parameters) and names is None and name == head and not owner.startswith(name + "."):
        raise InputError(
            f"The output head {head} has no weight of its own: it is tied to {owner}",
            expected="modules with their own weight",
            do="leave it out; features that are stored with parameters='all' count it once, with "
            "both its uses",
        )


def coverage(model: torch.nn.Module, uses: list[Use]) -> dict[str, Any]:
    """Share of parameters attributed; what is not, by module type.

    Returns:
        {"attributed": n, "total": n, "share": s, "modules": n, "missing": {type: n}},
        JSON-serialisable; numbers count parameters, tied ones once.
    """
    taken = {use.parameter.name for use in uses}
    owners = _owners(model)
    missing: Counter[str] = Counter()
    total = done = 0
    seen: set[int] = set()
    for module in model.modules():
        for _, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            total += parameter.numel()
            if owners[id(parameter)] in taken:
                done += parameter.numel()
            else:
                missing[type(module).__name__] += parameter.numel()
    return {
        "attributed": done,
        "total": total,
        "share": done / max(total, 1),
        "modules": len({use.module for use in uses}),
        "missing": dict(missing.most_common()),
    }
