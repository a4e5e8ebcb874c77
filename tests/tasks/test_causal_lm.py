"""Documents and queries to tokens, labels and losses: what is learnt, once, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.corpus.document import Document
from headwater.engine.errors import HeadwaterError, InputError
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from headwater.tasks.task import Chunk, evaluating
from models import SENTENCES, TEMPLATE, byte_tokenizer, naive_loss, relative, tiny_llama

TEXT = " ".join(SENTENCES)


def task_of(*, specials: bool = False, template: str | None = None, **options: Any) -> CausalLM:
    return CausalLM(tiny_llama(), byte_tokenizer(specials=specials, template=template), **options)


def text(value: str) -> Document:
    return Document("a", {"text": value})


def words(task: CausalLM, chunk: Chunk, *, labelled: bool = False) -> str:
    ids = chunk.content["input_ids"]
    if labelled:
        ids = ids[chunk.content["labels"] != -100]
    return task.tokenizer.decode(ids)


def losses(task: CausalLM, chunks: list[Chunk]) -> list[float]:
    with evaluating(task.model):
        return task.loss(task.collate(chunks)).tolist()


# -- documents ------------------------------------------------------------------------------


def test_loss_is_the_sum_of_next_token_nll() -> None:
    task = task_of()
    chunks = [chunk for s in SENTENCES for chunk in task.chunks(text(s))]
    right = [float(naive_loss(task.model, chunk).detach()) for chunk in chunks]
    assert losses(task, chunks) == pytest.approx(right, rel=1e-10)
    for sentence, chunk in zip(SENTENCES, chunks, strict=True):
        assert words(task, chunk) == sentence
        assert (chunk.content["labels"][1:] == chunk.content["input_ids"][1:]).all()
        assert chunk.content["labels"][0] == -100


def test_loss_by_token_adds_up_and_says_where() -> None:
    task = task_of()
    chunks = [task.chunks(text(s))[0] for s in SENTENCES[:3]]
    with evaluating(task.model):
        loss, rows, places = task.token_losses(task.collate(chunks))
    for row, chunk in enumerate(chunks):
        mine = rows == row
        assert float(loss[mine].sum()) == pytest.approx(losses(task, [chunk])[0], rel=1e-10)
        assert places[mine].tolist() == list(range(1, chunk.length))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 60),
    window=st.integers(2, 20),
    overlap=st.integers(0, 19),
    seed=st.integers(0, 99),
)
def test_windows_learn_no_token_twice(count: int, window: int, overlap: int, seed: int) -> None:
    task = TASK_FOR_WINDOWS
    task.max_length, task.overlap = window, min(overlap, window - 1)
    ids = np.random.default_rng(seed).integers(0, 320, count).tolist()
    learnt: list[int] = []
    for chunk in task.chunks(Document("a", {"input_ids": ids})):
        assert 1 < chunk.length <= window
        assert len(chunk.content["input_ids"]) == chunk.length
        labels = chunk.content["labels"]
        places = chunk.offset + np.flatnonzero(labels != -100)
        assert [ids[p] for p in places] == labels[labels != -100].tolist()
        learnt += places.tolist()
    missed = sorted(set(range(1, count)) - set(learnt))
    assert len(learnt) == len(set(learnt))
    if task.overlap:
        assert not missed
    else:  # nothing predicts a window's first token
        assert all(place % window == 0 for place in missed)


TASK_FOR_WINDOWS = task_of()


def test_overlap_gives_later_tokens_their_context() -> None:
    whole, cut = task_of(), task_of(max_length=16, overlap=4)
    ids = whole.chunks(text(TEXT[:120]))[0]
    parts = cut.chunks(text(TEXT[:120]))
    assert len(parts) > 2
    assert [p.offset for p in parts] == [12 * i for i in range(len(parts))]
    assert sum(int((p.content["labels"] != -100).sum()) for p in parts) == ids.length - 1
    right = [float(naive_loss(cut.model, part).detach()) for part in parts]
    assert losses(cut, parts) == pytest.approx(right, rel=1e-10)
    assert len(task_of(max_length=16, truncate=True).chunks(text(TEXT))) == 1


def test_given_tokens_and_labels_are_taken_as_they_are() -> None:
    task = task_of(specials=True)
    labels = [-100, 5, -100, 7]
    (chunk,) = task.chunks(Document("a", {"input_ids": [4, 5, 6, 7], "labels": labels}))
    assert chunk.content["input_ids"].tolist() == [4, 5, 6, 7]
    assert chunk.content["labels"].tolist() == labels
    (other,) = task.chunks(Document("a", {"input_ids": [4, 5, 6, 7]}))
    assert other.content["labels"].tolist() == [-100, 5, 6, 7]


def test_prompt_and_completion() -> None:
    task = task_of()
    document = Document("a", {"prompt": "The capital of Peru is", "completion": " Lima."})
    (chunk,) = task.chunks(document)
    assert words(task, chunk) == "The capital of Peru is Lima."
    assert words(task, chunk, labelled=True) == " Lima."
    (both,) = task_of(prompt_loss=True).chunks(document)
    assert words(task, both, labelled=True) == task.tokenizer.decode(chunk.content["input_ids"][1:])


@pytest.mark.parametrize(
    ("bos", "eos"), [(None, None), (True, False), (False, True), (False, False)]
)
def test_special_tokens(bos: bool | None, eos: bool | None) -> None:
    task = task_of(specials=True, bos=bos, eos=eos)
    first, last = bos is not False, eos is not False
    (chunk,) = task.chunks(text("the cat"))
    (pair,) = task.chunks(Document("a", {"prompt": "the", "completion": " cat"}))
    for ids in (chunk.content["input_ids"].tolist(), pair.content["input_ids"].tolist()):
        assert (ids[0] == 0) == first
        assert (ids[-1] == 1) == last
        assert ids.count(0) == first
        assert ids.count(1) == last
    labels = chunk.content["labels"].tolist()
    assert labels[0] == -100
    assert (labels[-1] == 1) == last
    assert words(task, pair, labelled=True) == (" cat</s>" if last else " cat")
    (asked,) = [c for _, c in task.query_chunks(Query("the", " cat"))]
    assert 1 not in asked.content["input_ids"].tolist()  # a query does not end the document
    assert (asked.content["input_ids"][0] == 0) == first
    described = task.describe()
    assert (described["bos"], described["eos"]) == (first, last)


def test_a_tokenizer_that_adds_nothing_has_nothing_added() -> None:
    (chunk,) = task_of().chunks(text("the cat"))
    assert not {0, 1} & set(chunk.content["input_ids"].tolist())
    (asked,) = task_of(bos=True, eos=True).chunks(text("the cat"))
    assert asked.content["input_ids"][[0, -1]].tolist() == [0, 1]


def test_messages_learn_the_assistants_turns_only() -> None:
    task = task_of(template=TEMPLATE)
    messages = [
        {"role": "user", "content": "Peru?"},
        {"role": "assistant", "content": "Lima."},
        {"role": "user", "content": "Ecuador?"},
        {"role": "assistant", "content": "Quito."},
    ]
    (chunk,) = task.chunks(Document("a", {"messages": messages}))
    assert words(task, chunk) == (
        "<|user|>Peru?<|end|><|assistant|>Lima.<|end|>"
        "<|user|>Ecuador?<|end|><|assistant|>Quito.<|end|>"
    )
    assert words(task, chunk, labelled=True) == "Lima.<|end|>Quito.<|end|>"
    ((_, asked),) = task.query_chunks(Query(messages[:1], "Lima"))
    assert words(task, asked) == "<|user|>Peru?<|end|><|assistant|>Lima"
    assert words(task, asked, labelled=True) == "Lima"


def test_many_documents_are_cut_as_one_is() -> None:
    task = task_of(specials=True, max_length=16, overlap=3)
    documents = [text(s) for s in SENTENCES]
    for one, chunks in zip(documents, task.chunk_many(documents), strict=True):
        for a, b in zip(task.chunks(one), chunks, strict=True):
            assert a.offset == b.offset
            assert all(np.array_equal(a.content[k], b.content[k]) for k in a.content)
    assert task.chunk_many([]) == []


# -- queries --------------------------------------------------------------------------------


def test_a_query_explains_its_completion() -> None:
    task = task_of()
    ((weight, chunk),) = task.query_chunks(Query("The capital of Peru is", " Lima."))
    assert weight == 1
    assert words(task, chunk, labelled=True) == " Lima."
    with evaluating(task.model):
        value = task.measurement(task.collate([chunk]))
    assert float(value[0]) == pytest.approx(float(naive_loss(task.model, chunk).detach()))


def test_a_token_across_the_border_belongs_to_the_completion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of()
    assert len(task.tokenizer.encode(" Lima")) < len(task.tokenizer.encode(" Li")) + len(
        task.tokenizer.encode("ma")
    )
    ((_, chunk),) = task.query_chunks(Query("The capital of Peru is Li", "ma"))
    assert words(task, chunk) == "The capital of Peru is Lima"
    assert words(task, chunk, labelled=True).endswith("Lima")
    assert "one token" in task.notes[0]
    assert "one token" in caplog.text
    task.query_chunks(Query("The capital of Peru is Li", "ma"))
    assert len(task.notes) == 1  # said once
    other = task_of()
    other.query_chunks(Query("The capital of Peru is", " Lima"))
    assert not other.notes


def test_queries_by_tokens_with_ranges_and_weights() -> None:
    task = task_of()
    ids = [5, 6, 7, 8, 9, 10]

    def labelled(target: Any) -> list[int]:
        ((_, chunk),) = task.query_chunks(Query(input_ids=ids, target=target))
        return np.flatnonzero(chunk.content["labels"] != -100).tolist()

    assert labelled((2, 4)) == [2, 3]
    assert labelled([2, 4]) == [2, 3]
    assert labelled((np.int64(2), np.int64(4))) == [2, 3]
    assert labelled([(1, 2), (4, 6)]) == [1, 4, 5]
    assert labelled([0, 0, 1, 0, 0, 2.5]) == [2, 5]
    gradients = Gradients(task, Features(projection=None))
    weighted = [0.0, 0.0, 1.0, 0.0, 0.0, -2.5]
    rows = gradients.queries(
        [Query(input_ids=ids, target=t) for t in (weighted, (2, 3), (5, 6), (0, 3))], 64
    )
    assert relative(rows[0], rows[1] - 2.5 * rows[2]) < 1e-5
    ((_, whole),) = task.query_chunks(Query(input_ids=ids, target=(0, 3)))
    assert np.flatnonzero(whole.content["labels"] != -100).tolist() == [1, 2]


def test_a_pair_is_a_pair_even_for_two_tokens() -> None:
    task = task_of()
    pair, weights = (
        task.query_chunks(Query(input_ids=[5, 6], target=target))[0][1].content["weights"]
        for target in ((1, 2), [1, 2])
    )
    assert pair.tolist() == [0, 1]
    assert weights.tolist() == [1, 2]


def test_contrast_and_mean_are_weighted_chunks() -> None:
    task = task_of()
    contrast = Query("The capital of Peru is", " Lima", instead_of=" Quito")
    signed = task.query_chunks(contrast)
    assert [w for w, _ in signed] == [1, -1]
    assert [words(task, c, labelled=True) for _, c in signed] == [" Lima", " Quito"]
    mean = task.query_chunks(Query.mean([contrast, Query("the cat", " sat")]))
    assert [w for w, _ in mean] == [0.5, -0.5, 0.5]
    nested = task.query_chunks(Query.mean([Query.mean([contrast]), Query("the cat", " sat")]))
    assert [w for w, _ in nested] == [0.5, -0.5, 0.5]


# -- what is refused ------------------------------------------------------------------------

BAD_DOCUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "token beyond the vocabulary": ({"input_ids": [1, 320]}, "outside the model's vocabulary"),
    "negative token": ({"input_ids": [1, -3]}, "outside the model's vocabulary"),
    "token beyond 32 bits": ({"input_ids": [1, 2**40]}, "not usable"),
    "label beyond the vocabulary": ({"input_ids": [1, 2], "labels": [1, 400]}, "label outside"),
    "too few labels": ({"input_ids": [1, 2, 3], "labels": [1, 2]}, "do not fit"),
    "all labels ignored": ({"input_ids": [1, 2], "labels": [-100, -100]}, "no token to learn"),
    "one token": ({"input_ids": [1]}, "no token to learn"),
    "nothing": ({"text": ""}, "no token to learn"),
    "messages without an assistant": (
        {"messages": [{"role": "user", "content": "Hello"}]},
        "no token to learn",
    ),
    "a picture": ({"pixels": np.zeros(3)}, "nothing a language model reads"),
}


def refused(error: HeadwaterError, match: str) -> None:
    assert match in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_bad_documents(name: str) -> None:
    content, match = BAD_DOCUMENTS[name]
    task = task_of(template=TEMPLATE)
    with pytest.raises(InputError) as error:
        task.chunks(Document("doc 7", content))
    refused(error.value, match)
    with pytest.raises(InputError):
        task.chunk_many([Document("doc 7", content)])


def test_templates_that_are_missing_or_rewrite_turns() -> None:
    document = Document(
        "a",
        {
            "messages": [
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
            ]
        },
    )
    with pytest.raises(InputError) as error:
        task_of().chunks(document)
    refused(error.value, "no chat template")
    last_only = "{% for m in messages %}{{ m.content if loop.last else '' }}{% endfor %}"
    with pytest.raises(InputError) as error:
        task_of(template=last_only).chunks(document)
    refused(error.value, "rewrites earlier turns")


BAD_QUERIES: dict[str, tuple[Any, str]] = {
    "empty target": (lambda: Query("The", ""), "target is empty"),
    "no completion": (lambda: Query("The"), "target is empty"),
    "nothing": (lambda: Query(), "exactly one form"),
    "two forms": (lambda: Query("The", " cat", input_ids=[1]), "exactly one form"),
    "no target": (lambda: Query(input_ids=[1, 2]), "needs its target"),
    "empty contrast": (lambda: Query("The", " cat", instead_of=""), "two completions"),
    "contrast of tokens": (
        lambda: Query(input_ids=[1, 2], target=(1, 2), instead_of="x"),
        "two completions",
    ),
    "target without tokens": (lambda: Query("The", " cat", target=(1, 2)), "goes with input_ids"),
    "mean of nothing": (lambda: Query.mean([]), "at least one"),
    "target out of range": (lambda: Query(input_ids=[1, 2, 3], target=(1, 4)), "leaves its tokens"),
    "target backwards": (lambda: Query(input_ids=[1, 2, 3], target=(2, 1)), "leaves its tokens"),
    "negative target": (lambda: Query(input_ids=[1, 2, 3], target=[(-1, 2)]), "leaves its tokens"),
    "weights that do not fit": (
        lambda: Query(input_ids=[1, 2, 3], target=[0.0, 1.0, 1.0, 1.0]),
        "does not fit",
    ),
    "weights all zero": (lambda: Query(input_ids=[1, 2, 3], target=[0.0] * 3), "target is empty"),
    "weights not finite": (
        lambda: Query(input_ids=[1, 2, 3], target=[0.0, float("nan"), 1.0]),
        "not finite",
    ),
    "first token only": (lambda: Query(input_ids=[1, 2, 3], target=(0, 1)), "nothing predicts"),
    "token beyond the vocabulary": (
        lambda: Query(input_ids=[1, 999], target=(1, 2)),
        "outside the model's vocabulary",
    ),
    "no prompt": (lambda: Query(None, "a"), "no token to explain"),
    "too long": (lambda: Query(TEXT, " Lima"), "longer than the model's window"),
    "columns": (lambda: Query(columns={"x": 1}), "by columns"),
}


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_bad_queries(name: str) -> None:
    make, match = BAD_QUERIES[name]
    with pytest.raises(InputError) as error:
        task_of().query_chunks(make())
    refused(error.value, match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_length": 1}, "max_length is too small"),
        ({"max_length": 0}, "max_length is too small"),
        ({"max_length": 65}, "exceeds the model's positions"),
        ({"max_length": 8, "overlap": 8}, "overlap"),
        ({"overlap": -1}, "overlap"),
    ],
)
def test_bad_windows(options: dict[str, int], match: str) -> None:
    with pytest.raises(InputError) as error:
        task_of(**options)
    refused(error.value, match)


def test_special_tokens_that_do_not_exist() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no eos token"):
        CausalLM(tiny_llama(), tokenizer, eos=True)


def test_slow_tokenizers_are_refused() -> None:
    with pytest.raises(InputError, match="fast tokenizer"):
        CausalLM(tiny_llama(), object())


def test_description_changes_with_what_features_depend_on() -> None:
    base = task_of().describe()
    assert base == task_of().describe()
    assert CausalLM(tiny_llama(seed=1), byte_tokenizer()).describe()["model"] != base["model"]
    assert task_of(template=TEMPLATE).describe() != base
    assert CausalLM(tiny_llama(), byte_tokenizer(vocab=300)).describe() != base
    for options in ({"max_length": 32}, {"overlap": 2}, {"truncate": True}, {"bos": True}):
        assert task_of(**options).describe() != base
    assert CausalLM(tiny_llama(dtype=torch.float32), byte_tokenizer()).describe() != base


def test_a_token_across_the_border_of_prompt_and_completion_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of()
    whole = next(s for s in SENTENCES if len(task.encoder.spans(s, []).ids) < len(s))
    cut = next(n for n in range(1, len(whole)) if task.encoder.pair(whole[:n], whole[n:]).merged)
    for name in "ab":
        task.chunks(Document(name, {"prompt": whole[:cut], "completion": whole[cut:]}))
    told = [record.getMessage() for record in caplog.records if "one token" in record.getMessage()]
    assert len(told) == 1
    assert "(a is the first)" in told[0]
