"""The board: wrong methods are caught, the same seed gives the same table, nothing is done twice.

Its net is so small, and the effects so clear, that leaving half of the examples out says which
method is right within seconds.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import DamageError, InputError
from headwater.evaluation.bank import Bank
from headwater.evaluation.board import Board, Finding, Row, Setting, board
from headwater.evaluation.candidates import Candidate, Scoring
from headwater.evaluation.detection import DetectionMetric
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.lds import LDSMetric
from headwater.evaluation.presets import PRESETS, common, preset_board
from headwater.evaluation.presets.common import Asked
from headwater.evaluation.subsets import left_out
from headwater.evaluation.trainers import LoopTrainer
from headwater.methods.method import Method
from headwater.report.board import best_of, figure_text
from headwater.report.board_files import read_board, write_board
from headwater.training.recipe import Recipe

N, SUBSETS = 40, 20
DAMPING = 0.02
RECIPE = Recipe(
    epochs=15,
    batch_size=20,
    learning_rate=0.2,
    schedule="linear",
    optimizer="sgd",
    weight_decay=DAMPING,
    grad_clip=None,
)


def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def sample(model: torch.nn.Module, batch: Any, generator: torch.Generator) -> Any:
    p = torch.softmax(model(batch["x"]), dim=1)
    return {**batch, "y": torch.multinomial(p, 1, generator=generator)[:, 0]}


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


class Altered(Method):
    """EK-FAC, and what a defect would make of it."""

    title, unit, additive, needs = "Altered", "", True, ""

    def __init__(self, how: str) -> None:
        self.how, self.right = how, hw.EKFAC(damping=DAMPING)
        self.name = f"ekfac-{how}"

    def stream(
        self,
        index: hw.Index,
        queries: Sequence[hw.Query],
        modules: Sequence[str] | None = None,
        among: Any = None,
    ) -> Iterator[tuple[int, Any]]:
        if self.how == "layer dropped":
            yield from self.right.stream(index, queries, ["0"], among)
            return
        for first, block in self.right.stream(index, queries, modules, among):
            if self.how == "sign flipped":
                yield first, -block
            elif self.how == "rows permuted":
                yield first, block[:, np.random.default_rng(7).permutation(block.shape[1])]
            else:
                yield first, block

    def describe(self) -> dict[str, Any]:
        return {"method": self.name}


WRONG = ("sign flipped", "rows permuted", "layer dropped")


def candidates() -> list[Candidate]:
    made = [
        Candidate(how, how.capitalize(), lambda how=how: Altered(how)) for how in ("right", *WRONG)
    ]
    random = Candidate("random", "Random", lambda: hw.Random(0))
    return [*made, random, Candidate("graddot", "GradDot", hw.GradDot, features=hw.Features())]


def setting(cache: Path, *, workers: int = 1, seed: int = 0, queries: int = 8) -> Setting:
    """A net on three clouds, whose boundary every example moves."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, N + queries)
    x = (rng.normal(size=(N + queries, 6)) + np.eye(6)[y] * 1.5).astype(np.float32)
    corpus = hw.Corpus.from_columns({"x": x[:N], "y": y[:N]}, ids=[f"z{i}" for i in range(N)])
    asked = [hw.Query(columns={"x": a, "y": b}) for a, b in zip(x[N:], y[N:], strict=True)]
    task = hw.Task(net(), loss, sample=sample)
    _, seconds = common.trained_once(task, corpus, RECIPE, cache)
    trainer = LoopTrainer(hw.Task(net(), loss), corpus, RECIPE, asked)
    bank = Bank(cache / "bank", trainer, workers)
    halves = left_out(N, SUBSETS, 0.5, seed)
    return Setting(
        "clouds",
        {"preset": "clouds", "seed": seed},
        cache,
        task,
        corpus,
        asked,
        candidates(),
        [LDSMetric(bank, halves, [0, 1], resamples=300), DetectionMetric(y[:N] == 0)],
        {"recipe": RECIPE.to_json()},
        seconds,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def made(cache: Path) -> Board:
    return board(setting(cache))


def figure(found: Board, method: str, column: str = "LDS") -> Estimate:
    one = next(row for row in found.rows if row.name == method).figures[column]
    assert isinstance(one, Estimate), one
    return one


def test_the_right_method_is_right(made: Board) -> None:
    assert figure(made, "right").low > 0.5
    assert figure(made, "right", "LDS / ceiling").value > 0.7


def test_a_flipped_sign_is_caught(made: Board) -> None:
    assert figure(made, "sign flipped").high < 0
    assert figure(made, "sign flipped").value == pytest.approx(-figure(made, "right").value)


def test_permuted_rows_are_caught(made: Board) -> None:
    found = figure(made, "rows permuted")
    assert found.low < 0 < found.high


def test_a_dropped_layer_is_caught(made: Board, cache: Path) -> None:
    """It still says something: only the paired difference tells that something is missing."""
    it = setting(cache)
    scoring = Scoring(cache, it.task, it.corpus, it.queries, it.training, own=True)
    known = {one.name: scoring.known(one) for one in it.methods}
    right, dropped = known["right"], known["layer dropped"]
    assert right is not None
    assert dropped is not None
    metric = it.metrics[0]
    assert isinstance(metric, LDSMetric)
    assert metric.difference(right.scores, dropped.scores).high < 0
    assert figure(made, "layer dropped").value < figure(made, "right").value


def test_random_scores_hold_zero(made: Board) -> None:
    found = figure(made, "random")
    assert found.low < 0 < found.high


def test_what_a_method_has_not_is_told_in_words(made: Board) -> None:
    row = next(one for one in made.rows if one.name == "random")
    assert row.figures["AUROC"] == "has no self-influence"
    assert isinstance(figure(made, "graddot", "AUROC"), Estimate)


def same(one: Board, other: Board) -> None:
    """But for the costs."""
    for a, b in zip(one.rows, other.rows, strict=True):
        assert a.figures == b.figures
        assert a.parameters == b.parameters
    assert (one.columns, one.notes, one.findings) == (other.columns, other.notes, other.findings)


def test_from_the_cache_nothing_is_trained_or_scored(
    made: Board, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = setting(cache)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this was done before")

    monkeypatch.setattr(Bank, "_train", refuse)
    monkeypatch.setattr(Scoring, "_keep", refuse)
    monkeypatch.setattr("headwater.evaluation.lds.lds", refuse)
    again = board(it)
    same(made, again)
    assert [row.cost for row in again.rows] == [row.cost for row in made.rows]


def test_a_stopped_board_goes_on(made: Board, cache: Path, tmp_path: Path) -> None:
    """Half of the scores and trainings are gone; only those are made again."""
    import shutil

    shutil.copytree(cache, tmp_path / "c")
    gone = sorted((tmp_path / "c" / "bank").glob("*/*.json"))
    entries = [path for path in gone if path.name != "trainer.json"]
    for path in entries[::2]:
        path.unlink()
    shutil.rmtree(tmp_path / "c" / "figures")
    for folder in sorted((tmp_path / "c" / "scores").iterdir())[::2]:
        (folder / "cost.json").unlink()
    it = setting(tmp_path / "c")
    same(made, board(it))
    metric = it.metrics[0]
    assert isinstance(metric, LDSMetric)
    assert metric.bank.trained == len(entries[::2])


def test_the_same_seed_gives_the_same_table_in_another_folder(made: Board, tmp_path: Path) -> None:
    it = setting(tmp_path, workers=2)
    few = [one for one in it.methods if one.name in ("right", "graddot")]
    again = board(replace(it, methods=few))
    first = {row.name: row for row in made.rows}
    assert len(again.rows) == 2
    for row in again.rows:
        assert row.figures == first[row.name].figures


def test_what_was_kept_is_of_these_queries_and_parameters(made: Board, cache: Path) -> None:
    it = setting(cache)

    def key(candidate: Candidate, **changes: Any) -> str:
        given = {name: getattr(it, name) for name in ("task", "corpus", "queries", "training")}
        return Scoring(cache, **{**given, **changes}).key(candidate)

    first, features = it.methods[0], hw.Features()
    other = hw.Corpus.from_columns({"x": np.zeros((3, 6), np.float32), "y": [0, 1, 2]})
    keys = [
        key(first),
        key(first, queries=list(it.queries)[::-1]),
        key(first, corpus=other),
        key(first, task=hw.Task(net(), loss, sample=sample)),
        key(first, training={}),
        key(replace(first, queries=2)),
        key(replace(first, features=features)),
        key(replace(first, make=lambda: Altered("otherwise"))),
    ]
    assert len(set(keys)) == len(keys)
    assert key(first) == keys[0]


def test_costs_are_of_the_method_alone(made: Board) -> None:
    rows = {row.name: row for row in made.rows}
    for row in rows.values():
        assert row.cost is not None
        assert made.trainings(row) == pytest.approx(row.cost.seconds / (made.training_seconds or 0))
    assert rows["right"].cost is not None
    assert rows["random"].cost is not None
    assert rows["right"].cost.disk > rows["random"].cost.disk  # its factors


class Failing(Altered):
    """Cannot score."""

    def stream(self, *_: Any, **__: Any) -> Any:
        raise InputError("This method lacks a run", expected="a run")


def test_a_method_that_cannot_score_says_why(made: Board, cache: Path) -> None:
    it = setting(cache)
    failing = Candidate("failing", "Failing", lambda: Failing("fails"))
    row = board(replace(it, methods=[failing])).rows[0]
    assert row.cost is None
    assert row.figures["LDS"] == "This method lacks a run; expected a run"


class Broken(Altered):
    """Has a defect."""

    def stream(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by zero")


def test_a_defect_is_not_hidden(cache: Path) -> None:
    it = setting(cache)
    broken = Candidate("broken", "Broken", lambda: Broken("breaks"))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
        board(replace(it, methods=[broken]))


# -- bad input ---------------------------------------------------------------------------


def test_a_bank_of_another_recipe_is_refused(cache: Path) -> None:
    it = setting(cache)
    other = {"recipe": replace(RECIPE, learning_rate=0.1).to_json()}
    with pytest.raises(InputError, match="bank of lds is of another recipe.*learning_rate 0.2"):
        board(replace(it, training=other))


def test_a_bank_of_other_queries_is_refused(cache: Path) -> None:
    it = setting(cache)
    with pytest.raises(InputError, match="bank of lds is of another queries"):
        board(replace(it, queries=list(it.queries)[:3]))


def test_too_few_subsets_are_told_in_words(cache: Path) -> None:
    it = setting(cache)
    whole = it.metrics[0]
    assert isinstance(whole, LDSMetric)
    few = LDSMetric(whole.bank, whole.subsets[:4], [0, 1])
    found = board(replace(it, metrics=[few], methods=list(it.methods)[:1]))
    assert "trials are too few" in str(found.rows[0].figures["LDS"])


class Still(LoopTrainer):
    """Whatever is left out, the queries' losses are the same."""

    def measured(self, trial: Any) -> dict[str, list[Any]]:
        return {name: [1.0] * len(self.queries) for name in super().measured(trial)}

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"trainer": "still"}


def test_queries_without_variance_are_told_in_words(cache: Path, tmp_path: Path) -> None:
    it = setting(cache)
    trainer = Still(hw.Task(net(), loss), it.corpus, RECIPE, it.queries)
    bank = Bank(tmp_path, trainer, 1)
    metric = LDSMetric(bank, left_out(N, 8, 0.5, 0), [0])
    found = board(replace(it, metrics=[metric], methods=list(it.methods)[:1]))
    assert "No query has an LDS" in str(found.rows[0].figures["LDS"])
    assert any("losses of queries 0, 1, 2" in note for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)


def test_methods_and_metrics_stand_once(cache: Path) -> None:
    it = setting(cache)
    with pytest.raises(InputError, match="every method once"):
        board(replace(it, methods=[*it.methods, it.methods[0]]))
    with pytest.raises(InputError, match="every metric once"):
        board(replace(it, metrics=[*it.metrics, it.metrics[0]]))
    with pytest.raises(InputError, match="not on the board"):
        board(replace(it, headline="nothing"))


def test_an_unknown_preset_method_or_metric_is_told(tmp_path: Path) -> None:
    asked = Asked(tmp_path, scale="tiny")
    with pytest.raises(InputError, match="no such preset; expected digits"):
        preset_board("moon", asked)
    with pytest.raises(InputError, match="no such method; expected magic.*found moon"):
        preset_board("digits", replace(asked, methods=["ekfac", "moon"]))
    with pytest.raises(InputError, match="no such metric"):
        preset_board("digits", replace(asked, metrics=["moon"]))
    with pytest.raises(InputError, match="Unknown scale"):
        Asked(tmp_path, scale="huge")  # type: ignore[arg-type]
    assert next(iter(PRESETS)) == "digits"


# -- files -------------------------------------------------------------------------------


def test_the_files_hold_the_board(made: Board, tmp_path: Path) -> None:
    found = replace(made, findings=[Finding("a | claim", True, "1 < 2")])
    paths = write_board(tmp_path, found)
    assert [path.name for path in paths] == ["board.md", "board.json", "board.svg", "board.png"]
    back = read_board(tmp_path)
    assert json.dumps(back.to_dict()) == json.dumps(found.to_dict())
    same(replace(back, notes=list(found.notes)), found)
    text = (tmp_path / "board.md").read_text()
    for row in made.rows:
        assert f"| {row.title} |" in text
    assert "a \\| claim" in text
    assert '"preset": "clouds"' in text  # its recipe


@pytest.mark.parametrize(
    ("told", "best"),
    [("rank correlation", 3.0), ("error; lower is better", 0.4), ("a slope; 1 is best", 0.9)],
)
def test_the_best_figure_is_as_its_column_says(told: str, best: float) -> None:
    rows = [
        Row(str(value), "", (), {}, {"it": Estimate(value, value, value)}, None)
        for value in (0.4, 0.9, 3.0)
    ]
    assert best_of(Board("one", {}, {"it": told}, rows), "it") == best


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.4123, 0.38, 0.441), "0.412 (0.380 to 0.441)"),
        ((12.34, 1, 20), "12.3 (1.0 to 20.0)"),
        ((0.000196, -0.0001, 0.0004), "0.0002 (-0.0001 to 0.0004)"),
        ((0.0, 0.0, 0.0), "0.000 (0.000 to 0.000)"),
    ],
)
def test_small_figures_are_not_rounded_away(values: tuple[float, ...], shown: str) -> None:
    assert figure_text(Estimate(*values)) == shown


