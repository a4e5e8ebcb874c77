"""Second moments of the optimizer, by parameter name, from what a training left behind.

Adam's are kept in full, Adafactor's as the row and column means it stores; both can be asked for
either. Numbers become names in `optimizer_names.py`, and every name, shape and step is checked
against the model. Files are read without unpickling objects, ever.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headwater.engine.errors import InputError, MismatchError
from headwater.training.optimizer_names import FACTORS, names_of_groups
from headwater.training.run import OPTIMIZER_FILES, Checkpoint

if TYPE_CHECKING:
    import torch

    Moment = torch.Tensor | tuple[torch.Tensor, torch.Tensor]

Kind = Literal["adam", "adafactor"]
FORMAT = "headwater-optimizer-1"


@dataclass(frozen=True)
class SecondMoments:
    """The running mean of squared gradients, V, of each parameter.

    All orientations are the STORED ones: dimension 0 of the parameter's tensor is the row. A
    torch Linear stores [out, in]; a transformers Conv1D (GPT-2) stores [in, out]: whoever uses the
    factors turns them.

    Attributes:
        kind: "adam" (V in full) or "adafactor" (row and column means, vectors in full).
        step: optimizer steps behind it.
        moments: by parameter name: V, float32 in the parameter's shape and corrected for Adam's
            bias towards zero, V / (1 - beta2^step); or Adafactor's (row, col) means, float32.
    """

    kind: Kind
    step: int
    moments: Mapping[str, Moment] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The parameters it speaks of, in the model's order."""
        return list(self.moments)

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Row means [shape[0]] and column means [the rest] of V, float64.

        V ~ row[:, None] * col[None, :] / mean(row), as Adafactor has it. A parameter of more than
        two dimensions is taken as the matrix [shape[0], -1]. Raises InputError for an unknown
        name or a parameter of fewer than two dimensions.
        """
        moment = self._moment(name)
        if isinstance(moment, tuple) and moment[0].dim() == 1:
            return moment[0].double(), moment[1].double()
        whole = self.full(name)
        if whole.dim() < 2:
            raise InputError(
                f"{name} has no row and column means",
                expected="a parameter of two or more dimensions",
                found=f"shape {tuple(whole.shape)}",
                do="use full(name)",
            )
        matrix = whole.reshape(whole.shape[0], -1)
        return matrix.mean(dim=1), matrix.mean(dim=0)

    def full(self, name: str) -> torch.Tensor:
        """V in the parameter's shape, float64; Adafactor's is put together from its factors."""
        moment = self._moment(name)
        if not isinstance(moment, tuple):
            return moment.double()
        row, col = moment[0].double(), moment[1].double()
        scale = row.mean(dim=-1, keepdim=True).clamp_min(1e-300)
        return (row / scale).unsqueeze(-1) * col.unsqueeze(-2)

    def _moment(self, name: str) -> Moment:
        if name not in self.moments:
            raise InputError(
                f"No second moment for {name}",
                expected=f"one of {len(self.moments)} parameters such as {next(iter(self.moments))}"
                if self.moments
                else None,
            )
        return self.moments[name]


def read_second_moments(
    source: str | Path | Checkpoint | torch.optim.Optimizer,
    model: torch.nn.Module,
    *,
    names: Collection[str] | None = None,
) -> SecondMoments:
    """Second moments by parameter name.

    Args:
        source: an `optimizer.pt` of torch or transformers.Trainer, an `optimizer.safetensors` of
            ours, a folder or Checkpoint that holds one, or a torch optimizer in memory.
        model: the model it trained; parameters with requires_grad must be the trained ones.
        names: keep these only.

    Raises InputError when the file cannot be read without unpickling or holds no second moments,
    and MismatchError when it cannot be shown to belong to `model`.
    """
    label, entries = read_entries(source, model, ("exp_avg_sq",))
    state = _assemble(label, entries)
    check_shapes(label, state.moments, model)
    if names is None:
        return state
    for name in names:
        state._moment(name)  # pyright: ignore[reportPrivateUsage]
    kept = {name: value for name, value in state.moments.items() if name in names}
    return SecondMoments(state.kind, state.step, kept)


Entry = tuple[Mapping[str, Any], Mapping[str, Any]]  # a parameter's state, and its group


def read_entries(
    source: str | Path | Checkpoint | torch.optim.Optimizer,
    model: torch.nn.Module,
    keys: Collection[str],
) -> tuple[str, dict[str, Entry]]:
    """What the source is called, and the state of each parameter by name.

    Args, Raises: as in `read_second_moments`. keys: of the states that are wanted.
    """
    path = _path_of(source)
    if path is None:
        return "The optimizer", _named_in_memory(source, model)
    if path.suffix == ".safetensors":
        return str(path), _named_in_safetensors(path, keys)
    return str(path), _named_in_torch_file(path, model)


def write_optimizer(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Save the state as safetensors: `exp_avg.<name>`, `exp_avg_sq.<name>` (SGD:
    `momentum_buffer.<name>`) and `step`, with the betas in the metadata."""
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {"step": torch.tensor(step, dtype=torch.int64)}
    known = {id(p): name for name, p in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
            if isinstance(state.get(key), torch.Tensor):
                tensors[f"{key}.{known[id(parameter)]}"] = state[key].detach().contiguous()
    betas = optimizer.param_groups[0].get("betas")
    metadata = {"format": FORMAT, "kind": type(optimizer).__name__.lower()}
    if betas is not None:
        metadata |= {"beta1": repr(float(betas[0])), "beta2": repr(float(betas[1]))}
    save_file(tensors, str(path), metadata=metadata)


def _path_of(source: Any) -> Path | None:
    """The optimizer's file, or None for an optimizer in memory."""
    if isinstance(source, Checkpoint):
        if source.optimizer is None:
            raise InputError(
                f"Checkpoint {source.path} has no optimizer state",
                expected=" or ".join(OPTIMIZER_FILES),
            )
        source = source.optimizer
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in OPTIMIZER_FILES if (path / name).is_file()]
        if not found:
            raise InputError(
                f"{path} has no optimizer state", expected=" or ".join(OPTIMIZER_FILES)
            )
        return found[0]
    if not path.is_file():
        raise InputError("No such optimizer state", expected="a file", found=repr(str(source)))
    return path


