"""scaling: does influence come to agree with factual attribution as models grow and learn more?

Three sizes of the model times three amounts of training on the demo's facts; in each cell TrackStar
retrieves the sentences that state an answer, beside a lexical search. The TrackStar paper reports
that larger and longer trained models attribute facts to sentences that state them more often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.evaluation.agreement import Agreement
from headwater.evaluation.board import Board, Finding, Row, Setting, board
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.presets import common as c
from headwater.evaluation.presets import facts
from headwater.evaluation.presets.lm_methods import Trained, lm_controls, lm_methods
from headwater.evaluation.retrieval import RetrievalMetric

if TYPE_CHECKING:
    from headwater.evaluation.metric import Figures
    from headwater.evaluation.presets.common import Asked
    from headwater.evaluation.presets.facts import Facts

SHAPES = {"small": (1, 32), "medium": (1, 64), "large": (2, 128)}  # layers, width
TINY_SHAPES = {"small": (1, 8), "medium": (1, 16), "large": (2, 16)}
PASSES, TINY_PASSES = (4, 8, 16), (1, 2, 4)
ASKED = ("trackstar", "gradcos")
CUT = 10
ANSWERED = "P(answer)"


def preset(asked: Asked) -> Board:
    """The cells as rows of one board, drawn as heat maps."""
    shapes, passes = (TINY_SHAPES, TINY_PASSES) if asked.tiny else (SHAPES, PASSES)
    rows: list[Row] = []
    recipes: dict[str, Any] = {}
    columns: dict[str, str] = {}
    for name, (layers, width) in shapes.items():
        for epochs in passes:
            cell = f"{name}, {_passes(epochs)}"
            made, answered = _cell(asked, layers, width, epochs)
            rows.append(_row(cell, made, answered))
            recipes[cell] = dict(made.recipe)
            columns = _columns(made)
    grid = {
        "rows": list(shapes),
        "columns": [_passes(epochs) for epochs in passes],
        "cells": [[f"{name}, {_passes(n)}" for n in passes] for name in shapes],
        "figures": ["TrackStar: MRR", f"TrackStar: top-{CUT} with BM25", ANSWERED],
    }
    return Board(
        "scaling",
        {"preset": "scaling", "scale": asked.scale, "seed": asked.seed, "cells": recipes},
        columns,
        rows,
        [_rising(rows)],
        ["A row is a model: its size, and how often it saw each sentence."],
        None,
        "TrackStar: MRR",
        {"grid": grid},
    )


def _passes(epochs: int) -> str:
    return "1 pass" if epochs == 1 else f"{epochs} passes"


def _cell(asked: Asked, layers: int, width: int, epochs: int) -> tuple[Board, Estimate]:
    """The board of one model, and how likely it makes the right answers."""
    sizes = facts.TINY if asked.tiny else facts.FULL
    it = facts.learnt(asked, replace(sizes, layers=layers, width=width, epochs=epochs))
    trained = Trained(it.task, it.recipe, it.run, it.initial, asked.seed, None, it.held_out)
    methods = [one for one in lm_methods(trained) if one.name in ASKED]
    ids = [document.id for document in it.corpus.documents()]
    made = Setting(
        "scaling",
        {"layers": layers, "width": width, "training": it.recipe.to_json()},
        asked.cache,
        it.task,
        it.corpus,
        it.queries,
        asked.chosen_methods(methods, lm_controls(asked.seed)),
        [
            RetrievalMetric(ids, it.gold, k=CUT, seed=asked.seed),
            c.AgreementWith("bm25", "BM25", partial(Agreement, k=CUT, seed=asked.seed)),
        ],
        {"recipe": it.recipe.to_json()},
        it.seconds,
    )
    return board(made), _answered(it, asked.seed)


def _answered(it: Facts, seed: int) -> Estimate:
    """The mean probability of the right answers."""
    from headwater.evaluation.measured import losses
    from headwater.evaluation.over_queries import mean

    found = losses(it.task, [it.task.query_chunks(query) for query in it.queries])
    made = mean(np.array([math.exp(-loss) for loss in found]), seed=seed)
    return made if isinstance(made, Estimate) else Estimate(math.nan, math.nan, math.nan)


def _columns(made: Board) -> dict[str, str]:
    told = {
        f"{row.title}: {column}": sentence
        for row in made.rows
        for column, sentence in made.columns.items()
        if _shown(row, column)
    }
    return told | {ANSWERED: "mean probability of the right answer"}


def _shown(row: Row, column: str) -> bool:
    """Of the controls only what they are there for: how well they retrieve."""
    if row.name in ASKED:
        return column in ("MRR", f"success@{CUT}", f"top-{CUT} with BM25")
    return column == "MRR" and row.name in ("bm25", "random")


def _row(cell: str, made: Board, answered: Estimate) -> Row:
    figures: Figures = {
        f"{row.title}: {column}": figure
        for row in made.rows
        for column, figure in row.figures.items()
        if _shown(row, column)
    }
    star = next((row for row in made.rows if row.name == "trackstar"), made.rows[0])
    return Row(cell, cell, (), dict(made.recipe), {**figures, ANSWERED: answered}, star.cost)


def _rising(rows: list[Row]) -> Finding:
    """Whether the largest, longest trained model attributes better than the least."""
    claim = "MRR of TrackStar is higher in the last cell than in the first"
    figures: Mapping[str, Figures] = {row.name: row.figures for row in rows}
    first, last = (c.figure(figures, rows[n].name, "TrackStar: MRR") for n in (0, -1))
    if first is None or last is None:
        return Finding(claim, None, "no figure")
    return c.above(claim, last, first)