def test_a_damaged_figure_is_made_again(made: Board, cache: Path, tmp_path: Path) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    for path in (copied / "figures").glob("*.json"):
        path.write_text("{")
    again = board(setting(copied))
    assert [row.figures for row in again.rows] == [row.figures for row in made.rows]


def test_the_chart_is_not_empty(made: Board, tmp_path: Path) -> None:
    from matplotlib.image import imread

    write_board(tmp_path, made)
    picture = imread(tmp_path / "board.png")[..., :3]
    ground = picture[0, 0]
    drawn = np.abs(picture - ground).max(axis=2) > 0.2
    assert 0.01 < drawn.mean() < 0.5
    text = (tmp_path / "board.svg").read_text()
    assert "prefers-color-scheme: dark" in text
    first = write_board(tmp_path / "again", made)
    assert first[2].read_text() == text  # the same board, the same picture


def test_labels_do_not_overlap(
    made: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty methods of nearly the same cost and quality."""
    from headwater.report import board_chart

    row = next(row for row in made.rows if row.name == "graddot")
    assert row.cost is not None
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        cost = replace(row.cost, seconds=float(np.exp(rng.normal() * 0.3)))
        middle = float(rng.normal() * 0.03 + 0.5)
        figures = {**row.figures, "LDS": Estimate(middle, middle - 0.2, middle + 0.2)}
        rows.append(
            replace(row, name=f"m{number}", title=f"Method {number}", figures=figures, cost=cost)
        )
    placed: list[Any] = []
    free = board_chart._free  # pyright: ignore[reportPrivateUsage]

    def noted(*given: Any) -> Any:
        placed.append(free(*given))
        return placed[-1]

    monkeypatch.setattr(board_chart, "_free", noted)
    write_board(tmp_path, replace(made, rows=rows))
    assert len(placed) == 16
    for number, one in enumerate(placed):
        assert not any(one.meets(other) for other in placed[:number])


def test_damaged_json_is_told(made: Board, tmp_path: Path) -> None:
    write_board(tmp_path, made)
    broken = copy.deepcopy(made.to_dict())
    del broken["rows"][0]["title"]
    (tmp_path / "board.json").write_text(json.dumps(broken))
    with pytest.raises(DamageError, match="no board"):
        read_board(tmp_path)