# -- the three sources -----------------------------------------------------------------------


def _named_in_memory(optimizer: Any, model: torch.nn.Module) -> dict[str, Entry]:
    if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "state"):
        raise InputError(
            "This is no source of second moments",
            expected="a file, a folder, a Checkpoint or a torch optimizer",
            found=type(optimizer).__name__,
        )
    known = {id(p): name for name, p in model.named_parameters()}
    entries: dict[str, Entry] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in known:
                raise MismatchError(
                    "The optimizer does not belong to the model",
                    expected="parameters of the model only",
                    found=f"another one of shape {tuple(parameter.shape)}",
                )
            entries[known[id(parameter)]] = (optimizer.state.get(parameter) or {}, group)
    return entries


def _named_in_safetensors(path: Path, keys: Collection[str]) -> dict[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            stored = set(file.keys())
            step = int(file.get_tensor("step")) if "step" in stored else 0
            mark = "exp_avg_sq."
            names = [key.removeprefix(mark) for key in file.keys() if key.startswith(mark)]  # noqa: SIM118
            states = {
                name: {k: file.get_tensor(f"{k}.{name}") for k in keys if f"{k}.{name}" in stored}
                for name in names
            }
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} cannot be read", expected="safetensors", found=str(error)
        ) from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} is not an optimizer state of ours",
            expected=f"format {FORMAT} in its metadata",
            found=metadata.get("format", "none"),
        )
    if not states:
        raise _nothing(str(path), metadata.get("kind", "unknown"))
    group = {"betas": (float(metadata.get("beta1", "nan")), float(metadata["beta2"]))}
    return {name: ({**state, "step": step}, group) for name, state in states.items()}


def _named_in_torch_file(path: Path, model: torch.nn.Module) -> dict[str, Entry]:
    saved = _load_safely(path)
    groups, states = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list) or not isinstance(states, dict):
        raise InputError(
            f"{path} is not an optimizer state",
            expected="the keys state and param_groups",
            found=", ".join(map(str, list(saved)[:4])) or "nothing",
        )
    order = names_of_groups(str(path), groups, states, model)
    return {
        name: (states.get(number) or {}, group)
        for group, listed in zip(groups, order, strict=True)
        for number, name in zip(group["params"], listed, strict=True)
    }


