"""The whole way on a smaller set of facts: train, index, ask, and the truth by training again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.cli import demo as command
from headwater.cli.app import run
from headwater.cli.demo_run import Demo, Setting, Trial, run_demo, verdict
from headwater.index.index import Index
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun

COUNTRIES = (
    "Peru",
    "Chile",
    "Kenya",
    "Japan",
    "Norway",
    "Ghana",
    "Cuba",
    "Egypt",
    "Spain",
    "Poland",
)
RECIPE = Recipe(epochs=40, batch_size=16, learning_rate=1e-2, schedule="linear", warmup_steps=10)
SETTING = Setting(top=4, countries=COUNTRIES, relations=("capital", "domain"), recipe=RECIPE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, list[str]]:
    said: list[str] = []
    return run_demo(tmp_path_factory.mktemp("demo"), SETTING, said.append), said


def test_the_model_learns_and_the_answer_is_found(demo: tuple[Demo, list[str]]) -> None:
    made, said = demo
    assert made.losses[-1] < made.losses[0] / 3
    assert made.trials[0].probability > 0.8
    assert made.trials[0].says == "Lima"
    assert made.answer.proponents[0].id in made.gold
    assert any(share > 0 for _, share in made.answer.proponents[0].tokens)
    stages = [line[:3] for line in said if not line.startswith(" ")]
    assert stages == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_the_attribution_is_true(demo: tuple[Demo, list[str]]) -> None:
    """Taking away what was found hurts far more than taking away as much at random."""
    made, _ = demo
    whole, found, control = (trial.probability for trial in made.trials)
    assert found < control / 2
    assert control > whole / 2
    assert "no longer gives the answer" in verdict(made)
    assert len(made.removed) == len(made.control) == 4
    assert not set(made.removed) & set(made.control)
    assert [trial.examples for trial in made.trials] == [50, 46, 46]


def test_model_and_index_are_left_to_be_asked(demo: tuple[Demo, list[str]], capsys: Any) -> None:
    made, _ = demo
    index = Index.open(made.folder / "index")
    assert index.manifest["calibration"]["second_moment"].startswith("adam, step")
    assert TrainingRun.open(made.folder / "model").steps == len(made.losses)
    words = ("ask", str(index.path), "The capital of Peru is", " Lima", "--top", "4", "--json")
    assert run(list(words)) == 0
    again = json.loads(capsys.readouterr().out)
    assert [e["id"] for e in again["proponents"]] == [e.id for e in made.answer.proponents]


def test_the_command_shows_it(
    demo: tuple[Demo, list[str]], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    made, _ = demo
    asked: list[Setting] = []

    def ready(folder: Path, setting: Setting, say: Any) -> Demo:
        asked.append(setting)
        return made

    monkeypatch.setattr("headwater.cli.demo_run.run_demo", ready)
    picture = tmp_path / "answer.svg"
    assert run(["demo", "--top", "4", "--seed", "3", "--svg", str(picture)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for said in (
        "without the 4 found",
        "without 4 at random",
        "P(Lima)",
        "One question and one seed",
    ):
        assert said in out, said
    assert "Lima" in picture.read_text()
    assert (asked[0].top, asked[0].seed) == (4, 3)
    assert run(["demo", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [trial["examples"] for trial in told["trials"]] == [50, 46, 46]
    assert told["verdict"] == verdict(made)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert run(["demo", "--out", str(tmp_path / "full")]) == 2
    assert command.__doc__


def test_bad_settings_are_told(tmp_path: Path, capsys: Any) -> None:
    assert run(["demo", "--country", "Atlantis"]) == 2
    assert "Atlantis" in capsys.readouterr().err
    assert run(["demo", "--top", "0"]) == 2
    assert "--top" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ((0.9, 0.01, 0.85), "that is where it came from"),
        ((0.9, 0.01, 0.02), "nothing follows"),
        ((0.9, 0.8, 0.85), "still gives the answer"),
    ],
)
def test_the_verdict_is_honest(
    demo: tuple[Demo, list[str]], probabilities: tuple[float, ...], said: str
) -> None:
    trials = [Trial("", 1, value, "") for value in probabilities]
    made, _ = demo
    changed = Demo(made.answer, [], ["a"], ["b"], trials, [], made.folder)
    assert said in verdict(changed)
