"""`headwater methods` and methods that need a training run, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command, save_model

from headwater.evidence.rankers import METHODS


def test_all_methods_are_listed_with_what_they_need(hw: Command) -> None:
    ended = hw("methods", "--json")
    rows = [row for row in ended.lines if row]
    assert [row["name"] for row in rows] == list(METHODS)
    assert all(row["needs"] and row["unit"] and row["title"] for row in rows)
    assert all(row["costs"] != "not told" for row in rows)
    first = [line[:22].strip() for line in hw("methods").out.splitlines()]
    assert first[first.index("source") + 1] == "--run FOLDER"
    assert first[first.index("dda") + 1 :][:2] == ["[--run FOLDER]", "[--base FOLDER]"]


def test_one_method_with_its_parameters(hw: Command) -> None:
    said = hw("methods", "source").out
    assert "--set segments=...  int, default 3" in said
    assert "--run FOLDER" in said
    assert "--set run" not in said
    found = hw("methods", "ekfac", "--json").json
    assert {"name": "examples", "type": "int | None", "default": "100000"} in found["parameters"]
    assert "There is no such method" in hw("methods", "ekfak").error


@pytest.mark.parametrize("name", ["source", "tracin"])
def test_what_is_lacking_is_told(hw: Command, built: Path, tmp_path: Path, name: str) -> None:
    asked = ("ask", built, "The capital of Peru is", " Lima", "--method", name)
    assert "--run FOLDER" in hw(*asked).error
    assert "No such training run" in hw(*asked, "--run", tmp_path / "none").error


def test_features_of_every_checkpoint_and_an_ensemble_of_them(
    hw: Command, model: Path, corpus: Path, tmp_path: Path
) -> None:
    """The folders that transformers.Trainer leaves, as far as weights go."""
    for step, seed in ((2, 1), (4, 2)):
        save_model(tmp_path / "run" / f"checkpoint-{step}", seed=seed)
    out = tmp_path / "index"
    built = hw("index", model, corpus, out, "--output", "margin", "--run", tmp_path / "run")
    assert built.code == 0, built.err
    assert "checkpoint-2, checkpoint-4" in built.out
    asked = ("ask", out, "The capital of Peru is", " Lima", "--json", "--no-calibrate")
    answer = hw(*asked, "--method", "trak-ensemble").json
    assert answer["proponents"]
    alone = hw(*asked, "--method", "trak").json
    assert [e["score"] for e in answer["proponents"]] != [e["score"] for e in alone["proponents"]]
    assert "not-there" in hw("index", model, corpus, out, "--run", tmp_path / "not-there").error
    assert "Only views" in hw(*asked, "--method", "bm25-ensemble").error


def test_magic_takes_the_recipe_of_a_run(
    hw: Command, model: Path, corpus: Path, tmp_path: Path
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
    assert hw("index", trained, corpus, out, "--no-features").code == 0
    asked = ("ask", out, "The capital of Peru is", " Lima", "--json", "--method", "magic")
    answer = hw(*asked, "--run", tmp_path / "run", "--base", model).json
    # DDA, whose defaults cannot be made without a base, answers too and says how to do it again.
    contrast = ("ask", out, "The capital of Peru is", " Lima", "--instead-of", " Oslo", "--json")
    given = ("--method", "dda", "--run", tmp_path / "run", "--base", model, "--no-tokens")
    ended = hw(*contrast, *given)
    assert ended.code == 0, ended.err
    assert f"--base {model}" in ended.json["reproduce"]["command"]
    index = headwater.Index.open(out)
    query = headwater.Query("The capital of Peru is", " Lima")
    right = headwater.scores(index, query, method=headwater.MAGIC(recipe, initial=model))[0]
    first = answer["proponents"][0]
    assert first["score"] == pytest.approx(float(right.max()), rel=1e-5)
    assert "--base FOLDER" in hw(*asked, "--run", tmp_path / "run").error
    assert "recipe" in hw(*asked, "--run", model, "--base", model).error
