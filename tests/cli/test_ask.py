"""Asking, ranking and inspecting from the command line: the same answers as the functions give."""

from __future__ import annotations

import csv
import html
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import Command, rows, save_model, write_rows

import headwater
from headwater.cli.output import plain

PROMPT, COMPLETION = "The capital of Peru is", " Lima"


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    asked = [
        {"prompt": "The capital of Peru is", "completion": " Lima", "id": "peru"},
        {"prompt": "The capital of Japan is", "completion": " Tokyo", "instead_of": " Lima"},
    ]
    return write_rows(tmp_path / "queries.jsonl", asked)


def test_json_is_the_answer(hw: Command, built: Path) -> None:
    ended = hw("ask", built, PROMPT, COMPLETION, "--top", 3, "--json")
    assert ended.code == 0, ended.err
    index = headwater.Index.open(built)
    answer = headwater.ask(index, headwater.Query(PROMPT, COMPLETION), top=3)
    told, wanted = ended.json, plain(answer.to_dict())
    for field in ("seconds", "reproduce"):
        told.pop(field), wanted.pop(field)
    assert told == wanted


def test_the_table_shows_the_answer(hw: Command, built: Path) -> None:
    ended = hw("ask", built, PROMPT, COMPLETION, "--top", 3)
    assert ended.code == 0, ended.err
    for said in ("The capital of Peru is Lima", "probability", "TrackStar", "(+1 same)", "again:"):
        assert said in ended.out, said
    assert "\x1b" not in ended.out


def test_the_command_that_reproduces_it(hw: Command, built: Path) -> None:
    words = ("--method", "logra", "--by", "source", "--no-calibrate", "--modules", "*.mlp.*")
    first = hw("ask", built, PROMPT, COMPLETION, "--top", 2, "--json", *words).json
    again = shlex.split(first["reproduce"]["command"])
    assert again[0] == "headwater"
    second = hw(*again[1:], "--json").json
    first.pop("seconds"), second.pop("seconds")
    assert first == second
    assert first["groups"]["source"]


