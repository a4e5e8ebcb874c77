"""What trainers leave behind, read from folders made by hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headwater.engine.errors import InputError, MismatchError
from headwater.training.run import Checkpoint, TrainingRun, load_weights


def checkpoint(
    out: Path, step: int, history: list[dict] | None = None, optimizer: bool = True
) -> Path:
    place = out / f"checkpoint-{step}"
    place.mkdir(parents=True)
    save_file({"weight": torch.zeros(2, 2)}, str(place / "model.safetensors"))
    if history is not None:
        state = {"global_step": step, "log_history": history}
        (place / "trainer_state.json").write_text(json.dumps(state))
    if optimizer:
        (place / "optimizer.pt").write_bytes(b"x")
    (place / "training_args.bin").write_bytes(b"a pickle that must not be read")
    return place


def test_trainer_output(tmp_path: Path) -> None:
    log = [
        {"step": 5, "learning_rate": 1.0, "loss": 3.0},
        {"step": 10, "learning_rate": 0.5},
        {"step": 10, "eval_loss": 2.0},
        {"step": 20, "learning_rate": 0.1},
    ]
    checkpoint(tmp_path, 10, log[:3])
    checkpoint(tmp_path, 9, log[:1], optimizer=False)
    checkpoint(tmp_path, 100, log)
    (tmp_path / "checkpoint-notes").mkdir()
    run = TrainingRun.open(tmp_path)
    assert [c.step for c in run.checkpoints] == [9, 10, 100]  # by number, not by name
    assert run.checkpoints[0].learning_rate == pytest.approx(0.6)  # between steps 5 and 10
    assert run.checkpoints[1].learning_rate == 0.5
    assert run.checkpoints[2].learning_rate == 0.0  # along the last line, not below zero
    assert run.learning_rates[:12] == pytest.approx(
        [1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.46, 0.42]
    )
    assert run.checkpoints[0].optimizer is None
    assert run.checkpoints[1].optimizer == tmp_path / "checkpoint-10" / "optimizer.pt"
    assert run.steps == 100
    assert run.recipe is None


def test_single_checkpoint_and_single_model(tmp_path: Path) -> None:
    place = checkpoint(tmp_path, 30, [{"step": 30, "learning_rate": 0.25}])
    run = TrainingRun.open(place)
    assert run.checkpoints == (Checkpoint(place, 30, 0.25, place / "optimizer.pt"),)
    model = tmp_path / "model"
    model.mkdir()
    save_file({"weight": torch.zeros(2, 2)}, str(model / "model.safetensors"))
    assert TrainingRun.open(str(model)).checkpoints == (Checkpoint(model),)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such training run.*'/nowhere/at/all'"):
        TrainingRun.open("/nowhere/at/all")
    with pytest.raises(InputError, match="an empty folder"):
        TrainingRun.open(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"is not a training run.*notes\.txt"):
        TrainingRun.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        TrainingRun.open(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": 1}')
    with pytest.raises(InputError, match=r"run\.json is not usable"):
        TrainingRun.open(tmp_path)


def test_paths_stay_inside_the_run(tmp_path: Path) -> None:
    """A checkpoint is a step number, so no text in run.json can lead elsewhere."""
    data = {"steps": 1, "learning_rates": [1], "losses": [1], "recipe": {}}
    (tmp_path / "run.json").write_text(json.dumps(data | {"checkpoints": ["../../etc"]}))
    with pytest.raises(InputError, match="not usable"):
        TrainingRun.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(data | {"checkpoints": [1]}))
    with pytest.raises(InputError, match="a checkpoint that is gone"):
        TrainingRun.open(tmp_path)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 2, bias=False)
        self.two = nn.Linear(3, 2, bias=False)
        self.two.weight = self.one.weight


def test_weights_of_tied_and_sharded_models(tmp_path: Path) -> None:
    value = torch.arange(6.0).reshape(2, 3)
    save_file({"one.weight": value}, str(tmp_path / "model.safetensors"))
    model = Tied()
    load_weights(model, tmp_path)
    assert torch.equal(model.two.weight, value)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    plain = nn.Sequential(nn.Linear(3, 2))
    save_file({"0.weight": value}, str(sharded / "a.safetensors"))
    save_file({"0.bias": torch.ones(2)}, str(sharded / "b.safetensors"))
    index = sharded / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"0.weight": "a.safetensors", "0.bias": "b.safetensors"}})
    )
    load_weights(plain, sharded)
    assert torch.equal(plain[0].bias, torch.ones(2))
    index.write_text(json.dumps({"weight_map": {"0.weight": "../model.safetensors"}}))
    with pytest.raises(InputError, match="inside its folder"):
        load_weights(plain, sharded)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(2, 3)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(MismatchError, match=r"none for 0\.bias"):
        load_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path)
    with pytest.raises(MismatchError, match=r"0\.weight of shape \(2, 3\); found \(3, 3\)"):
        load_weights(nn.Sequential(nn.Linear(3, 3)), tmp_path)
    with pytest.raises(InputError, match="holds no weights"):
        load_weights(nn.Linear(1, 1), tmp_path / "none")