def _load_safely(path: Path) -> dict[str, Any]:
    import torch

    try:
        if not _saved_by_torch(path):
            raise InputError(
                f"{path} is not an optimizer state",
                expected="what torch.save wrote of optimizer.state_dict(), or a checkpoint folder",
                found="a file of another kind",
            )
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors and plain values, and pickles are never loaded",
            expected="what torch.load(weights_only=True) accepts",
            do="save optimizer.state_dict() again without custom objects",
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read", expected="a file of torch.save", found=_first_line(error)
        ) from error
    if not isinstance(saved, dict):
        raise InputError(
            f"{path} is not an optimizer state", expected="a dict", found=type(saved).__name__
        )
    return saved


def _saved_by_torch(path: Path) -> bool:
    """Whether the first bytes are those of a zip archive, or of a pickle (older versions)."""
    with path.open("rb") as file:
        first = file.read(2)
    return first == b"PK" or first[:1] == b"\x80"


# -- from states to moments ------------------------------------------------------------------


def _assemble(label: str, entries: Mapping[str, Entry]) -> SecondMoments:
    moments: dict[str, Moment] = {}
    factored = False
    for name, (state, group) in entries.items():
        moment = _moment_of(state, group, _step_of(state))
        if moment is None:
            keys = ", ".join(sorted(map(str, state))) or "nothing"
            raise _nothing(label, f"{keys} for {name}")
        # Adafactor leaves vectors whole, so one factored matrix tells its kind.
        factored |= isinstance(moment, tuple) or "betas" not in group
        moments[name] = moment
    step = one_step(label, entries)
    return SecondMoments("adafactor" if factored else "adam", step, moments)


def _step_of(state: Mapping[str, Any]) -> int:
    return int(state["step"]) if "step" in state else 0


def one_step(label: str, entries: Mapping[str, Entry]) -> int:
    """The step that all parameters are at.

    Raises:
        MismatchError: when they are at several.
    """
    steps: dict[int, str] = {}
    for name, (state, _) in entries.items():
        steps.setdefault(_step_of(state), name)
    if len(steps) != 1:
        (one, first), (two, second) = list(steps.items())[:2]
        raise MismatchError(
            f"{label} is not of one moment in training",
            expected="the same step for every parameter",
            found=f"{one} for {first} and {two} for {second}",
        )
    return next(iter(steps))


def _moment_of(state: Mapping[str, Any], group: Mapping[str, Any], step: int) -> Moment | None:
    for row, col in FACTORS:
        if row in state and col in state:
            squeezed = row == "row_var"
            return (
                (state[row].squeeze(-1) if squeezed else state[row]).detach().float(),
                (state[col].squeeze(-2) if squeezed else state[col]).detach().float(),
            )
    for key in ("exp_avg_sq", "variance"):
        value = state.get(key)
        if value is not None:
            betas = group.get("betas")
            plain = value.detach().float()
            return plain if betas is None else _corrected(plain, float(betas[1]), step)
    return None


def _corrected(value: torch.Tensor, beta2: float, step: int) -> torch.Tensor:
    """V / (1 - beta2^step): the running mean starts at zero."""
    share = 1.0 - beta2**step
    return value.float() / share if share > 0 else value.float()


def check_shapes(label: str, moments: Mapping[str, Moment], model: torch.nn.Module) -> None:
    """Every trained parameter, in its shape, and no other."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, moment in moments.items():
        found = (
            (*moment[0].shape, moment[1].shape[-1])
            if isinstance(moment, tuple)
            else tuple(moment.shape)
        )
        if name not in shapes or tuple(found) != shapes[name]:
            raise MismatchError(
                f"{label} does not fit the model",
                expected=f"{name} of shape {shapes[name]}" if name in shapes else "its parameters",
                found=f"{name} of shape {tuple(found)}",
            )
    missing = sorted(trained - set(moments))
    if missing:
        raise MismatchError(
            f"{label} does not fit the model",
            expected=f"a second moment for each of {len(trained)} trained parameters",
            found=f"none for {missing[0]}",
        )


def _nothing(label: str, found: str) -> InputError:
    return InputError(
        f"{label} keeps no second moments",
        expected="Adam, AdamW or Adafactor",
        found=found,
        do="estimate them instead: second_moment='estimate'",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
