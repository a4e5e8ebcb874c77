"""An answer: the right examples, numbers to be checked by hand, and whether to believe them."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_facts import COLOURS, FEATURES, NAMES, corpus, rows, task

import headwater as hw
from headwater.answer.calibration import judge, random_completions, specificity
from headwater.answer.tokens import stored_features, text_of
from headwater.engine.errors import InputError
from models import byte_tokenizer

ASKED = hw.Query("The owl is", " white")
METHODS: list[Any] = [hw.GradDot(), hw.GradCos(), hw.LoGra(), hw.LRelatIF(), hw.TrackStar()]


def ask(index: hw.Index, query: hw.Query = ASKED, **options: Any) -> hw.Answer:
    return hw.ask(index, query, **({"top": 4, "method": hw.TrackStar()} | options))


@pytest.fixture(scope="module")
def margins() -> hw.Index:
    features = hw.Features(projection=hw.TwoSided(8, 8), storage="float32", output="margin")
    return hw.Index.build(None, task(8), corpus(), features, hw.Plan(shard_rows=8))


def test_what_a_method_warns_of_is_in_its_answers(index: hw.Index) -> None:
    class Rough(hw.GradDot):
        caution = "it may be rough"

    assert "it may be rough" in ask(index, method=Rough()).notes
    assert "it may be rough" not in ask(index, method=hw.GradDot()).notes
    assert "smooth" in hw.MAGIC.caution


# -- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_ranks_scores_and_percentiles_are_those_of_all_examples(
    index: hw.Index, method: Any
) -> None:
    answer = ask(index, method=method)
    scores = hw.scores(index, ASKED, method=method)[0]
    assert answer.examples == len(index) == len(rows())
    for items, sign in ((answer.proponents, -1), (answer.opponents, 1)):
        found = [item.score for item in items]
        assert found == sorted(found, key=lambda score: sign * score)
        for item in items:
            position = index.ids.index(item.id)
            assert item.position == position
            assert item.score == pytest.approx(float(scores[position]), rel=1e-4, abs=1e-7)
            lower = np.sum(scores < scores[position] - 1e-9 * abs(scores[position]))
            assert item.percentile == pytest.approx(100 * lower / len(scores), abs=4)
    assert answer.proponents[0].score == pytest.approx(float(scores.max()), rel=1e-4)
    assert answer.opponents[0].score == pytest.approx(float(scores.min()), rel=1e-4)
    assert answer.proponents[0].percentile > 90
    assert answer.opponents[0].percentile == 0
    lie = answer.distribution
    assert lie.edges[0] == pytest.approx(float(scores.min()), rel=1e-4)
    assert lie.edges[-1] == pytest.approx(float(scores.max()), rel=1e-4)
    above = sum(n for n, left in zip(lie.counts, lie.edges, strict=False) if left >= lie.edges[30])
    assert sum(lie.counts) == len(scores)
    assert above == np.sum(scores >= lie.edges[30])


def test_text_and_metadata_are_the_example_s(index: hw.Index) -> None:
    by_id = {row["id"]: row for row in rows()}
    for item in ask(index).proponents:
        row = by_id[item.id]
        assert item.text == row["text"]
        assert item.metadata["source"] == row["source"]
        assert item.kind == "influence"


def test_planted_facts_are_found_and_stand_out(index: hw.Index) -> None:
    """Asked for what one example taught, that example comes first, above all random completions."""
    first, out = [], []
    for number, name in enumerate(NAMES[1:], 1):
        query = hw.Query(f"The {name} is", f" {COLOURS[number % 5]}")
        answer = ask(index, query, tokens=False)
        first.append(answer.proponents[0].id == f"colour-{name}")
        out.append(answer.judgement.stands_out)
    assert np.mean(first) > 0.85
    assert np.mean(out) > 0.85


def test_nothing_stands_out_for_what_no_example_taught(index: hw.Index) -> None:
    asked = [("Once upon", " a time"), ("Zzz", "!?"), ("123 +", " 456"), ("xyzzy", " plugh")]
    values = [ask(index, hw.Query(*one), tokens=False).judgement for one in asked]
    assert sum(value.stands_out is True for value in values) <= 1
    assert np.mean([value.p_value for value in values]) > 0.2
    assert any("Nothing stands out" in value.summary for value in values)


def test_examples_of_the_same_text_are_folded_into_one(index: hw.Index) -> None:
    answer = ask(index, hw.Query("Of the fox and the", " hen"), method=hw.GradDot(), top=3)
    tale = next(item for item in answer.proponents if item.id.startswith("tale"))
    assert (tale.id, tale.duplicates) == ("tale-1", ["tale-2"])
    shown = [" ".join(item.text.split()) for item in answer.proponents]
    assert len(shown) == len(set(shown)) == 3


def test_folding_goes_on_until_enough_texts_are_found() -> None:
    many = [{"id": f"same-{i}", "text": "The fox is red."} for i in range(30)]
    others = [{"id": name, "text": f"An {name}."} for name in ("owl", "ant")]
    made = hw.Corpus.from_documents([*many, *others])
    found = hw.Index.build(None, task(0), made, FEATURES)
    answer = ask(found, hw.Query("The fox is", " red"), top=2, tokens=False)
    assert answer.proponents[0].id == "same-0"
    assert len(answer.proponents) == 2
    folded = answer.proponents[0].duplicates
    assert sorted(folded) == sorted(f"same-{i}" for i in range(1, 30))


# -- which words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("modules", [None, ["*mlp*"]])
def test_shares_of_words_sum_to_the_score(index: hw.Index, method: Any, modules: Any) -> None:
    """By position in the example, over chunks, and by token of the target."""
    answer = ask(index, method=method, modules=modules, top=8)
    scale = max(abs(item.score) for item in answer.proponents)
    for item in answer.proponents + answer.opponents:
        close = {"rel": 1e-4, "abs": 1e-4 * scale}
        assert sum(share for _, share in item.tokens) == pytest.approx(item.score, **close)
        assert len(item.by_target) == len(answer.target) > 1
        assert sum(item.by_target) == pytest.approx(item.score, **close)
        assert "".join(word for word, _ in item.tokens) == item.text
    assert "".join(answer.target) == " white"


def test_the_deciding_words_are_found(index: hw.Index) -> None:
    (item, *_) = ask(index).proponents
    assert item.id == "colour-owl"
    ends = np.cumsum([len(word) for word, _ in item.tokens])
    near = [share for end, (_, share) in zip(ends, item.tokens, strict=True) if 10 <= end <= 16]
    assert item.text[10:16] == " white"
    assert max(share for _, share in item.tokens) in near
    assert sum(near) > 0.4 * sum(abs(share) for _, share in item.tokens)


def test_margin_features_are_for_methods_that_weigh_them(margins: hw.Index) -> None:
    answer = ask(margins, method=hw.TRAK())
    for item in answer.proponents:
        assert sum(item.by_target) == pytest.approx(item.score, rel=1e-3)
    assert answer.probability is None
    with pytest.raises(InputError, match="GradDot needs loss features"):
        ask(margins, method=hw.GradDot())


def test_words_are_left_out_when_they_are_not_asked_for(index: hw.Index) -> None:
    answer = ask(index, tokens=False)
    assert answer.target == []
    assert all(item.tokens == [] and item.by_target == [] for item in answer.proponents)


# -- how far to believe it -----------------------------------------------------------------------


def test_specificity_is_the_share_of_references_that_score_lower(index: hw.Index) -> None:
    references = index.calibration.references.astype(np.float64)
    assert len(references) >= 8
    for item in ask(index, method=hw.GradDot()).proponents:
        against = references @ stored_features(index, [item.position])[0].astype(np.float64)
        assert item.specificity == pytest.approx(100 * np.mean(against < item.score))
    assert ask(index, calibrate=False).proponents[0].specificity is None


def test_the_null_is_of_random_completions_of_the_same_prompt(index: hw.Index) -> None:
    """Each null query asked for by itself has the best score that the judgement lists."""
    judgement = ask(index, method=hw.GradDot(), tokens=False).judgement
    unigrams = index.unigrams()
    assert unigrams is not None
    parts = random_completions(index.task.query_chunks(ASKED), unigrams)
    assert len(parts) == len(judgement.null) == 19
    for (pair,), best in list(zip(parts, judgement.null, strict=True))[::6]:
        ids = pair[1].content["input_ids"].tolist()
        chosen = np.flatnonzero(pair[1].content["labels"] >= 0)
        query = hw.Query(input_ids=ids, target=(int(chosen[0]), int(chosen[-1]) + 1))
        assert hw.scores(index, query, method=hw.GradDot()).max() == pytest.approx(best, rel=1e-4)
    above = sum(value >= judgement.best for value in judgement.null)
    assert judgement.p_value == (1 + above) / 20
    assert judgement.stands_out == (judgement.p_value <= 0.05)


@pytest.mark.parametrize(
    ("best", "null", "p", "out"),
    [
        (1.0, [0.5] * 19, 0.05, True),
        (1.0, [0.5] * 18, 1 / 19, False),
        (1.0, [1.0, *[0.5] * 18], 0.1, False),
        (1.0, [0.1, 2.0, 3.0], 0.75, False),
    ],
)
def test_p_values_by_hand(best: float, null: list[float], p: float, out: bool) -> None:
    found = judge(best, null, "cosine")
    assert found.p_value == pytest.approx(p)
    assert found.stands_out is out
    assert found.summary.startswith("Something" if out else "Nothing")
    assert f"p = {p:.2f}" in found.summary


def test_without_a_null_nothing_is_claimed() -> None:
    found = judge(1.0, [], "cosine")
    assert (found.p_value, found.stands_out) == (None, None)
    assert specificity(1.0, np.zeros(0)) is None
    assert specificity(1.0, np.array([0.5, 1.0, 2.0, 0.0])) == 50.0


def test_random_completions_are_as_frequent_and_never_the_same(index: hw.Index) -> None:
    chunk = index.task.query_chunks(ASKED)[0][1]
    counts = np.arange(320) ** 2  # token i is the i-th most rare
    made = [pairs[0][1] for pairs in random_completions([(1.0, chunk)], counts, 50)]
    target = np.flatnonzero(chunk.content["labels"] >= 0)
    before = chunk.content["input_ids"].astype(int)
    for one in made:
        ids = one.content["input_ids"].astype(int)
        assert np.array_equal(np.delete(ids, target), np.delete(before, target))
        assert (ids[target] != before[target]).all()
        assert np.array_equal(one.content["labels"][target], ids[target])
        assert np.abs(ids[target] - before[target]).max() <= 200
        assert one.length == chunk.length
    assert len({tuple(one.content["input_ids"]) for one in made}) > 40
    again = random_completions([(1.0, chunk)], counts, 50)
    assert all(
        np.array_equal(a.content["input_ids"], b[0][1].content["input_ids"])
        for a, b in zip(made, again, strict=True)
    )


# -- groups, contrasts, means --------------------------------------------------------------------


def test_totals_by_group_are_sums(index: hw.Index) -> None:
    answer = ask(index, method=hw.LoGra(), by=["source"])
    scores = hw.scores(index, ASKED, method=hw.LoGra())[0].astype(np.float64)
    sources = [row["source"] for row in rows()]
    totals = answer.groups["source"]
    assert {name for name, _, _ in totals} == {"colours", "legs", "tales", "(none)"}
    for name, total, count in totals:
        mine = [(one or "(none)") == name for one in sources]
        assert count == sum(mine)
        assert total == pytest.approx(scores[mine].sum(), rel=1e-4, abs=1e-6)
    values = [total for _, total, _ in totals]
    assert values == sorted(values, reverse=True)
    with pytest.raises(InputError, match=r"TrackStar may not be summed.*additive"):
        ask(index, by=["source"])
    with pytest.raises(InputError, match=r"'colour'.*source"):
        ask(index, method=hw.LoGra(), by=["colour"])


def test_a_contrast_is_the_difference_of_two_queries(index: hw.Index) -> None:
    pair = hw.Query("The owl is", " white", instead_of=" black")
    other = hw.Query("The owl is", " black")
    both = hw.scores(index, [pair, ASKED, other], method=hw.GradDot())
    assert np.allclose(both[0], both[1] - both[2], rtol=1e-3, atol=1e-3 * np.abs(both).max())
    answer = ask(index, pair, method=hw.GradDot())
    assert answer.probability is None
    assert answer.query == "“The owl is” → “white” instead of “black”"
    assert "".join(answer.target) == " white black"
    for item in answer.proponents:
        assert sum(item.by_target) == pytest.approx(item.score, rel=1e-3)
    assert "colour-owl" in [item.id for item in answer.proponents]
    assert "instead_of=' black'" in answer.reproduce["python"]
    assert "--instead-of ' black'" in answer.reproduce["command"]


def test_a_mean_is_the_mean_of_its_queries(index: hw.Index) -> None:
    parts = [ASKED, hw.Query("A cat has", " 2 legs")]
    mean = hw.Query.mean(parts)
    table = hw.scores(index, [mean, *parts], method=hw.GradDot())
    assert np.allclose(table[0], table[1:].mean(axis=0), rtol=1e-3, atol=1e-4 * np.abs(table).max())
    answer = ask(index, mean, method=hw.GradDot())
    assert answer.query == "mean of 2 queries"
    assert (answer.probability, answer.judgement.p_value) == (None, None)
    assert answer.proponents[0].tokens
    assert answer.proponents[0].by_target == []


def test_several_queries_give_several_answers(index: hw.Index) -> None:
    other = hw.Query("A cat has", " 2 legs", name="q2")
    answers = hw.ask(index, [ASKED, other], top=2, tokens=False)
    assert [answer.query for answer in answers] == [
        "“The owl is” → “white”",
        "“A cat has” → “2 legs”",
    ]
    alone = ask(index, other, top=2, tokens=False)
    assert [item.id for item in answers[1].proponents] == [item.id for item in alone.proponents]
    assert answers[1].name == "q2"


def test_the_probability_is_the_model_s(index: hw.Index) -> None:
    import torch

    chunk = index.task.query_chunks(ASKED)[0][1]
    ids = torch.as_tensor(chunk.content["input_ids"]).long()[None]
    with torch.no_grad():
        logs = torch.log_softmax(index.task.model(input_ids=ids).logits[0], dim=-1)
    places = np.flatnonzero(chunk.content["labels"] >= 0)
    right = math.exp(sum(float(logs[p - 1, ids[0, p]]) for p in places))
    assert ask(index).probability == pytest.approx(right, rel=1e-4)
    tokens = ids[0].tolist()
    chosen = (int(places[0]), len(tokens))
    same = hw.Query(input_ids=tokens, target=chosen)
    assert ask(index, same, tokens=False).probability == pytest.approx(right, rel=1e-4)
    halves = hw.Query(input_ids=tokens, target=[0.5 * (i in places) for i in range(len(tokens))])
    assert ask(index, halves, tokens=False).probability is None


def test_every_answer_has_the_notes_of_its_query(index: hw.Index) -> None:
    """Also when the same has been noted before."""
    merged = hw.Query("The owl i", "s white")
    for _ in range(2):
        answer = ask(index, merged, tokens=False)
        assert any("one token" in note for note in answer.notes)
    assert not any("one token" in note for note in ask(index, tokens=False).notes)


@pytest.mark.parametrize("top", [0, -1])
def test_top_is_positive(index: hw.Index, top: int) -> None:
    with pytest.raises(InputError, match="top must be positive"):
        ask(index, top=top)


# -- giving it away ------------------------------------------------------------------------------


def test_an_answer_is_json(index: hw.Index) -> None:
    answer = ask(index, method=hw.LoGra(), by=["source"])
    found = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert found["proponents"][0]["id"] == answer.proponents[0].id
    assert found["judgement"]["p_value"] == answer.judgement.p_value
    assert found["groups"]["source"][0][0] == answer.groups["source"][0][0]
    assert {"query gradients", "scan", "tokens"} <= found["seconds"].keys()
    assert found["unit"] == hw.LoGra.unit


def test_a_line_for_the_pair_viewer(index: hw.Index) -> None:
    answer = ask(index, hw.Query("The owl is", " white", name="owl"))
    record = json.loads(json.dumps(answer.to_pair(), allow_nan=False))
    assert record["example_id"] == "owl"
    assert record["inputs_plaintext"] == "The owl is"
    assert record["targets_plaintext"] == " white"
    for kind, items in (("proponent", answer.proponents), ("opponent", answer.opponents)):
        assert record[f"{kind}s"] == [item.text for item in items]
        assert record[f"{kind}_ids"] == [item.id for item in items]
        assert record[f"{kind}_scores"] == [item.score for item in items]
        assert len(items) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"method": hw.GradCos()},
        {"method": hw.LoGra(damping=0.3), "by": ["source"], "top": 2},
        {"method": hw.TrackStar(), "modules": ["*mlp*"], "calibrate": False, "tokens": False},
        {"method": hw.TrackStar(damping=0.2, mixing=0.5), "groups": ("source", ["legs"])},
    ],
)
def test_an_answer_tells_how_to_get_it_again(index: hw.Index, options: dict[str, Any]) -> None:
    answer = ask(index, **options)
    code = answer.reproduce["python"]
    original = hw.Index.open
    with pytest.MonkeyPatch.context() as patch:  # the tiny model is not on disk
        patch.setattr(hw.Index, "open", lambda path: original(path, index.task))
        again = eval(code, {"hw": hw})
    found, right = again.to_dict(), answer.to_dict()
    for one in (found, right):
        one.pop("seconds")
    assert found == right
    assert f"--method {answer.method['method']}" in answer.reproduce["command"]


def test_the_table_shows_what_there_is(index: hw.Index) -> None:
    text = repr(ask(index))
    assert "TrackStar" in text
    assert "colour-owl" in text
    assert "stands out" in text
    assert "opposes" in text


def test_after_a_prompt_alone_the_models_own_words_are_explained(index: hw.Index) -> None:
    from headwater.tasks.generate import completion_for

    said = completion_for(index.task, "The owl is", 4).text.rstrip("\ufffd")  # type: ignore[arg-type]
    answer = hw.ask(index, "The owl is", max_tokens=4, top=2)
    assert (answer.prompt, answer.completion) == ("The owl is", said)
    assert any("the model's own: its 4" in note for note in answer.notes)
    right = hw.ask(index, hw.Query("The owl is", said), top=2)
    assert [one.id for one in answer.proponents] == [one.id for one in right.proponents]
    both = hw.ask(index, ["The owl is", hw.Query("The fox is", " red")], max_tokens=4, top=2)
    assert [one.completion for one in both] == [said, " red"]
    assert not any("model's own" in note for note in both[1].notes)


def test_what_begins_with_a_dash_is_no_option(index: hw.Index) -> None:
    import shlex

    for prompt, completion in (("-5 is", " red"), ("The owl is", "-white"), ("--ids", " ids.txt")):
        answer = ask(index, hw.Query(prompt, completion), top=2)
        words = shlex.split(answer.reproduce["command"])
        assert words[-3:] == ["--", prompt, completion]
        assert "--top" in words[:-3]


def test_an_answer_knows_what_a_contrast_is_against(index: hw.Index) -> None:
    contrast = hw.Query("The owl is", " white", instead_of=" red")
    assert ask(index, contrast).instead_of == " red"
    assert ask(index, hw.Query("Tea instead of coffee is", " red")).instead_of is None


# -- other tasks ---------------------------------------------------------------------------------


def test_examples_without_text_are_not_taken_for_each_other() -> None:
    """Arrays of one shape read alike; only those of the same content are folded."""
    import torch

    from models import Mlp, class_loss

    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    x[5] = x[2]
    columns = {"x": torch.from_numpy(x), "y": np.array([0, 1, 2, 3, 4, 2, 1, 0, 3])}
    made = hw.Corpus.from_columns(columns, ids=[f"r{i}" for i in range(9)])
    index = hw.Index.build(
        None, hw.Task(Mlp(), loss=class_loss), made, hw.Features(projection=None)
    )
    answer = ask(index, hw.Query(columns={"x": x[2], "y": np.int64(2)}), top=20)
    assert len(answer.proponents) == 8
    assert (answer.proponents[0].id, answer.proponents[0].duplicates) == ("r2", ["r5"])
    assert answer.judgement.stands_out is None
    assert answer.reproduce == {}
    json.dumps(answer.to_dict(), allow_nan=False)


def test_a_character_of_several_tokens_stands_once() -> None:
    tokenizer = byte_tokenizer()
    held = SimpleNamespace(task=SimpleNamespace(tokenizer=tokenizer))
    text = "a ☃ b"  # three bytes, three tokens
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    made = text_of(held, ids)  # type: ignore[arg-type]
    assert "".join(made) == text
    assert len(made) == len(ids)
    assert made.count("") == 2
    assert "\ufffd" not in "".join(made)
    assert text_of(held, [ids[0], ids[-4]])[0] == "a"  # type: ignore[arg-type]
