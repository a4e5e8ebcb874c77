"""What a training left behind: its checkpoints in order, their steps, learning rates, optimizers.

It reads our own folders, the output of transformers.Trainer, and a single model folder, which is
a run of one. Only JSON is read here; `training_args.bin`, a pickle, is never opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError, MismatchError
from headwater.training.logged_rates import rates_of_steps
from headwater.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.second_moment import SecondMoment
    from headwater.tasks.task import Task

RUN_FILE = "run.json"
TRAINER_STATE = "trainer_state.json"
OPTIMIZER_FILES = ("optimizer.safetensors", "optimizer.pt", "optimizer.bin")
ADAPTER = "adapter_model.safetensors"
_FOLDER = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    ADAPTER,
)


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a model.

    Attributes:
        path: the folder with the weights, as `from_pretrained` takes it.
        step: optimizer steps done; None when nothing says so.
        learning_rate: the rate at that step; None when nothing says so.
        optimizer: the file with the optimizer's state, if there is one.
    """

    path: Path
    step: int | None = None
    learning_rate: float | None = None
    optimizer: Path | None = None

    def load_into(self, model: torch.nn.Module) -> None:
        """Copy the weights of this checkpoint into `model`, in place.

        Raises InputError when there are no weights in safetensors, MismatchError when a name or a
        shape differs.
        """
        load_weights(model, self.path)


@dataclass(frozen=True)
class TrainingRun:
    """A training as far as it is known: `checkpoints` in the order of their steps.

    Attributes:
        checkpoints: at least one when opened from disk; none for a run kept in memory only.
        steps: optimizer steps of the whole run; None when nothing says so.
        recipe: how it was trained, for runs of our own loop.
        learning_rates: the rate of each step, from step 1; empty when not known. Of a Trainer's
            run, which logs only some of them, see `training.logged_rates`.
        losses: the mean loss of each step's batch; empty when not known.
    """

    checkpoints: tuple[Checkpoint, ...]
    steps: int | None = None
    recipe: Recipe | None = None
    learning_rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()

    def second_moment(
        self, task: Task, parameters: str | ModuleFilter = "linear", *, exact: bool = False
    ) -> SecondMoment:
        """The optimizer's second moment at the last checkpoint, for `Features(second_moment=)`.

        Args, Raises: see `training.second_moment.load_second_moment`.
        """
        from headwater.training.second_moment import load_second_moment

        return load_second_moment(self, task, parameters, exact=exact)

    @classmethod
    def open(cls, path: str | Path) -> TrainingRun:
        """Read a folder: one of ours, a transformers.Trainer output, a checkpoint, or a model.

        Raises InputError when the folder is none of these.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError("No such training run", expected="a folder", found=repr(str(path)))
        if (folder / RUN_FILE).is_file():
            return _open_ours(folder)
        numbered = _numbered(folder)
        if numbered:
            return _open_trainer(numbered)
        if any((folder / name).is_file() for name in _WEIGHTS):
            return _open_single(folder)
        raise InputError(
            f"{folder} is not a training run",
            expected=f"{RUN_FILE}, checkpoint-<step> folders, or {_WEIGHTS[0]}",
            found=_some_names(folder),
        )


def _open_ours(folder: Path) -> TrainingRun:
    """Our own layout: everything is in `run.json`; paths in it stay inside the folder."""
    data = read_json(folder / RUN_FILE)
    try:
        rates = tuple(float(rate) for rate in data["learning_rates"])
        losses = tuple(float(loss) for loss in data["losses"])
        steps = int(data["steps"])
        saved = [int(step) for step in data["checkpoints"]]
        recipe = Recipe.from_json(data["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / RUN_FILE} is not usable",
            expected="the fields recipe, steps, learning_rates, losses, checkpoints",
            found=f"{type(error).__name__} at {error}",
        ) from error
    checkpoints: list[Checkpoint] = []
    for step in saved:
        place = checkpoint_folder(folder, step)
        if not place.is_dir():
            raise InputError(
                f"{folder / RUN_FILE} lists a checkpoint that is gone", expected=f"folder {place}"
            )
        rate = rates[step - 1] if step <= len(rates) else None
        checkpoints.append(Checkpoint(place, step, rate, _optimizer_file(place)))
    return TrainingRun(tuple(checkpoints), steps, recipe, rates, losses)


def _open_trainer(numbered: list[tuple[int, Path]]) -> TrainingRun:
    """The layout of transformers.Trainer. The last `trainer_state.json` tells the whole history."""
    history: dict[int, float] = {}
    steps: int | None = None
    for _, place in numbered:
        if (place / TRAINER_STATE).is_file():
            steps = _read_state(place, history) or steps
    last = numbered[-1][0]
    steps = last if steps is None else max(steps, last)
    rates = rates_of_steps(history, steps)
    checkpoints = [
        Checkpoint(place, step, _rate_at(rates, step), _optimizer_file(place))
        for step, place in numbered
    ]
    return TrainingRun(tuple(checkpoints), steps, learning_rates=rates)


def _open_single(folder: Path) -> TrainingRun:
    """One model folder, a checkpoint of a Trainer or of ours among them: a run that ends there."""
    history: dict[int, float] = {}
    named = _FOLDER.fullmatch(folder.resolve().name)
    step = int(named.group(1)) if named else None
    for _, place in _numbered(folder.resolve().parent) if named else []:
        if (place / TRAINER_STATE).is_file():  # what was logged later tells of the steps before
            _read_state(place, history)
    if (folder / TRAINER_STATE).is_file():
        step = _read_state(folder, history) or step
    elif step is not None and (folder.parent / RUN_FILE).is_file():
        whole = _open_ours(folder.parent)
        for checkpoint in whole.checkpoints:
            if checkpoint.step == step:
                rates, losses = whole.learning_rates[:step], whole.losses[:step]
                return TrainingRun((checkpoint,), step, learning_rates=rates, losses=losses)
    rates = rates_of_steps(history, step or 0)
    checkpoint = Checkpoint(folder, step, _rate_at(rates, step), _optimizer_file(folder))
    return TrainingRun((checkpoint,), step, learning_rates=rates)


def _read_state(folder: Path, history: dict[int, float]) -> int | None:
    """Add the logged learning rates of a `trainer_state.json` to `history`; its global step."""
    state = read_json(folder / TRAINER_STATE)
    for entry in state.get("log_history") or []:
        if isinstance(entry, dict) and "learning_rate" in entry and "step" in entry:
            history[int(entry["step"])] = float(entry["learning_rate"])
    step = state.get("global_step")
    return None if step is None else int(step)


def _rate_at(rates: tuple[float, ...], step: int | None) -> float | None:
    """The rate of a step, where the rates of all steps are known."""
    return rates[step - 1] if step is not None and 1 <= step <= len(rates) else None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    found: list[tuple[int, Path]] = []
    for place in folder.iterdir():
        named = _FOLDER.fullmatch(place.name)
        if named and place.is_dir() and any((place / name).is_file() for name in _WEIGHTS):
            found.append((int(named.group(1)), place))
    return sorted(found)


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of that step lies in a run's folder."""
    return out / f"checkpoint-{step}"


