"""Every preset in its tiny scale: it runs, tells its recipe, and comes from the cache next time.

Its figures say nothing at this size; what the metrics and methods are worth is tested elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.cli import main
from headwater.evaluation.bank import Bank
from headwater.evaluation.candidates import Scoring
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.presets import (
    common,
    digits,
    facts,
    linear,
    lm_methods,
    preset_board,
    small_lm,
    wrong_digits,
)
from headwater.evaluation.presets.common import Asked
from headwater.evidence.lexical import BM25

FEW = {
    "digits": (["ekfac"], ["lds", "detection", "brittleness"]),
    "linear": (["closed-form", "gradcos"], None),
    "small-lm": (["gradcos", "magic"], ["lds-fixed", "magic"]),
    "facts": (["gradcos"], ["retrieval", "tail-patch"]),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets")


def asked(cache: Path, preset: str) -> Asked:
    methods, metrics = FEW[preset]
    return Asked(cache, "tiny", workers=1, methods=methods, metrics=metrics)


@pytest.mark.parametrize("preset", list(FEW))
def test_a_preset_runs_and_is_kept(
    preset: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if preset == "small-lm":  # the encoder takes seconds to load, and facts has it
        monkeypatch.setattr(lm_methods, "Dense", BM25)
    made = preset_board(preset, asked(cache, preset))
    names = [row.name for row in made.rows]
    methods, _ = FEW[preset]
    assert names[: len(methods)] == sorted(methods, key=names.index)
    controls = {"loss", "random"} | (
        {"bm25", "dense"} if preset in ("small-lm", "facts") else set()
    )
    assert controls <= set(names)
    for row in made.rows:
        assert set(row.figures) == set(made.columns)
    some = [one for row in made.rows for one in row.figures.values() if isinstance(one, Estimate)]
    assert some
    recipe = json.dumps(made.to_dict(), allow_nan=False)
    assert made.recipe["seed"] == 0
    assert str(cache) not in recipe  # nothing of where it was made

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this was done before")

    monkeypatch.setattr(Bank, "_train", refuse)
    monkeypatch.setattr(Scoring, "_keep", refuse)
    monkeypatch.setattr(common, "train", refuse)
    assert preset_board(preset, asked(cache, preset)).to_dict() == made.to_dict()


@pytest.mark.parametrize("kind", linear.KINDS)
def test_the_closed_form_comes_near_to_exact_leave_one_out(kind: str, cache: Path) -> None:
    """Near, and no more: a row that the fit leans on moves it by more than its first order."""
    it = linear.problem(kind, Asked(cache))
    pairs = zip(it.effects, it.influence, strict=True)
    each = [np.corrcoef(effects, influence)[0, 1] for effects, influence in pairs]
    assert np.median(each) > 0.97


def test_flipped_labels_are_a_tenth_and_wrong() -> None:
    from sklearn.datasets import load_digits

    rows = wrong_digits.data(digits.FULL.rows, digits.FULL.held_out, 0)
    assert rows.flipped.mean() == pytest.approx(0.1, abs=0.001)
    known: Any = load_digits()
    right = {row.tobytes(): y for row, y in zip(known.data, known.target, strict=True)}
    true = np.array([right[(x.astype(np.float64) * 16).tobytes()] for x in rows.x])
    assert ((true != rows.y) == rows.flipped).all()
    again = wrong_digits.data(digits.FULL.rows, digits.FULL.held_out, 0)
    assert (again.y == rows.y).all()
    assert (wrong_digits.data(digits.FULL.rows, digits.FULL.held_out, 1).y != rows.y).any()


def test_the_margin_is_the_log_odds() -> None:
    model = wrong_digits.net(4, 0)
    batch = {"x": torch.rand(3, 64), "y": torch.tensor([1, 9, 0])}
    p = model(batch["x"]).softmax(dim=1)[torch.arange(3), batch["y"]]
    torch.testing.assert_close(wrong_digits.margin(model, batch), torch.log(p / (1 - p)))


def test_passages_are_prose_and_queries_are_in_none() -> None:
    passages, held = small_lm.texts(small_lm.FULL, 0)
    assert (len(passages), len(set(passages)), len(held)) == (300, 300, 16)
    together = " ".join(passages)
    assert not any(sentence in together for sentence in held)
    assert all(small_lm.FEWEST_WORDS <= len(one.split()) <= small_lm.WORDS for one in passages)
    assert "::=" not in together
    assert small_lm.texts(small_lm.FULL, 0) == (passages, held)


def test_the_model_of_small_lm_has_at_most_300_thousand_parameters() -> None:
    from headwater.training.small_lm import small_lm as made

    passages, _ = small_lm.texts(small_lm.FULL, 0)
    sizes = small_lm.FULL
    model, _ = made(passages, vocab=sizes.vocab, layers=sizes.layers, width=sizes.width)
    assert 50_000 < sum(p.numel() for p in model.parameters()) <= 300_000


def test_facts_that_are_asked_are_not_those_held_out(cache: Path) -> None:
    it = facts.learnt(Asked(cache, "tiny"), facts.TINY)
    asks, others = ({query.prompt for query in part} for part in (it.queries, it.held_out))
    assert not asks & others
    ids = {document.id for document in it.corpus.documents()}
    assert all(set(gold) <= ids for gold in it.gold)


def test_the_command_writes_a_board(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", "board", "--preset", "digits", "--scale", "tiny", "--workers", "1"]
    line += ["--cache", str(cache), "--methods", "ekfac"]
    line += ["--metrics", "lds,detection", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "EK-FAC" in shown.out
    assert "board.md" in shown.err
    assert (tmp_path / "board.png").stat().st_size > 10_000
    with pytest.raises(SystemExit) as ended:
        main([*line[:4], "--json", *line[4:-2]])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "digits"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ([], "No preset is named"),
        (["--preset", "moon"], "There is no such preset"),
        (["--preset", "digits", "--scale", "huge"], "Unknown scale"),
        (["--preset", "digits", "--seed", "-1"], "A seed is 0 or more"),
        (["--preset", "digits", "--workers", "0"], "workers is too small"),
    ],
)
def test_bad_options_are_one_line(
    line: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "board", *line, "--cache", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
