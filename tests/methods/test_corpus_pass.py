"""What passes over a corpus share: which modules take part, scores that are none, descriptions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.corpus_pass import CorpusPass, query_matrices
from models import SENTENCES, Mlp, byte_tokenizer, class_loss, tiny_llama
from small_net import LAYERS, N, matrices, rows, task

CLOSE = 1e-6  # scores are float32


class Plain(CorpusPass):
    """The products of gradients themselves."""

    name = title = "plain"
    unit, needs = "products", "a model"

    def __init__(self, parameters: Any = "linear") -> None:
        self.parameters = parameters

    def directions(self, index: Any, layers: Any, queries: Any) -> Any:
        return query_matrices(layers, queries)


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return hw.Index.build(None, task(), hw.Corpus.from_columns(rows()), None)


def query() -> hw.Query:
    asked = rows(9)
    return hw.Query(columns={"x": asked["x"][8], "y": asked["y"][8]})


def products(names: list[str]) -> np.ndarray:
    """Of these layers alone, by autograd."""
    t, data, asked = task(), rows(), rows(9)
    q = matrices(t, asked["x"][8], asked["y"][8])
    each = [matrices(t, x, y) for x, y in zip(data["x"], data["y"], strict=True)]
    return np.array([sum(float((q[n] * g[n]).sum()) for n in names) for g in each])


def convolution_or_head(name: str, _: Any) -> bool:
    return name in ("conv", "head")


CHOICES = {
    "all": ("linear", None, list(LAYERS)),
    "by weight": ("linear", ["twice.weight"], ["twice.weight"]),
    "by module": ("linear", ["twice"], ["twice.weight"]),
    "one pattern": ("linear", "*", list(LAYERS)),
    "of a filter's all": (convolution_or_head, ["*"], ["conv.weight", "head.weight"]),
    "of a filter's one": (convolution_or_head, ["*o*"], ["conv.weight"]),
}


@pytest.mark.parametrize("case", CHOICES)
def test_modules_narrow_what_parameters_chose(index: hw.Index, case: str) -> None:
    parameters, modules, names = CHOICES[case]
    found = hw.scores(index, query(), method=Plain(parameters), modules=modules)[0]
    right = products(names)
    assert np.abs(found - right).max() < CLOSE * np.abs(right).max()


@pytest.mark.parametrize("modules", [["twice"], ["nothing"], []])
def test_no_module_is_told(index: hw.Index, modules: list[str]) -> None:
    with pytest.raises(InputError, match="No attributed module matches"):
        hw.scores(index, query(), method=Plain(convolution_or_head), modules=modules)


def test_all_modules_of_a_language_model_are_without_its_head() -> None:
    corpus = hw.Corpus.from_columns({"text": SENTENCES[:3]})
    for tied in (True, False):
        t = hw.CausalLM(tiny_llama(tied=tied), byte_tokenizer())
        built = hw.Index.build(None, t, corpus, None)
        asked = hw.Query("The capital of Peru is", " Lima")
        one, other = (hw.scores(built, asked, method=Plain(), modules=m) for m in (None, ["*"]))
        assert (one == other).all()


def test_all_modules_of_an_adapter_are_without_its_base() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    t = hw.CausalLM(peft.get_peft_model(tiny_llama(), config), byte_tokenizer())
    built = hw.Index.build(None, t, hw.Corpus.from_columns({"text": SENTENCES[:3]}), None)
    layers = Plain().layers(built, ["*layers.0*"]).layers
    assert len(layers) == 4  # two matrices of two modules
    assert all(".layers.0." in name and "lora_" in name for name in layers)


def test_views_and_passes_take_the_same_patterns() -> None:
    generator = np.random.default_rng(0)
    data = {"x": generator.normal(size=(5, 6)).astype(np.float32), "y": np.arange(5)}
    corpus = hw.Corpus.from_columns(data)
    features = hw.Features(projection=None, storage="float32")
    built = hw.Index.build(None, hw.Task(Mlp(), class_loss), corpus, features)
    asked = hw.Query(columns={"x": data["x"][0], "y": 3})
    names = [block.name for block in built.blocks]
    for patterns in ([names[1]], [names[1].removesuffix(".weight")], ["*.2"], ["*2.weight"]):
        view = hw.scores(built, asked, method=hw.GradDot(), modules=patterns)
        passed = hw.scores(built, asked, method=Weights(), modules=patterns)
        np.testing.assert_allclose(view, passed, rtol=1e-5)
        np.testing.assert_allclose(
            view, hw.scores(built, asked, method=hw.GradDot(), modules=[names[1]]), rtol=1e-6
        )


class Weights(Plain):
    """Without biases, as features are."""

    def layers(self, index: Any, modules: Any = None, task: Any = None) -> Any:
        from headwater.gradients.matrices import Layers

        return Layers(index.task, modules=modules, biases=False)


# -- scores that are none --------------------------------------------------------------------------


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.line.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


def squares(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch["x"])[:, 0] - batch["y"]).square()


def test_a_score_that_is_not_finite_is_none() -> None:
    """Of gradients that overflow, in float64 or only in the scores' float32."""
    data = {"x": np.array([[1.0], [2.0], [1e160], [3.0], [1e20]]), "y": np.zeros(5)}
    corpus = hw.Corpus.from_columns(data, ids=list("abcde"))
    built = hw.Index.build(None, hw.Task(Line().double(), squares), corpus, None)
    asked = hw.Query(columns={"x": [1.0], "y": 0.0})
    found = hw.scores(built, asked, method=Plain())[0]
    np.testing.assert_allclose(found, [4, 16, np.nan, 36, np.nan])
    (top,) = hw.top(built, asked, 5, method=Plain())
    assert top.ids == ["d", "b", "a"]
    assert [one.name for one in hw.rank(built, asked, method=Plain())] == ["d", "b", "a"]
    method = hw.EKFAC("empirical", 1.0)
    fitted = hw.Index.build(
        None, built.task, hw.Corpus.from_columns({k: v[:2] for k, v in data.items()}), None
    )
    factors = method.factors(fitted, method.layers(fitted))
    method.factors = lambda *_: factors  # type: ignore[method-assign]
    own = hw.self_influence(built, method=method)
    assert np.isnan(own).tolist() == [False, False, True, False, True]


