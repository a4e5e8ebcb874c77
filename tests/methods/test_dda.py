"""DDA against models that are loaded and trained one by one in plain torch."""

import json
import math
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, MismatchError, NumericError
from headwater.methods.dda import CEA, DDA
from headwater.tasks.task import Chunk
from headwater.training.run import Checkpoint, TrainingRun
from models import (
    SENTENCES,
    Mlp,
    brute_force,
    byte_tokenizer,
    class_loss,
    naive_loss,
    relative,
    tiny_llama,
)

TEXTS = [
    *SENTENCES,
    " ".join(SENTENCES[1:4]),
    "the cat sat down",
    "the dog sat on the mat",
    "ok so",
]
QUERIES = [
    hw.Query("the cat sat", " on the mat", instead_of=" down"),
    hw.Query.mean(
        [
            hw.Query("The capital of Peru is", " Lima", instead_of=" Quito"),
            hw.Query("the dog", " sat", instead_of=" ran off"),
        ]
    ),
]
RATE = 2e-4
Array = np.ndarray[Any, Any]


@cache
def folders() -> list[Path]:
    """Base and two checkpoints of a made-up run, and the final model: random weights."""
    root = Path(mkdtemp())
    for seed in range(3):
        tiny_llama(seed=seed).save_pretrained(str(root / f"checkpoint-{seed}"))
    return [root / f"checkpoint-{seed}" for seed in range(3)]


def run() -> TrainingRun:
    return TrainingRun(tuple(Checkpoint(p, i + 1) for i, p in enumerate(folders()[1:])))


def language_index() -> hw.Index:
    task = hw.CausalLM(tiny_llama(seed=2), byte_tokenizer(), max_length=32, overlap=4)
    return hw.Index.build(None, task, hw.Corpus.from_columns({"text": TEXTS}), None)


@cache
def pieces() -> list[list[Chunk]]:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=32, overlap=4)
    return [task.chunks(d) for d in hw.Corpus.from_columns({"text": TEXTS}).documents()]


@cache
def sides() -> list[tuple[list[Chunk], list[Chunk]]]:
    """Wrong and corrected outputs of each query, as chunks of equal weight."""
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=32)
    made = []
    for query in QUERIES:
        wrong, corrected = [], []
        for part in query.parts or [query]:
            wrong += [c for _, c in task.query_chunks(hw.Query(part.prompt, part.completion))]
            corrected += [c for _, c in task.query_chunks(hw.Query(part.prompt, part.instead_of))]
        made.append((wrong, corrected))
    return made


def fresh(seed: int) -> Any:
    return tiny_llama(seed=seed).requires_grad_(True)


def losses(model: Any) -> Array:
    with torch.no_grad():
        return np.array([sum(float(naive_loss(model, c)) for c in mine) for mine in pieces()])


