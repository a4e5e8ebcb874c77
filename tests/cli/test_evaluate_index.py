"""`headwater evaluate OUT`: a board of one's own index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Command, save_model, write_rows

FACTS = [
    {"prompt": "The capital of Peru is", "completion": " Lima", "gold": ["Peru-0"]},
    {"prompt": "The capital of Japan is", "completion": " Tokyo", "gold": ["Japan-0"]},
]


@pytest.fixture
def queries(tmp_path: Path, index: Path) -> Path:
    import headwater

    ids = headwater.Index.open(index).ids
    rows = [
        {**row, "gold": [next(i for i in ids if i.startswith(row["gold"][0].partition("-")[0]))]}
        for row in FACTS
    ]
    return write_rows(tmp_path / "facts.jsonl", rows)


def test_what_costs_no_training_is_measured(hw: Command, index: Path, queries: Path) -> None:
    words = ("--queries", queries, "--methods", "graddot,bm25,random", "--learning-rate", 0.01)
    ended = hw("evaluate", index, *words, "--json")
    assert ended.code == 0, ended.err
    board = ended.json
    assert [row["name"] for row in board["rows"]] == ["graddot", "bm25", "random"]
    assert {"MRR", "tail-patch@5 (points)"} <= set(board["columns"])
    bm25 = next(row for row in board["rows"] if row["name"] == "bm25")
    assert bm25["figures"]["MRR"]["value"] > 0.4
    assert list((index / "evaluation").glob("tail-patch-*.jsonl"))
    again = hw("evaluate", "index", index, *words, "--json").json
    assert [row["figures"] for row in again["rows"]] == [row["figures"] for row in board["rows"]]


def test_rows_looked_for_are_detected(
    hw: Command, index: Path, queries: Path, tmp_path: Path
) -> None:
    ended = hw(
        *("evaluate", index, "--queries", queries, "--metrics", "detection"),
        *("--wanted", "source=Peru", "--methods", "graddot,bm25", "--save", tmp_path / "board"),
    )
    assert ended.code == 0, ended.err
    assert "AUROC" in ended.out
    board = json.loads((tmp_path / "board" / "board.json").read_text())
    assert board["rows"][0]["figures"]["AUROC"]["value"] >= 0
    assert board["rows"][1]["figures"]["AUROC"] == "has no self-influence"


def test_metrics_that_train_again(
    hw: Command, model: Path, corpus: Path, queries: Path, tmp_path: Path
) -> None:
    import headwater
    from headwater.training.loop import train
    from headwater.training.recipe import Recipe

    task = headwater.CausalLM.load(str(model))
    recipe = Recipe(steps=3, batch_size=4, learning_rate=1e-2, eps=1e-4, dropout=False)
    run = train(task, headwater.Corpus.open(corpus), recipe, out=tmp_path / "run", progress=False)
    trained = run.checkpoints[-1].path
    task.tokenizer.save_pretrained(trained)
    out = tmp_path / "index"
    assert hw("index", trained, corpus, out, "--projection", "4x4").code == 0
    asked = ("evaluate", out, "--queries", queries, "--methods", "graddot,random", "--json")
    again = ("--run", tmp_path / "run", "--base", model, "--subsets", 8, "--seeds", 2, "--top", 2)
    names = "lds,lds-fixed,removal,brittleness,false-attribution,magic"
    ended = hw(*asked, *again, "--metrics", names)
    assert ended.code == 0, ended.err
    columns = set(ended.json["columns"])
    assert {"LDS", "LDS / ceiling", "LDS, fixed", "flips at", "false", "rank"} <= columns
    figures = ended.json["rows"][0]["figures"]
    assert figures["LDS, fixed"]["value"] <= 1
    assert "no run" in hw(*asked, "--metrics", "lds").error
    assert "no base" in hw(*asked, "--metrics", "magic", "--run", tmp_path / "run").error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "There are no queries"),
        (("--queries", "QUERIES", "--metrics", "nonsense"), "There is no such metric"),
        (("--queries", "QUERIES", "--metrics", "detection"), "--wanted COLUMN=VALUE"),
        (
            ("--queries", "QUERIES", "--metrics", "detection", "--wanted", "source=Mars"),
            "Nothing to tell apart",
        ),
        (("--queries", "QUERIES", "--top", 0), "--top must be positive"),
        (("--queries", "QUERIES", "--methods", "graddot,graddot"), "more than once"),
        (("--queries", "QUERIES", "--methods", "nope"), "no such method"),
    ],
)
def test_bad_input_is_one_line(
    hw: Command, index: Path, queries: Path, words: tuple[object, ...], said: str
) -> None:
    given = [queries if word == "QUERIES" else word for word in words]
    assert said in hw("evaluate", index, *given).error


def test_without_gold_there_is_no_retrieval(hw: Command, index: Path, tmp_path: Path) -> None:
    bare = [{k: v for k, v in row.items() if k != "gold"} for row in FACTS]
    file = write_rows(tmp_path / "bare.jsonl", bare)
    asked = ("evaluate", index, "--queries", file, "--methods", "bm25")
    assert "2 of 2 queries without" in hw(*asked, "--metrics", "retrieval").error


def test_another_model_than_the_index_has_is_refused(
    hw: Command, index: Path, queries: Path, tmp_path: Path
) -> None:
    other = save_model(tmp_path / "other", seed=5)
    ended = hw("evaluate", index, "--queries", queries, "--methods", "bm25", "--model", other)
    assert ended.code != 0
    assert "Traceback" not in ended.err
