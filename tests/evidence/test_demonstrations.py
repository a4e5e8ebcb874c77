"""TopK + ConE against a naive loop: NLL of demonstration and input less that of the first alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.evidence import demonstrations as file
from headwater.evidence.demonstrations import conditional_entropies, demonstrations
from models import SENTENCES, Mlp, byte_tokenizer, class_loss, tiny_gpt2, tiny_llama

INPUT = "The capital of Kenya is"
PAIRS = [("Peru? ", "Lima."), ("The sea? ", "A river."), ("The cat on the mat? ", "It sat.")]


@cache
def index(specials: bool = False) -> hw.Index:
    tokenizer = byte_tokenizer(specials=specials)
    model = tiny_gpt2() if specials else tiny_llama()
    task = hw.CausalLM(model, tokenizer, max_length=48)
    rows: list[dict[str, Any]] = [{"id": f"t{i}", "text": text} for i, text in enumerate(SENTENCES)]
    rows = [{"id": r["id"], "prompt": r["text"], "completion": " Yes."} for r in rows]
    rows += [{"id": f"p{i}", "prompt": p, "completion": c} for i, (p, c) in enumerate(PAIRS)]
    for row in rows:
        row["odd"] = int(row["id"][1]) % 2
    return hw.Index.build(None, task, hw.Corpus.from_documents(rows), None)


def nll(index: hw.Index, ids: list[int]) -> float:
    """Of every token but the first, from the model's own logits."""
    with torch.no_grad():
        logits = index.task.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return float(
        torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
    )


def naive(index: hw.Index, context: str, text: str) -> float:
    """H(d, x) - H(d); the tokens of the context are those of the whole that end within it."""
    task: Any = index.task
    made = task.tokenizer(context + text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in made["offset_mapping"]]
    front = [] if task.encoder.bos is None else [task.encoder.bos]
    cut = sum(end <= len(context) for end in ends)
    ids = front + made["input_ids"]
    return nll(index, ids) - nll(index, ids[: len(front) + cut])


@pytest.mark.parametrize("specials", [False, True])
def test_topk_then_conditional_entropy(specials: bool) -> None:
    built = index(specials)
    before = {k: v.clone() for k, v in built.task.model.state_dict().items()}
    built.task.model.train()
    found = demonstrations(built, INPUT, method=hw.BM25(), candidates=5, k=3)
    assert built.task.model.training
    built.task.model.eval()
    for name, value in built.task.model.state_dict().items():
        assert torch.equal(value, before[name])
    asked = hw.Query(prompt="", completion=INPUT)
    (best,) = hw.top(built, asked, 5, method=hw.BM25(), unrelated=True)
    texts = [
        f"{d.content['prompt']}{d.content['completion']}\n" for d in built.documents(best.positions)
    ]
    entropies = [naive(built, text, INPUT) for text in texts]
    right = sorted(zip(entropies, best.ids, best.scores, strict=True))[:3]
    assert [one.id for one in found] == [name for _, name, _ in right]
    np.testing.assert_allclose([one.entropy for one in found], [e for e, _, _ in right], rtol=1e-9)
    assert [one.score for one in found] == [score for _, _, score in right]
    assert [built.ids[one.position] for one in found] == [one.id for one in found]
    assert [one.id for one in found] != best.ids[:3]  # the second step changes something
    assert all(one.cut == 0 for one in found)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = ["a\n", "The cat sat on the mat.\n", "Numbers: 1 2 3\n", "b c\n"]
    task: Any = index().task
    together = conditional_entropies(task, INPUT, contexts)
    monkeypatch.setattr(file, "BUDGET", 1)
    alone = conditional_entropies(task, INPUT, contexts)
    np.testing.assert_allclose([e for e, _ in together], [e for e, _ in alone], rtol=1e-10)


def test_a_query_shows_its_prompt_only() -> None:
    """The completion is the answer: it is seen by the first method, and not by the model."""
    chosen: Any = {"method": hw.RepSim(), "candidates": 8, "k": 8}
    plain = demonstrations(index(), INPUT, **chosen)
    asked = demonstrations(index(), hw.Query(INPUT, " Nairobi"), **chosen)
    assert {o.id: o.entropy for o in plain} == {o.id: o.entropy for o in asked}
    assert {o.id: o.score for o in plain} != {o.id: o.score for o in asked}


def test_rendering_separator_and_some_examples() -> None:
    chosen: Any = {"method": hw.BM25(), "candidates": 8, "k": 1}
    found = demonstrations(
        index(),
        INPUT,
        ids=["p1"],
        separator=" || ",
        render=lambda document: f"Q: {document.content['prompt']}",
        **chosen,
    )
    assert [one.id for one in found] == ["p1"]
    assert found[0].entropy == pytest.approx(naive(index(), "Q: The sea?  || ", INPUT), rel=1e-9)
    odd = demonstrations(index(), INPUT, groups=("odd", [1]), method=hw.BM25(), k=8)
    assert {one.id for one in odd} == {"t1", "t3", "p1"}


@pytest.mark.parametrize("specials", [False, True])
def test_a_long_demonstration_loses_its_start(specials: bool) -> None:
    built = index(specials)
    task: Any = built.task
    context = "The dog and the cat; " * 12 + "\n"
    ((entropy, cut),) = conditional_entropies(task, INPUT, [context])
    ids = task.tokenizer(context + INPUT, add_special_tokens=False)["input_ids"]
    front = [] if task.encoder.bos is None else [task.encoder.bos]
    kept = front + ids[len(ids) - (64 - len(front)) :]
    tail = len(task.tokenizer(INPUT, add_special_tokens=False)["input_ids"])
    assert cut == len(ids) + len(front) - 64 > 0
    assert entropy == pytest.approx(nll(built, kept) - nll(built, kept[: 64 - tail]), rel=1e-9)


def test_bad_input() -> None:
    for options in ({"k": 0}, {"k": 9, "candidates": 8}):
        with pytest.raises(InputError, match="among the candidates"):
            demonstrations(index(), INPUT, method=hw.BM25(), **options)
    for empty in ("", hw.Query("", " Lima"), hw.Query(columns={"x": 1})):
        with pytest.raises(InputError, match="no text"):
            demonstrations(index(), empty, method=hw.BM25())
    with pytest.raises(InputError, match="longer than the model's window"):
        demonstrations(index(), INPUT * 20, method=hw.BM25())
    with pytest.raises(InputError, match="Nothing predicts"):
        demonstrations(index(), "a", method=hw.BM25(), separator="", render=lambda _: "")
    corpus = hw.Corpus.from_columns({"x": np.zeros((3, 6)), "y": np.zeros(3, int)})
    plain = hw.Index.build(None, hw.Task(Mlp().double(), class_loss), corpus, None)
    with pytest.raises(InputError, match="for a language model"):
        demonstrations(plain, INPUT)


def test_a_model_that_is_not_finite() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    task = hw.CausalLM(model, byte_tokenizer())
    with pytest.raises(NumericError, match="not finite"):
        conditional_entropies(task, INPUT, ["a\n"])