def _optimizer_file(folder: Path) -> Path | None:
    return next((folder / name for name in OPTIMIZER_FILES if (folder / name).is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError when it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read", expected="JSON", found=str(error)) from error
    if not isinstance(data, dict):
        raise InputError(
            f"{path} is not usable", expected="a JSON object", found=type(data).__name__
        )
    return data


def _some_names(folder: Path) -> str:
    names = sorted(place.name for place in folder.iterdir())
    if not names:
        return "an empty folder"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Copy the safetensors weights of `folder` into `model`, in place; see Checkpoint.load_into.

    A name may be missing from the file when its tensor is tied to one that is there. Of a folder
    with an adapter only, the adapter's weights are copied; the model must have that adapter.
    """
    from safetensors.torch import load_file

    if (folder / ADAPTER).is_file() and not (folder / "model.safetensors").is_file():
        _load_adapter(model, folder)
        return
    names = _weight_files(folder)
    state = {name: value for path in names for name, value in load_file(path).items()}
    own = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            found = "no such tensor" if name not in own else str(tuple(own[name].shape))
            raise MismatchError(
                f"{folder} does not fit the model",
                expected=f"{name} of shape {tuple(value.shape)}",
                found=found,
            )
    present = {own[name].data_ptr() for name in state}
    missing = [name for name, value in own.items() if value.data_ptr() not in present]
    if missing:
        raise MismatchError(
            f"{folder} does not fit the model",
            expected=f"all {len(own)} tensors",
            found=f"none for {missing[0]}",
        )
    model.load_state_dict(state, strict=False)


def _load_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Copy an adapter's weights, saved without its name, into the model's adapter."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / ADAPTER)
    own = {_unnamed(model, name): p for name, p in model.named_parameters() if _adapted(name)}
    for name in sorted(saved.keys() | own.keys()):
        found = [tuple(held[name].shape) if name in held else "none" for held in (saved, own)]
        if found[0] != found[1]:
            raise MismatchError(
                f"{folder} does not fit the model's adapter",
                expected=f"{name} of shape {found[0]}",
                found=found[1],
                do="load the model with this run's adapter (--adapter, adapter=)",
            )
    with torch.no_grad():
        for name, value in saved.items():
            own[name].copy_(value)


def _adapted(name: str) -> bool:
    return "lora_" in name or "modules_to_save" in name


def _unnamed(model: torch.nn.Module, name: str) -> str:
    """A parameter's name as peft saves it: without the adapter's own name."""
    for adapter in getattr(model, "peft_config", {}):
        name = name.replace(f".modules_to_save.{adapter}.", ".").replace(f".{adapter}.", ".")
    return name


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise InputError(
            f"{folder} holds no weights that can be read",
            expected="model.safetensors",
            found=_some_names(folder) if folder.is_dir() else "no such folder",
        )
    parts = sorted(set((read_json(index).get("weight_map") or {}).values()))
    paths = [folder / part for part in parts]
    outside = [path for path in paths if path.resolve().parent != folder.resolve()]
    if outside or not paths:
        raise InputError(f"{index} is not usable", expected="files inside its folder")
    return paths
