"""`headwater verify`: as the function gives it, with a training of its own, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command, rows, write_rows

import headwater
from headwater.cli.output import plain
from headwater.training.loop import train
from headwater.training.recipe import Recipe

PROMPT, COMPLETION = "The capital of Peru is", " Lima"


def test_json_is_the_verification(hw: Command, built: Path, tmp_path: Path) -> None:
    words = ("--top", 2, "--learning-rate", 0.05, "--random", 5)
    ended = hw("verify", built, PROMPT, COMPLETION, *words, "--cache", tmp_path / "a", "--json")
    assert ended.code == 0, ended.err
    index = headwater.Index.open(built)
    query = headwater.Query(PROMPT, COMPLETION)
    options = {"top": 2, "learning_rate": 0.05, "random": 5, "cache": tmp_path / "b"}
    wanted = plain(headwater.verify(index, query, **options).to_dict())
    told = ended.json
    told.pop("seconds"), wanted.pop("seconds")
    assert told == wanted
    assert [len(one["ids"]) for one in told["patched"]] == [2, 5, 2]


def test_the_table_shows_it(hw: Command, built: Path, tmp_path: Path) -> None:
    ended = hw("verify", built, PROMPT, COMPLETION, "--top", 3, "--cache", tmp_path)
    assert ended.code == 0, ended.err
    out = " ".join(ended.out.split())
    for said in (
        "The capital of Peru is Lima",
        "by TrackStar",
        "one step on each: plain SGD",
        "at random",
        "BM25",
        "(+1 same)",
        "One step on each of 3 found",
        "a tail patch is local",
        "not retrained",
    ):
        assert said in out, said
    own = hw("verify", built, PROMPT, "--top", 1, "--cache", tmp_path)
    assert "the completion is the model's own" in " ".join(own.out.split())


def test_a_group(hw: Command, built: Path, tmp_path: Path) -> None:
    words = ("--group", "Peru", "--by", "source", "--cache", tmp_path, "--json")
    ended = hw("verify", built, PROMPT, COMPLETION, *words)
    assert ended.code == 0, ended.err
    assert ended.json["group"] == ["source", "Peru"]
    assert len(ended.json["patched"][0]["ids"]) == 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with a run of a few steps from the model, and an index of its end."""
    out = tmp_path_factory.mktemp("trained")
    task = headwater.CausalLM.load(str(model))
    corpus = headwater.Corpus.from_documents(rows())
    recipe = Recipe(epochs=4, batch_size=4, learning_rate=0.01, schedule="linear")
    run = train(task, corpus, recipe, out=out / "run", progress=False)
    task.tokenizer.save_pretrained(run.checkpoints[-1].path)
    task = headwater.CausalLM.load(str(run.checkpoints[-1].path))
    headwater.Index.build(out / "index", task, corpus)
    return out


def test_it_trains_again(hw: Command, trained: Path, model: Path) -> None:
    words = ("verify", trained / "index", PROMPT, COMPLETION, "--top", 2, "--workers", 1)
    of_run = ("--run", trained / "run", "--base", model)
    ended = hw(*words, *of_run, "--json")
    assert ended.code == 0, ended.err
    made = ended.json
    assert [one["name"] for one in made["retrained"]] == ["all", "found", "random", "lexical"]
    assert abs(made["retrained"][0]["probability"] / made["probability"] - 1) < 1e-4
    assert "with the moments of step 20" in made["step"]
    assert made["verdict"].startswith("Without the 2 found, P ")
    assert all(len(one["says"]) == 1 for one in made["retrained"])
    table = hw(*words, *of_run, "--no-tail-patch")
    assert "4 trainings, 0 of them now" in table.out
    assert "without 2 at random" in table.out
    assert "tail patch" not in table.out
    only_step = hw(*words, *of_run, "--no-retrain", "--json").json
    assert only_step["retrained"] == []
    # A method that takes the run is given it as well.
    assert "by MAGIC" in hw(*words, *of_run, "--method", "magic", "--no-retrain").out


def test_bad_input_is_one_line(
    hw: Command, built: Path, corpus: Path, tmp_path: Path, model: Path
) -> None:
    texts = tmp_path / "texts"
    assert hw("index", "-", corpus, texts, "--no-features").code == 0
    (tmp_path / "empty").mkdir()
    for place, words, said in (
        (texts, (), "it has no model"),
        (built, ("--group", "Peru"), "--by COLUMN"),
        (built, ("--by", "source"), "--by COLUMN"),
        (built, ("--group", "Nowhere", "--by", "source"), "No example is left"),
        (built, ("--retrain",), "Retraining cannot be done"),
        (built, ("--run", tmp_path / "nothing"), "No such training run"),
        (built, ("--run", tmp_path / "empty"), "is not a training run"),
        (built, ("--run", model), "learning rate"),
        (built, ("--top", 0), "top is too small"),
        (built, ("--optimizer", "lion"), "Unknown optimizer"),
        (built, ("--learning-rate", 0), "learning rate"),
        (built, ("--no-tail-patch",), "nothing to test by"),
        (built, ("--method", "nonsense"), "no such method"),
        (tmp_path / "none", (), "no index"),
    ):
        ended = hw("verify", place, PROMPT, COMPLETION, *words)
        assert said in ended.error, words


def test_an_index_whose_model_is_gone_says_how_to_give_one(hw: Command, tmp_path: Path) -> None:
    from commands import save_model

    moved = save_model(tmp_path / "model")
    file = write_rows(tmp_path / "rows.jsonl", rows())
    assert hw("index", moved, file, tmp_path / "index").code == 0
    moved.rename(tmp_path / "elsewhere")
    ended = hw("verify", tmp_path / "index", PROMPT, COMPLETION)
    assert str(moved) in ended.error or "model" in ended.error
    words = ("--model", tmp_path / "elsewhere", "--top", 1, "--json")
    assert hw("verify", tmp_path / "index", PROMPT, COMPLETION, *words).code == 0
