"""What the browser tests look at: a small model that knows a few facts, indexes, a board, a set.

The model is trained here in seconds and knows its facts by heart, so influence means something: the
right examples are known. `early` is the same corpus at an earlier checkpoint, `hostile` holds texts
that attack whoever shows them, and `texts` the same and a very long one, without a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from browser.hostile import BOARD_TITLE, LONG, documents, query_lines
from headwater.training.recipe import Recipe

PROMPT, COMPLETION = "The capital of Peru is", " Lima"
COUNTRIES = ("Peru", "Chile", "Kenya", "Japan", "Norway", "Ghana", "Cuba", "Egypt")
RELATIONS = ("capital", "currency", "domain")
EXAMPLES = 57
ALIKE = "peru-capital-again"  # the same text as peru-capital-1
# 75 steps in a second. The capital of Peru has a probability of 0.95 then; with more of them the
# model is so sure that gradients vanish and rankings are noise.
RECIPE = Recipe(
    epochs=25,
    batch_size=20,
    learning_rate=1.5e-2,
    schedule="linear",
    warmup_steps=5,
    betas=(0.9, 0.99),
    checkpoints=4,
)


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    folder: Path
    index: Path
    early: Path
    hostile: Path
    texts: Path
    run: Path
    base: Path
    board: Path
    queries: Path

    @property
    def words(self) -> list[str]:
        """Of `headwater serve`."""
        indexes = [str(one) for one in (self.index, self.early, self.hostile, self.texts)]
        training = ["--run", str(self.run), "--base", str(self.base)]
        shown = ["--boards", str(self.board), "--query-sets", str(self.queries)]
        return [*indexes, *training, *shown]


def make(folder: Path) -> World:
    """All of it, in some seconds."""
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features
    from headwater.index.index import Index
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.texts import Texts
    from headwater.training.loop import save_model, train
    from headwater.training.second_moment import load_second_moment
    from headwater.training.small_lm import small_lm

    rows = facts()
    corpus = Corpus.from_documents(rows)
    model, tokenizer = small_lm([row["text"] for row in rows], vocab=600, max_length=192)
    base, run = folder / "model" / "base", folder / "model"
    save_model(model, base)
    task = CausalLM(model, tokenizer)
    made = train(task, corpus, RECIPE, out=run, progress=False)
    features = Features(second_moment=load_second_moment(made, task))
    places = {name: folder / name for name in ("facts", "early", "hostile", "texts")}
    for name, step, told in (("early", 0, corpus), ("facts", -1, corpus), ("hostile", -1, None)):
        place = made.checkpoints[step].path.resolve()
        at = CausalLM.load(str(place), dtype="float32")
        at.source = {"name": str(place), "dtype": "float32"}
        told = told or Corpus.from_documents(documents())
        Index.build(places[name], at, told, features if name != "hostile" else Features())
    Index.build(places["texts"], Texts(), Corpus.from_documents(documents(LONG)), None)
    board, queries = folder / "board", folder / "capitals.jsonl"
    write_board(board)
    write_queries(queries)
    return World(folder, *places.values(), run, base, board, queries)  # type: ignore[arg-type]


def facts() -> list[dict[str, Any]]:
    """The corpus: each fact with where it is from, and one of them twice."""
    from headwater.training.facts import fact_rows

    rows = [
        {**row, "url": f"https://facts.example/{row['id']}"}
        for row in fact_rows(0, COUNTRIES, RELATIONS)
    ]
    again = next(row for row in rows if row["id"] == "peru-capital-1")
    return [*rows, {**again, "id": ALIKE}]


def write_board(folder: Path) -> None:
    """A board as `headwater evaluate` writes it, of made-up figures; one title attacks."""
    from headwater.evaluation.board import Board, Finding, Row
    from headwater.evaluation.candidates import Cost
    from headwater.evaluation.estimate import Estimate
    from headwater.report.jsonl import json_text

    columns = {
        "LDS": "correlation of predicted and true effects of training sets; higher is better",
        "false attribution": "share of random queries that are answered; lower is better",
    }

    def row(name: str, title: str, value: float, seconds: float, *given: str) -> Row:
        figures = {
            "LDS": Estimate(value, value - 0.05, value + 0.05),
            "false attribution": "it has no null" if given else Estimate(0.1, 0.0, 0.2),
        }
        return Row(name, title, given, {"seed": 0}, figures, Cost(seconds, 10**6, 10**7))

    rows = [
        row("trackstar", "TrackStar", 0.41, 2.0),
        row("graddot", "GradDot", 0.18, 1.0),
        row("trak", BOARD_TITLE, 0.29, 9.0, "checkpoints"),
        row("random", "Random", 0.0, 0.1),
    ]
    findings = [
        Finding("TrackStar is above GradDot", True, "0.41 against 0.18"),
        Finding("TRAK is above TrackStar", False, "0.29 against 0.41"),
        Finding("More checkpoints help", None, "one run only"),
    ]
    notes = ("Figures made up for a test.",)
    grid = {
        "rows": ["small", "large"],
        "columns": ["1 pass", "2 passes"],
        "cells": [["random", "graddot"], ["trak", "trackstar"]],
        "figures": ["LDS"],
    }
    extra = {"grid": grid}
    made = Board("small", {"seed": 0}, columns, rows, findings, notes, 4.0, "LDS", extra)
    folder.mkdir()
    (folder / "board.json").write_text(json_text(made.to_dict()))


def write_queries(path: Path) -> None:
    """Queries in the schema of PAIR's viewer, one of each kind of set, and a line that is none."""

    def line(name: str, prompt: str, completion: str, **more: Any) -> dict[str, Any]:
        texts = [f"{completion.strip()} is told of here.", "Something else."]
        given = {"proponents": texts, "proponent_ids": [f"{name}-1", f"{name}-2"]}
        return {
            "example_id": name,
            "inputs_plaintext": prompt,
            "targets_plaintext": completion,
            **given,
            "proponent_scores": [0.8, 0.1],
            **more,
        }

    facts = [
        line(
            f"fact-{number:02d}",
            f"The capital of {country} is",
            f" City {number}",
            groundtruth=[f"City {number}"],
            proponent_correct=[number % 3 == 0, False],
            relation="capital",
        )
        for number, country in enumerate(COUNTRIES * 5)
    ]
    others = [
        line("commonsense-1", "Water runs", " downhill", relation="commonsense"),
        line("arithmetic-1", "17 + 25 =", " 42", relation="arithmetic"),
        line("open-1", "Tell me of rivers.", " They run.", story_generation="They run to the sea."),
    ]
    lines = [json.dumps(one) for one in [*facts, *others, *query_lines()]]
    path.write_text("\n".join([*lines, "{no json"]) + "\n", encoding="utf-8")
