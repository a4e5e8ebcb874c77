"""Sets of queries: both schemas, broken lines, metrics, pages, and nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.server.query_entry import ranks
from headwater.server.query_sets import QuerySets, read_set
from headwater.server.records import from_pair, is_pair, to_pair

# One of each of the four kinds, as PAIR's releases have them.
FACT: dict[str, Any] = {
    "example_id": "trex-1",
    "query_set": "trex",
    "inputs_plaintext": "The capital of Peru is",
    "targets_plaintext": "Lima",
    "proponents": ["Cusco was the capital.", "Lima is the capital of Peru.", "Lima lies in Peru."],
    "proponent_ids": ["a", "b", "c"],
    "proponent_scores": [0.9, 0.8, 0.1],
    "proponent_correct": [False, True, True],
    "opponents": ["Quito is a capital."],
    "opponent_ids": ["d"],
    "opponent_scores": [-0.4],
    "relation": "capital",
    "8b_generations": ["Lima", "Lima, of course"],
    "8b_confidence": 0.9,
    "c4_frequency": 12345,
    "c4_frequency_bucket": 5,
    "groundtruth": ["Lima", "Ciudad de los Reyes"],
}
CHOICE: dict[str, Any] = {
    "example_id": "copa-1",
    "inputs_plaintext": "The man broke his toe because",
    "targets_plaintext": "he dropped a hammer on his foot.",
    "proponents": ["A hammer fell.", "Toes."],
    "proponent_ais_scores": [0.2, 0.7],
    "is_8b_correct": True,
}
SUM: dict[str, Any] = {"inputs_plaintext": "17 + 25 =", "targets_plaintext": "42"}
STORY: dict[str, Any] = {
    "inputs_plaintext": "Once upon a time",
    "proponents": [],
    "8b_generations": ["there was a fox. " * 2000],
}
OURS: dict[str, Any] = {
    "id": "q1",
    "prompt": "The capital of Chile is",
    "completion": " Santiago",
    "instead_of": " Lima",
    "gold": ["z", "y"],
    "proponents": [
        {"id": "x", "text": "Chile.", "score": 2.0, "metadata": {"source": "wiki"}},
        {"id": "w", "text": "Santiago.", "score": 1.0, "duplicates": ["y"]},
    ],
    "kind": "facts",
}


def lines(*rows: Any) -> bytes:
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()


ALL = read_set("all", lines(FACT, CHOICE, SUM, STORY, OURS))


def test_each_kind_of_set_is_shown() -> None:
    fact, choice, total, story, ours = (entry.shown for entry in ALL.entries)
    assert (fact["id"], fact["prompt"], fact["completion"]) == (
        "trex-1",
        "The capital of Peru is",
        "Lima",
    )
    assert fact["generations"] == ["Lima", "Lima, of course"]
    assert "Ciudad de los Reyes" in fact["answers"]
    assert fact["proponents"][1] == {
        "id": "b",
        "text": "Lima is the capital of Peru.",
        "score": 0.8,
        "correct": True,
        "ais": None,
    }
    assert fact["opponents"][0]["score"] == -0.4
    assert fact["fields"]["c4_frequency"] == 12345
    assert choice["proponents"][1]["ais"] == 0.7
    assert (total["id"], total["completion"], total["proponents"]) == ("3", "42", [])
    assert story["completion"] is None
    assert len(story["generations"][0]) > 30_000
    assert ours["instead_of"] == " Lima"
    assert ours["proponents"][0]["metadata"] == {"source": "wiki"}


def test_metrics_are_those_of_the_definitions() -> None:
    fact, choice, total, story, ours = (entry.metrics for entry in ALL.entries)
    assert fact == {"recall@10": 1.0, "precision@10": 2 / 3, "MRR": 0.5}
    assert choice == {"recall@10 (AIS)": 1.0, "precision@10 (AIS)": 0.5, "MRR (AIS)": 0.5}
    assert total == story == {}
    assert ours == {"recall@10": 1.0, "precision@10": 0.5, "MRR": 0.5}  # a copy of y counts
    assert ranks([False] * 10 + [True]) == (0.0, 0.0, 1 / 11)
    assert ranks([]) == (0.0, 0.0, 0.0)
    assert ranks(None) == ()
    made = {one["name"]: one for one in ALL.metrics()}
    assert made["MRR"]["mean"] == 0.5
    assert made["precision@10"]["rows"] == 2
    assert made["precision@10"]["low"] <= made["precision@10"]["mean"]
    assert made["MRR (AIS)"]["low"] is None  # one query has no interval


def test_filter_sort_and_page() -> None:
    assert [e.shown["id"] for e in ALL.view("c4_frequency_bucket>=3")] == ["trex-1"]
    assert [e.shown["id"] for e in ALL.view('capital "instead_of":lima')] == ["q1"]
    assert [e.shown["id"] for e in ALL.view("MRR<1 capital")] == ["trex-1", "q1"]
    assert [e.shown["id"] for e in ALL.view("score>1")] == ["q1"]
    page = ALL.page(sort="8b_confidence", offset=1, limit=2)
    assert page["total"] == 5
    assert len(page["rows"]) == 2
    assert ALL.page(sort="8b_confidence", limit=1)["rows"][0]["id"] == "trex-1"
    prompts = [row["prompt"] for row in ALL.page(sort="prompt", descending=True)["rows"]]
    assert prompts == sorted(prompts, key=str.casefold, reverse=True)
    assert "8b_generations" not in page["columns"]  # a list is not sorted by
    with pytest.raises(InputError, match="no such column"):
        ALL.view(sort="nothing")
    with pytest.raises(InputError, match="at character 1"):
        ALL.view("nothing>3")


def test_broken_lines_are_told_and_the_others_stay() -> None:
    content = b"\xef\xbb\xbf" + lines(
        FACT,
        "{broken",
        "",
        "[1]",
        {"a": 1},
        "[" * 100_000,
        '{"prompt": ' + "[" * 60 + "]" * 60 + "}",
    )
    content += b'{"prompt": "\xff"}\n' + lines(OURS)
    made = read_set("x", content)
    assert [entry.line for entry in made.entries] == [1, 9]
    assert [one["line"] for one in made.problems] == [2, 4, 5, 6, 7, 8]
    assert made.problem_count == 6
    assert "inputs_plaintext" in made.problems[2]["wrong"]
    with pytest.raises(InputError, match="holds no query"):
        read_set("x", b"{broken\n")
    with pytest.raises(InputError, match="an empty file"):
        read_set("x", b"\n\n")


def test_hostile_lines_stay_texts() -> None:
    row = {
        "prompt": "<script>alert(1)</script>\u202e",
        "completion": "\ud800",
        "proponents": [{"text": "x" * 100_000, "id": 7, "score": "high"}, 3, None],
        "gold": {"a": 1},
        "id": ["a"],
        "generations": [None, {"a": 1}, ["b"]],
    }
    nan = '{"prompt": ["a", {"content": "b"}], "proponents": "none", "x": NaN, "y": 1e999}'
    made = read_set("x", lines(row, nan))
    page = made.page("script or a", "y")
    assert page["total"] == 2
    first = made.entries[0].shown
    assert first["prompt"] == row["prompt"]
    assert [one["text"] for one in first["proponents"]] == ["x" * 100_000, "3", ""]
    assert first["proponents"][0]["score"] is None
    assert made.entries[1].shown["prompt"] == "a\nb"
    for format in ("pair", "jsonl"):
        text = made.export(format).content.decode("utf-8")
        assert "\u202e" not in text
        assert len([json.loads(line) for line in text.splitlines()]) == 2


def test_exports_are_lossless() -> None:
    pair = [json.loads(line) for line in ALL.export("pair").content.splitlines()]
    assert pair[:4] == [FACT, CHOICE, SUM, STORY]
    assert pair[4]["proponent_metadata"] == [{"source": "wiki"}, None]
    assert pair[4]["gold"] == ["z", "y"]
    ours = [json.loads(line) for line in ALL.export("jsonl").content.splitlines()]
    assert ours[4] == OURS
    assert ours[0]["proponents"][2]["correct"] is True
    assert [to_pair(row) for row in ours[:4]] == [FACT, CHOICE, SUM, STORY]
    assert len(ALL.export("pair", "c4_frequency>0").content.splitlines()) == 1
    with pytest.raises(InputError, match="no such format"):
        ALL.export("csv")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=2)
    ),
    max_leaves=5,
)
_NAMES = (
    "proponent_ids proponent_scores proponent_correct proponent_id proponent_text proponent_foo "
    "opponents opponent_ids proponent_ example_id gold x"
)
_names = st.sampled_from(_NAMES.split())


@given(
    st.dictionaries(_names, _values | st.lists(st.integers(), min_size=2, max_size=2), max_size=6),
    st.lists(st.text(max_size=4), max_size=2) | st.none(),
)
def test_records_come_back_the_same(record: dict[str, Any], texts: list[str] | None) -> None:
    made = {**record, "inputs_plaintext": "a"}
    if texts is not None:
        made["proponents"] = texts
    assert to_pair(from_pair(made)) == made


@given(st.dictionaries(st.sampled_from(["id", "prompt", "completion", "example_id", "x"]), _values))
def test_no_value_is_lost_where_names_collide(record: dict[str, Any]) -> None:
    made = to_pair(record)
    for value in record.values():
        assert value in made.values()
    assert is_pair(made)


def test_stored_answers_can_be_opened(tmp_path: Path) -> None:
    evidence = {"id": "a", "text": "b", "score": 1.0, "percentile": 99.0, "position": 0}
    answer = {
        "query": "'p' -> 'c'",
        "prompt": "p",
        "completion": "c",
        "target": ["c"],
        "probability": 0.5,
        "method": {"method": "trackstar"},
        "title": "TrackStar",
        "unit": "cosine",
        "additive": False,
        "examples": 1,
        "proponents": [evidence],
        "opponents": [],
        "judgement": {"best": 1.0, "null": [], "p_value": None, "stands_out": None, "summary": "-"},
        "distribution": None,
    }
    broken = {**answer, "proponents": [{"text": "no id"}]}
    path = tmp_path / "answers.jsonl"
    path.write_bytes(lines(answer, broken))
    found = QuerySets({"answers": path}).get("answers")
    shown = found.entries[0].shown
    assert shown["answer"]["proponents"][0]["kind"] == "influence"  # what is not there has defaults
    assert shown["id"] == "'p' -> 'c'"
    assert found.entries[1].shown["answer"] is None
    assert json.loads(found.export("pair").content.splitlines()[0])["proponents"] == ["b"]


def test_numbers_that_no_float_holds_are_shown_and_sorted() -> None:
    huge = 10**400
    scored = {**FACT, "proponent_scores": [huge, 0.5, "0.5"]}
    rows = [{"prompt": "a", "size": size} for size in (huge, 2, -huge, 2.5, True)]
    found = read_set("huge", lines(scored, *rows, '{"prompt": "nan", "size": NaN}'))
    shown = found.page()["rows"][0]
    assert [one["score"] for one in shown["proponents"]] == [None, 0.5, None]
    order = [entry.columns.get("size") for entry in found.view(sort="size")]
    assert order[:5] == [-huge, True, 2, 2.5, huge]
    assert [e.columns["size"] for e in found.view("size>2")] == [2.5]


def test_a_file_of_the_size_that_is_told_is_taken(client: Any) -> None:
    """However much longer JSON makes it on its way."""
    most = client.get("/api/session").json()["limits"]["upload_bytes"]
    row = json.dumps({"prompt": '"' * 3_000_000})
    text = f"{row}\n" * 3
    text += " " * (most - len(text))
    made = client.post("/api/query-sets", json={"name": "as large as told", "lines": text})
    assert (made.status_code, made.json().get("rows")) == (200, 3)
    more = client.post("/api/query-sets", json={"name": "larger", "lines": f"{text} "})
    assert more.status_code == 422


def test_uploads_have_limits(tmp_path: Path) -> None:
    path = tmp_path / "given.jsonl"
    path.write_bytes(lines(FACT))
    sets = QuerySets({"given": path})
    assert sets.upload(" my  set ", lines(SUM).decode()).name == "my set"
    assert sets.names() == ["given", "my set"]
    assert len(sets.upload("my set", lines(SUM, FACT).decode()).entries) == 2  # replaced
    assert len(sets.get("my set").entries) == 2
    for name in ("given", " "):
        with pytest.raises(InputError, match="another name"):
            sets.upload(name, lines(SUM).decode())
    with pytest.raises(InputError, match="too large"):
        sets.upload("x", "a" * 20_000_001)
    with pytest.raises(InputError, match="holds no query"):
        sets.upload("x", "")
    for number in range(11):
        sets.upload(f"n{number}", lines(SUM).decode())
    with pytest.raises(InputError, match="Too many"):
        sets.upload("one more", lines(SUM).decode())
    with pytest.raises(InputError, match="no such query set"):
        sets.get("../given")
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        sets.get("given")


# -- over HTTP ----------------------------------------------------------------------------


def test_sets_over_http(client: Any) -> None:
    sent = {
        "name": "sent/../<b>",
        "lines": lines(FACT, OURS, "{x").decode() + '{"prompt": "\\ud800"}',
    }
    made = client.post("/api/query-sets", json=sent)
    assert made.status_code == 200
    assert made.json()["name"] == "sent-..-<b>"
    assert made.json()["rows"] == 3
    assert made.json()["problem_count"] == 1
    assert "sent-..-<b>" in client.get("/api/session").json()["query_sets"]
    path = "/api/query-sets/sent-..-%3Cb%3E"
    page = client.get(path, params={"filter": "relation=capital", "limit": 5}).json()
    assert page["total"] == 1
    assert page["rows"][0]["metrics"]["MRR"] == 0.5
    wrong = client.get(path, params={"filter": "a ("})
    assert wrong.status_code == 400
    assert "character 4" in wrong.json()["error"]["wrong"]
    slip = client.get(path, params={"filter": "relatoin=capital"}).json()["error"]
    assert "the column relatoin at character 1" in slip["wrong"]
    assert "relation" in slip["expected"]
    assert slip["do"].startswith("did you mean relation?")
    assert client.get("/api/query-sets/none").status_code == 404
    assert client.get(path, params={"limit": 1000}).status_code == 422
    file = client.get(f"{path}/export", params={"format": "pair"})
    assert (
        file.headers["content-disposition"] == 'attachment; filename="headwater-sent-b.pair.jsonl"'
    )
    assert len(file.content.splitlines()) == 3
    assert client.post("/api/query-sets", json={"name": "x", "lines": ""}).status_code == 400


@pytest.mark.parametrize(
    ("line", "name", "kind"),
    [
        ({"kind": "facts"}, "mine", "fact"),
        ({"category": "Common sense"}, "mine", "choice"),
        ({"task": "arithmetic-2-digits"}, "facts", "sum"),  # the line knows better than the name
        ({"type": "string", "dataset": "story_generation"}, "mine", "open"),
        ({"task_name": "T-REx"}, "mine", None),
        ({"task": ["arithmetic"]}, "mine", None),
        ({}, "open", "open"),
        ({}, "commonsense.v2", "choice"),
        ({}, "openai-common-crawl-2", None),
        ({}, "reopened", None),
        ({}, "mine", None),
    ],
)
def test_the_kind_of_a_query_is_as_it_is_told(line: Any, name: str, kind: str | None) -> None:
    for record in ({"prompt": "17 + 25 =", "completion": " 42"}, {"inputs_plaintext": "a"}):
        (row,) = read_set(name, json.dumps({**record, **line}).encode()).page()["rows"]
        assert row["kind"] == kind


def test_an_answer_of_ours_keeps_the_kind_that_its_set_tells(work: Any) -> None:
    asked = {"prompt": "The capital of Peru is", "completion": " Lima"}
    answer = work("ask", index="texts", query=asked, evidence=["lexical"])["result"]["answer"]
    line = json.dumps({**answer, "kind": "commonsense"}).encode()
    (row,) = read_set("mine", line).page()["rows"]
    assert row["answer"] is not None
    assert row["fields"] == {}
    assert row["kind"] == "choice"