# -- descriptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [hw.EKFAC, hw.KFAC, hw.DataInf, hw.Arnoldi])
def test_a_description_tells_the_parameters(make: Any) -> None:
    assert make().describe()["parameters"] == "linear"
    told = make(parameters=convolution_or_head).describe()
    assert told["parameters"] == "filter"
    json.dumps(told)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: hw.EKFAC(damping="0.1"), "damping"),
        (lambda: hw.EKFAC(damping=True), "damping"),
        (lambda: hw.EKFAC(damping=torch.tensor(0.1)), "damping"),
        (lambda: hw.EKFAC(damping=float("nan")), "damping"),
        (lambda: hw.EKFAC(damping=None), "damping"),
        (lambda: hw.RelativeDamping("0.1"), "share"),
        (lambda: hw.RelativeDamping(-1), "share"),
        (lambda: hw.ScheduleDamping([0.1, "0.2"]), "learning rate"),
        (lambda: hw.ScheduleDamping([0.1], scale=float("inf")), "scale"),
        (lambda: hw.EKFAC(refine=1.5), "refine"),
        (lambda: hw.EKFAC(examples=0), "examples"),
        (lambda: hw.EKFAC(examples=2.5), "examples"),
        (lambda: hw.DataInf(damping=float("inf")), "damping"),
        (lambda: hw.DataInf(damping="0.1"), "damping"),
        (lambda: hw.DataInf(examples=0), "examples"),
        (lambda: hw.Arnoldi(examples=0), "examples"),
        (lambda: hw.Arnoldi(examples=-2), "examples"),
        (lambda: hw.Arnoldi(2.5), "directions_kept"),
        (lambda: hw.Arnoldi(2, 3.5), "iterations"),
    ],
)
def test_numbers_that_are_none_are_told(make: Any, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        make()
    assert "\n" not in str(error.value)


def test_numpys_numbers_are_numbers(index: hw.Index) -> None:
    one, other = (
        hw.scores(index, query(), method=hw.EKFAC("empirical", damping))
        for damping in (0.5, np.float32(0.5))
    )
    assert (one == other).all()
    described = hw.EKFAC(damping=np.float32(0.5)).describe()["damping"]
    assert described == "AbsoluteDamping(value=0.5)"
    assert hw.scores(index, query(), method=hw.DataInf(examples=np.int64(N))).shape == (1, N)
