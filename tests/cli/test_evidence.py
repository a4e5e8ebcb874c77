"""Evidence without gradients from the command line, with and without a model or features."""

from __future__ import annotations

import shlex
from pathlib import Path

from commands import Command

PROMPT, COMPLETION = "The capital of Peru is", " Lima"


def test_an_index_of_texts(hw: Command, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    made = hw("index", "-", corpus, out, "--no-features")
    assert made.code == 0, made.err
    assert "examples only" in made.out
    kinds = ("--evidence", "lexical,verbatim")
    ended = hw("ask", out, PROMPT, COMPLETION, "--top", 3, *kinds, "--json")
    assert ended.code == 0, ended.err
    answer = ended.json
    assert set(answer["kinds"]) == {"lexical", "verbatim"}
    assert answer["picture"]["kind"] == "stated"  # one word asked about is not copied
    first = answer["proponents"][0]
    assert "Peru" in first["text"]
    assert first["kinds"]["lexical"]["rank"] >= 1
    assert answer["spans"]
    again = shlex.split(answer["reproduce"]["command"])
    second = hw(*again[1:], "--json").json
    assert second["proponents"] == answer["proponents"]
    table = hw("ask", out, PROMPT, COMPLETION, *kinds)
    assert "Verbatim (words)" in table.out
    assert "fused by reciprocal ranks" in table.out
    assert "score = " not in table.out
    usual = hw("ask", out, PROMPT, COMPLETION, "--json")
    assert list(usual.json["kinds"]) == ["verbatim", "lexical"]
    assert any("holds no features" in note for note in usual.json["notes"])
    assert "a match is not a cause" in table.out
    told = hw("inspect", out)
    assert "every checksum" in told.out
    flat = " ".join(told.out.split())
    for said in ("19 documents", "none: texts only", "BM25 (k1 1.5", "by the tokenizer words"):
        assert said in flat, said
    assert " 0 tokens" not in flat
    kept = hw("inspect", out, "--json").json["evidence"]
    assert {one["kind"] for one in kept} == {"lexical", "verbatim"}
    assert all((out / one["folder"]).is_dir() for one in kept)
    (array,) = (out / "verbatim").glob("*/array-*.bin")
    good = array.read_bytes()
    array.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert array.name in hw("inspect", out).error
    array.write_bytes(good)
    for words, said in (
        ((PROMPT, COMPLETION, "--evidence", "influence"), "holds no features"),
        ((PROMPT, COMPLETION, "--method", "gradcos"), "holds no features"),
        ((PROMPT, COMPLETION, *kinds, "--fusion", "semantic"), "Unknown fusion"),
        ((PROMPT, COMPLETION, "--evidence", "gossip"), "Unknown kinds"),
        ((PROMPT, COMPLETION, "--candidates", "lexical"), "KIND:COUNT"),
        ((PROMPT, *kinds), "made of texts alone"),
        ((PROMPT, *kinds, "--model", corpus.parent), "made of texts alone"),
    ):
        assert said in hw("ask", out, *words).error
    assert "Features need a model" in hw("index", "-", corpus, tmp_path / "other").error


def test_all_kinds_beside_influence(hw: Command, index: Path) -> None:
    kinds = ("--evidence", "influence,verbatim,lexical")
    ended = hw("ask", index, PROMPT, COMPLETION, "--top", 3, *kinds, "--json")
    assert ended.code == 0, ended.err
    assert set(ended.json["kinds"]) == {"influence", "verbatim", "lexical"}
    assert ended.json["judgement"]["p_value"] is not None
    assert any(one["tokens"] for one in ended.json["proponents"])


def test_candidates_without_features(
    hw: Command, model: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "plain"
    assert hw("index", model, corpus, out, "--no-features").code == 0
    words = ("--evidence", "influence,lexical", "--candidates", "lexical:5", "--method", "gradcos")
    ended = hw("ask", out, PROMPT, COMPLETION, *words, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["examples"] == 5
    assert any("5 candidates" in note for note in ended.json["notes"])
    again = shlex.split(ended.json["reproduce"]["command"])
    assert again[2] == str(out)
    assert hw(*again[1:], "--json").code == 0

    table = " ".join(hw("ask", out, PROMPT, COMPLETION, *words).out.split())
    assert "influence of 5 candidates of 19 examples" in table


def test_an_index_whose_features_are_not_done(
    hw: Command, model: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "half"
    made = hw("index", model, corpus, out, "--shard-rows", 5, "--worker", "1/2")
    assert made.code == 0, made.err
    assert "is not finished" in hw("ask", out, PROMPT, COMPLETION).error
    asked = hw("ask", out, PROMPT, COMPLETION, "--evidence", "lexical,verbatim", "--json")
    assert asked.code == 0, asked.err
    assert asked.json["picture"]["kind"] == "stated"
    assert any("is not finished" in note for note in asked.json["notes"])


def test_bytes_that_are_no_text(hw: Command, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    assert hw("index", "-", corpus, out, "--no-features").code == 0
    kinds = ("--evidence", "lexical,verbatim,semantic")
    ended = hw("ask", out, "The capital \udcff of Peru is", " Lima", *kinds)
    assert ended.code == 0, ended.err
    assert "Dense (MiniLM)" in ended.out
    files = ("--json", "--svg", tmp_path / "a.svg", "--jsonl-pair", tmp_path / "a.jsonl")
    ended = hw("ask", out, "The capital \udcff of Peru is", " Lima", *kinds, *files)
    assert ended.json["prompt"] == "The capital \udcff of Peru is"


def test_the_models_own_words(hw: Command, built: Path) -> None:
    ended = hw("ask", built, PROMPT, "--max-tokens", 4, "--top", 2, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["completion"]
    assert any("the model's own" in note for note in ended.json["notes"])
    again = shlex.split(ended.json["reproduce"]["command"])
    assert hw(*again[1:], "--json").json["proponents"] == ended.json["proponents"]
    assert "facts, commonsense" in hw("ask", built, "--queries", "nosuch").error
    assert "both completions" in hw("ask", built, PROMPT, "--instead-of", " Oslo").error