def test_only_some_examples(hw: Command, built: Path, queries: Path, tmp_path: Path) -> None:
    whole = hw("ask", built, PROMPT, COMPLETION, "--top", 50, "--json").json["proponents"]
    ids = tmp_path / "some.txt"
    ids.write_text("\n".join(one["id"] for one in whole[3:7]))
    ended = hw("ask", built, PROMPT, COMPLETION, "--ids", ids, "--damping", 0.1, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert [one["id"] for one in found["proponents"]] == [one["id"] for one in whole[3:7]]
    assert found["examples"] == 4
    assert found["proponents"][0]["percentile"] == 75
    command = shlex.split(found["reproduce"]["command"])
    assert command[command.index("--ids") + 1] == str(ids)
    again = hw(*command[1:], "--json").json
    assert again["proponents"] == found["proponents"]
    where = ("--where", "source=Peru", "--where", "source=Japan")
    ended = hw("ask", built, PROMPT, COMPLETION, *where, "--mixing", 0.5, "--json").json
    assert {one["metadata"]["source"] for one in ended["proponents"]} == {"Peru", "Japan"}
    assert "--where source=Japan" in ended["reproduce"]["command"]
    assert "--mixing 0.5" in ended["reproduce"]["command"]
    ranked = hw("rank", built, "--queries", queries, "--where", "source=Peru", "--json").lines
    assert {row["name"].partition("-")[0] for row in ranked} == {"Peru"}
    assert len(ranked) == 4
    for words, said in (
        (("--where", "source"), "COLUMN=VALUE"),
        (("--where", "source=Peru", "--where", "id=3"), "several columns"),
        (("--where", "source=Nowhere"), "No example is left"),
        (("--ids", tmp_path / "none.txt"), "cannot be read"),
        (("--method", "logra", "--mixing", 0.5), "trackstar"),
        (("--method", "gradcos", "--damping", 0.5), "does not take"),
    ):
        assert said in hw("ask", built, PROMPT, COMPLETION, *words).error


def test_many_queries_are_lines(hw: Command, built: Path, queries: Path, tmp_path: Path) -> None:
    pair = tmp_path / "pair.jsonl"
    ended = hw("ask", built, "--queries", queries, "--json", "--jsonl-pair", pair, "--no-tokens")
    assert ended.code == 0, ended.err
    first, second = ended.lines
    assert first["name"] == "peru"
    assert "instead of" in second["query"]
    records = [json.loads(line) for line in pair.read_text().splitlines()]
    assert [r["targets_plaintext"] for r in records] == [" Lima", " Tokyo"]
    assert len(records[0]["proponents"]) == len(records[0]["proponent_scores"]) == 10


def test_instead_of(hw: Command, built: Path) -> None:
    ended = hw("ask", built, PROMPT, COMPLETION, "--instead-of", " Oslo", "--json")
    assert ended.json["probability"] is None
    table = hw("ask", built, PROMPT, COMPLETION, "--instead-of", " Oslo")
    assert "instead of ' Oslo'" in table.out


def test_eval_queries_are_trackstars(hw: Command, built: Path, tmp_path: Path) -> None:
    held = [{"prompt": f"The capital of {row['source']} is", "completion": " X"} for row in rows()]
    path = write_rows(tmp_path / "held.jsonl", held)
    ended = hw("ask", built, PROMPT, COMPLETION, "--eval-queries", path, "--json")
    assert ended.code == 0, ended.err
    assert any("mixed Hessian" in note for note in ended.json["notes"])
    assert str(path) in ended.json["reproduce"]["command"]
    ended = hw("ask", built, PROMPT, COMPLETION, "--eval-queries", path, "--method", "logra")
    assert "trackstar" in ended.error


def test_a_merged_token_is_told(hw: Command, built: Path) -> None:
    ended = hw("ask", built, "The cap", "ital of Peru", "--json")
    assert ended.code == 0, ended.err
    assert any("one token" in note for note in ended.json["notes"])


def test_a_picture(hw: Command, built: Path, tmp_path: Path) -> None:
    path = tmp_path / "answer.svg"
    assert hw("ask", built, PROMPT, COMPLETION, "--svg", path).code == 0
    text = path.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "Lima" in text
    assert "cdn" not in text
    assert "@font-face" not in text


def test_the_model_somewhere_else(hw: Command, built: Path, model: Path, tmp_path: Path) -> None:
    moved = save_model(tmp_path / "moved")
    words = ("ask", built, PROMPT, COMPLETION, "--json", "--no-calibrate")
    assert hw(*words, "--model", moved).code == 0
    ended = hw(*words, "--model", save_model(tmp_path / "other", seed=1))
    assert ended.code == 3
    assert "'model'" in ended.error


def test_rank_examples_and_groups(hw: Command, built: Path, queries: Path, tmp_path: Path) -> None:
    examples = hw("rank", built, "--queries", queries, "--keep", 0.25, "--json").lines
    assert [row["rank"] for row in examples] == list(range(1, 20))
    assert sum(row["keep"] for row in examples) == 5
    scores = [row["score"] for row in examples]
    assert scores == sorted(scores, reverse=True)
    groups = hw("rank", built, "--queries", queries, "--by", "source", "--json").lines
    assert sum(row["examples"] for row in groups) == 19
    assert "keep" not in groups[0]
    for suffix in ("jsonl", "csv"):
        path = tmp_path / f"ranked.{suffix}"
        assert hw("rank", built, "--queries", queries, "--keep", 0.25, "--out", path).code == 0
        if suffix == "csv":
            with path.open(newline="") as file:
                names = [row["name"] for row in csv.DictReader(file)]
        else:
            names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
        assert names == [row["name"] for row in examples]
    table = hw("rank", built, "--queries", queries, "--by", "source")
    assert "Peru" in table.out
    assert ".jsonl or .csv" in hw("rank", built, "--queries", queries, "--out", "x.xml").error
    words = ("--by", "source", "--method", "trackstar")
    assert "additive" in hw("rank", built, "--queries", queries, *words).error
    assert "share" in hw("rank", built, "--queries", queries, "--keep", 2).error


def test_inspect(hw: Command, built: Path) -> None:
    ended = hw("inspect", built, "--json")
    assert ended.code == 0
    assert ended.json["damaged"] == []
    assert ended.json["shards_done"] == 4
    table = hw("inspect", built)
    for said in ("19 documents", "16 x 16", "not attributed", "every checksum agrees"):
        assert said in " ".join(table.out.split())
    assert "no index" in hw("inspect", built / "features").error


def test_estimate(hw: Command, model: Path, corpus: Path) -> None:
    ended = hw("estimate", model, corpus, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["documents"] == 19
    assert ended.json["counted"]
    table = hw("estimate", model, corpus)
    for said in ("tokens/s", "peak memory", "coverage", "every document"):
        assert said in " ".join(table.out.split())


def test_a_prompt_that_begins_with_a_dash(hw: Command, built: Path, model: Path) -> None:
    first = hw("ask", built, "--json", "--model", model, "--top", 2, "--", "-Peru is", "-Lima").json
    again = shlex.split(first["reproduce"]["command"])
    assert again[-3:] == ["--", "-Peru is", "-Lima"]
    assert again[again.index("--model") + 1] == str(model)
    second = hw(*again[1:3], "--json", *again[3:])
    assert second.code == 0, second.err
    assert second.json["proponents"] == first["proponents"]


def test_query_sets_of_ours_and_prompts_alone(hw: Command, built: Path, tmp_path: Path) -> None:
    fast = ("--top", 1, "--no-tokens", "--no-calibrate", "--json", "--max-tokens", 3)
    told = hw("ask", built, "--queries", "arithmetic", *fast)
    assert told.code == 0, told.err
    assert told.lines[0]["name"] == "arithmetic-01"
    path = tmp_path / "q.jsonl"
    path.write_text('{"prompt": "Peru is", "id": 7}\n{"prompt": "a", "completion": " b"}\n')
    alone, given = hw("ask", built, "--queries", path, *fast).lines
    assert alone["name"] == "7"
    assert alone["completion"]
    assert any("model's own" in note for note in alone["notes"])
    assert (given["completion"], given["notes"]) == (" b", given["notes"])
    assert not any("model's own" in note for note in given["notes"])
    assert "open prompt" in hw("rank", built, "--queries", "open").error
    assert hw("rank", built, "--queries", "arithmetic", "--json").code == 0


def test_held_out_queries_of_a_part(hw: Command, index: Path, queries: Path) -> None:
    words = ("--queries", queries, "--json", "--eval-queries", queries)
    assert hw("rank", index, *words, "--method", "bm25+trackstar").code == 0
    assert "task Hessian" in hw("rank", index, *words, "--method", "bm25+logra").error
    wrong = hw("rank", index, "--queries", queries, "--method", "bm25+gradcos", "--damping", 0.3)
    assert "does not take these options" in wrong.error


def test_a_ranking_is_saved_as_json(
    hw: Command, built: Path, queries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.methods import scoring

    made = [scoring.Ranked("a", float("-inf"), 1)]
    monkeypatch.setattr(scoring, "rank", lambda *_, **__: made)
    file = tmp_path / "r.jsonl"
    assert hw("rank", built, "--queries", queries, "--out", file).code == 0
    assert (
        json.loads(file.read_text(), parse_constant=lambda _: pytest.fail("no JSON"))["score"]
        is None
    )


def test_estimate_without_a_model(hw: Command, corpus: Path) -> None:
    ended = hw("estimate", "-", corpus, "--json")
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["documents"], told["counted"]) == (19, True)
    assert min(*told["disk_bytes"].values(), *told["peak_memory_bytes"].values()) > 0
    table = " ".join(hw("estimate", "-", corpus).out.split())
    for said in ("19 documents", "lexical", "verbatim", "more on disk", "of memory"):
        assert said in table


def test_the_command_to_repeat_stands_on_one_line(hw: Command, built: Path) -> None:
    """However long: what is pasted into a shell must not break in the middle."""
    prompt = "The capital of Peru is " + "very " * 40 + "surely"
    ended = hw(
        "ask", built, "--top", 1, "--no-tokens", "--no-calibrate", prompt[:60], COMPLETION * 9
    )
    (line,) = [line for line in ended.out.splitlines() if line.startswith("again: ")]
    assert line.endswith(f"'{COMPLETION * 9}'")
    assert len(line) > 120


def test_a_page_that_needs_nothing_else(
    hw: Command, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("ask", built, "The capital of Peru is", " Lima", "--html", tmp_path / "a.html")
    (tmp_path / "assets").mkdir()
    monkeypatch.setattr("headwater.engine.built.files", lambda _: tmp_path)
    assert "make web" in hw(*asked).error
    assert not (tmp_path / "a.html").exists()
    page = '<title>Headwater</title><script type="application/json">%DATA%</script>'
    (tmp_path / "assets" / "report.html").write_text(page, encoding="utf-8")
    ended = hw(*asked, "--json")
    assert ended.code == 0, ended.err
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    data = json.loads(text.split('json">')[1].removesuffix("</script>"))
    assert data["answers"] == [ended.json]
    assert f"<title>Headwater: {html.escape(ended.json['query'])}</title>" in text


def test_only_some_words_are_explained(hw: Command, built: Path) -> None:
    prompt, completion = "The capital of Peru is", " Lima, they say"
    asked = ("ask", built, prompt, completion)
    ended = hw(*asked, "--words", "0:5", "--json")
    assert ended.code == 0, ended.err
    whole = hw(*asked, "--json").json
    assert len(ended.json["target"]) < len(whole["target"])
    assert ended.json["probability"] > whole["probability"]
    again = shlex.split(ended.json["reproduce"]["command"])
    assert again[again.index("--words") + 1] == "0:5"
    assert "left_out" not in ended.json["reproduce"]
    assert hw(*again[1:], "--json").json["proponents"] == ended.json["proponents"]
    assert "START:END" in hw(*asked, "--words", "0-5").error
    assert "leave the completion" in hw(*asked, "--words", "0:500").error
    assert "needs a completion" in hw("ask", built, prompt, "--words", "0:5").error


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_files_are_written_though_nobody_reads_the_text(
    index: Path, tmp_path: Path, form: list[str]
) -> None:
    """As in `headwater ask ... | head`, where the reader leaves at once."""
    pair, svg = tmp_path / "pair.jsonl", tmp_path / "a.svg"
    words = ["ask", str(index), PROMPT, COMPLETION, "--evidence", "lexical", *form]
    words += ["--jsonl-pair", str(pair), "--svg", str(svg)]
    reader, writer = os.pipe()
    os.close(reader)
    code = "from headwater.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == 0
    assert not {"Traceback", "error", "Exception", "Broken"} & set(ended.stderr.split())
    assert "Pipe" not in ended.stderr
    assert json.loads(pair.read_text())["proponents"]
    assert "Lima" in svg.read_text()


def test_the_text_is_not_lost_with_a_file(hw: Command, index: Path, tmp_path: Path) -> None:
    asked = ("ask", index, PROMPT, COMPLETION, "--evidence", "lexical")
    (tmp_path / "file").touch()
    ended = hw(*asked, "--svg", tmp_path / "file" / "a.svg")
    assert ended.code != 0
    assert "cannot be written" in ended.error
    assert "lex." in ended.out