def after(seed: int, chunks: list[Chunk], rate: float, steps: int, kind: str) -> Array:
    """Losses of a newly made model that was trained on these chunks."""
    model = fresh(seed)
    make: Any = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
    optimizer = make(model.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (sum(naive_loss(model, c) for c in chunks) / len(chunks)).backward()  # type: ignore[union-attr]
        optimizer.step()
    return losses(model)


@cache
def pair(seed: int, rate: float = RATE, steps: int = 3, kind: str = "adamw") -> Array:
    """s of one model, [queries, documents]."""
    return np.stack(
        [
            after(seed, corrected, rate, steps, kind) - after(seed, wrong, rate, steps, kind)
            for wrong, corrected in sides()
        ]
    )


def dda(*args: Any, **options: Any) -> DDA:
    return DDA(*args, **({"learning_rate": RATE} | options))


def test_debiased_and_denoised_as_written_out() -> None:
    index = language_index()
    before = {n: v.numpy().tobytes() for n, v in index.task.model.state_dict().items()}
    found = hw.scores(index, QUERIES, method=dda(run(), folders()[0]))
    assert relative(found, (pair(1) + pair(2)) / 2 - pair(0)) < 1e-4
    after_ = {n: v.numpy().tobytes() for n, v in index.task.model.state_dict().items()}
    assert after_ == before


def test_ablations() -> None:
    index, base = language_index(), folders()[0]

    def check(method: DDA, right: Array) -> None:
        assert relative(hw.scores(index, QUERIES, method=method), right) < 1e-4

    check(dda(run(), debias=False), (pair(1) + pair(2)) / 2)
    check(dda(run(), base, debias=False), (pair(1) + pair(2)) / 2)
    check(dda(run(), base, denoise=False), pair(2) - pair(0))
    check(dda(run(), Checkpoint(base), beta=0.5), (pair(1) + pair(2)) / 2 - 0.5 * pair(0))
    check(dda(run(), base, debias=False, denoise=False), pair(2))
    check(CEA(run(), learning_rate=RATE), pair(2))
    check(CEA(learning_rate=RATE), pair(2))  # the index's model as it is
    check(CEA(folders()[1], learning_rate=RATE), pair(1))
    check(dda([Checkpoint(folders()[1])], base), pair(1) - pair(0))
    sgd = CEA(run(), learning_rate=1e-3, steps=2, optimizer="sgd")
    check(sgd, pair(2, 1e-3, 2, "sgd"))


def test_standardized_scores_have_one_scale() -> None:
    found = hw.scores(language_index(), QUERIES, method=dda(run(), folders()[0], standardize=True))
    one, two, base = (p / p.std(axis=1, keepdims=True) for p in (pair(1), pair(2), pair(0)))
    assert relative(found, (one + two) / 2 - base) < 1e-4


@pytest.mark.parametrize("form", ["pairs", "gradient"])
def test_a_base_that_is_the_tuned_model_leaves_nothing(form: Any) -> None:
    last = run().checkpoints[-1]
    method = dda([last], last, form=form)
    assert (hw.scores(language_index(), QUERIES, method=method) == 0).all()
    against_itself = dda(None, last, form=form)  # the index's model is that checkpoint
    assert (hw.scores(language_index(), QUERIES, method=against_itself) == 0).all()


@cache
def dots(seed: int) -> Array:
    """<g_z, g_wrong - g_corrected>, [queries, documents]."""
    model = fresh(seed)

    def flat(chunks: list[Chunk]) -> torch.Tensor:
        loss = sum(naive_loss(model, c) for c in chunks)
        return torch.cat([g.reshape(-1) for g in brute_force(model, loss).values()])  # type: ignore[arg-type]

    z = torch.stack([flat(mine) for mine in pieces()])
    v = torch.stack([flat(w) / len(w) - flat(c) / len(c) for w, c in sides()])
    return (v @ z.T).numpy()


def test_gradient_form_is_the_contrastive_dot_product() -> None:
    index = language_index()
    method = DDA(run(), folders()[0], form="gradient", change=0.02)
    found = hw.scores(index, QUERIES, method=method)
    assert relative(found, (dots(1) + dots(2)) / 2 - dots(0)) < 2e-3
    method = DDA(run(), debias=False, denoise=False, form="gradient", change=0.02)
    assert relative(hw.scores(index, QUERIES, method=method), dots(2)) < 2e-3


def test_small_pairs_are_the_gradient_form() -> None:
    index = language_index()
    method = dda(run(), debias=False, learning_rate=1e-5, steps=1, optimizer="sgd")
    found = hw.scores(index, QUERIES, method=method) / 1e-5
    assert relative(found, (dots(1) + dots(2)) / 2) < 2e-2


@pytest.mark.parametrize("form", ["pairs", "gradient"])
def test_positive_supports_the_wrong_output(form: Any) -> None:
    task = hw.CausalLM(tiny_llama(seed=2), byte_tokenizer(), max_length=32)
    corpus = hw.Corpus.from_columns({"text": ["the cat sat on the mat", "the cat sat down"]})
    index = hw.Index.build(None, task, corpus, None)
    wrong, right = hw.scores(index, QUERIES[0], method=dda(debias=False, form=form))[0]
    assert wrong > 0 > right


class Signed(hw.Task):
    """A classifier whose queries are contrasts of two labels."""

    def _query_chunks(self, query: hw.Query) -> list[tuple[float, Chunk]]:
        assert query.columns is not None
        x = np.asarray(query.columns["x"])
        both = ((1.0, query.columns["wrong"]), (-1.0, query.columns["right"]))
        return [(w, Chunk({"x": x, "y": np.int64(y)}, 0, 1)) for w, y in both]


def test_any_task_whose_queries_are_contrasts() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6)), rng.integers(0, 5, 8)
    model = Mlp().double()
    index = hw.Index.build(
        None, Signed(model, class_loss), hw.Corpus.from_columns({"x": list(x), "y": list(y)}), None
    )
    query = hw.Query(columns={"x": x[0], "wrong": 1, "right": 3})
    found = hw.scores(index, query, method=DDA(debias=False, form="gradient", change=1e-3))[0]

    def flat(row: int, label: int) -> torch.Tensor:
        batch = {"x": torch.tensor(x[[row]]), "y": torch.tensor([label])}
        found = torch.autograd.grad(class_loss(model, batch).sum(), list(model.parameters()))
        return torch.cat([g.reshape(-1) for g in found])

    v = flat(0, 1) - flat(0, 3)
    right = torch.stack([flat(i, int(y[i])) @ v for i in range(8)])
    assert relative(found, right) < 1e-5


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    index = language_index()
    with pytest.raises(InputError, match="no base model.*debias=False"):
        DDA(run())
    plain = hw.Query("the cat sat", " down")
    for query in (plain, hw.Query.mean([QUERIES[0], plain])):
        with pytest.raises(
            InputError, match="CEA needs a wrong output and its correction.*instead_of"
        ):
            hw.scores(index, query, method=CEA())
    with pytest.raises(InputError, match="Unknown form"):
        DDA(debias=False, form="other")  # type: ignore[arg-type]
    for wrong in (0.0, -1.0, math.nan, math.inf, None, "0.1"):
        with pytest.raises(InputError, match="change"):
            DDA(debias=False, change=wrong)  # type: ignore[arg-type]
        if wrong not in (0.0, -1.0):
            with pytest.raises(InputError, match="beta"):
                DDA(debias=False, beta=wrong)  # type: ignore[arg-type]
    for name, value in (("debias", False), ("denoise", True), ("beta", 1.0), ("base", tmp_path)):
        with pytest.raises(InputError, match=f"CEA neither debiases nor denoises.*{name}"):
            CEA(**{name: value})
    with pytest.raises(InputError, match="no training run"):
        DDA(3, debias=False)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no checkpoint"):
        DDA(TrainingRun(()), debias=False)
    tiny_llama(hidden_size=8).save_pretrained(str(tmp_path))
    before = index.task.model.state_dict()["lm_head.weight"].clone()
    with pytest.raises(MismatchError):
        hw.scores(index, QUERIES, method=DDA(run(), tmp_path))
    assert torch.equal(index.task.model.state_dict()["lm_head.weight"], before)
    same = hw.Query("the cat sat", " down", instead_of=" down")
    ends = (" x", " z", " w", " v", " k")  # each wrong once and right once: only rounding is left
    ring = [
        hw.Query("the cat sat", a, instead_of=b)
        for a, b in zip(ends, ends[1:] + ends[:1], strict=True)
    ]
    for query in (same, hw.Query.mean(ring)):
        with pytest.raises(NumericError, match="no gradient"):
            hw.scores(index, query, method=DDA(debias=False, form="gradient"))


def test_some_documents_only_and_some_parameters() -> None:
    index = language_index()
    method = dda(run(), folders()[0])
    full = hw.scores(index, QUERIES, method=method)
    some = hw.scores(index, QUERIES, method=method, ids=index.ids[:3])
    assert np.isnan(some[:, 3:]).all()
    assert relative(some[:, :3], full[:, :3]) < 1e-3
    mlp = hw.scores(index, QUERIES, method=method, modules=["*mlp*"])
    assert relative(mlp, full) > 0.05


def test_description() -> None:
    described = json.loads(json.dumps(dda(run(), folders()[0], beta=0.5).describe()))
    assert described["checkpoints"] == [str(p) for p in folders()[1:]]
    assert described["base"] == str(folders()[0])
    assert described["beta"] == 0.5
    assert described["learning_rate"] == RATE
    assert "learning_rate" not in DDA(debias=False, form="gradient").describe()
    assert CEA().describe()["method"] == "cea"
