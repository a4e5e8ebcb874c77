"""The demo's experiment: train a small model, ask where an answer came from, see if it is true.

The proof is counterfactual: the model is trained again without the examples that were found, and as
a control without as many random ones. Nothing else differs: same seed, tokenizer and recipe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.engine.threads import one_thread

if TYPE_CHECKING:
    from headwater.answer.answer import Answer
    from headwater.corpus.corpus import Corpus
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.query import Query
    from headwater.training.recipe import Recipe
    from headwater.training.run import TrainingRun

MOST_WORDS = 8  # tokens of what a model says
BASE = "base"  # folder of the weights before the training, in the run's


@dataclass(frozen=True)
class Setting:
    """What the demo does.

    Args:
        country: whose capital is asked.
        top: examples that are taken away.
        seed: of weights, order and control.
        countries, relations: of the facts; all when left out.
        recipe: of the training; the demo's own when left out.
    """

    country: str = "Peru"
    top: int = 5
    seed: int = 0
    countries: Collection[str] | None = None
    relations: Collection[str] | None = None
    recipe: Recipe | None = None


@dataclass
class Trial:
    """One of the three models: what it was trained on, and what it makes of the question."""

    name: str
    examples: int
    probability: float
    says: str


@dataclass
class Demo:
    """What came out.

    Args:
        answer: of `headwater ask`. gold: ids of the documents that state the fact.
        removed, control: ids that were taken away, found and random ones.
        trials: all examples, without the found ones, without the random ones.
        losses: mean loss of each step of the first training. seconds: by stage.
    """

    answer: Answer
    gold: list[str]
    removed: list[str]
    control: list[str]
    trials: list[Trial]
    losses: list[float]
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        return asdict(self) | {"folder": str(self.folder), "verdict": verdict(self)}


def run_demo(folder: Path, setting: Setting, say: Callable[[str], None]) -> Demo:
    """Train, index, ask, train twice more; model and index are left in `folder`.

    Args:
        say: told of each stage in a line.

    Raises:
        InputError: when the country is unknown or the facts cannot be made.
    """
    with one_thread():
        return _run(folder, setting, say)


def _run(folder: Path, setting: Setting, say: Callable[[str], None]) -> Demo:
    from headwater.answer.ask import ask
    from headwater.tasks.query import Query
    from headwater.training.facts import fact_queries, facts_corpus

    fact = fact_queries("capital", [setting.country])[0]
    query = Query(fact.prompt, fact.completion)
    corpus = facts_corpus(setting.seed, setting.countries, setting.relations)
    total = corpus.count()
    if not 1 <= setting.top < total // 2:
        raise InputError("--top is out of range", expected=f"1 to {total // 2}", found=setting.top)
    seconds: dict[str, float] = {}
    say(f"1/5  training a small language model on {total:,} sentences of facts")
    with _timed(seconds, "training"):
        task, run = _train(corpus, corpus, setting, folder / "model")
    say(f"     loss {run.losses[0]:.2f} at first, {run.losses[-1]:.2f} at last")
    say("2/5  indexing the sentences for this model")
    with _timed(seconds, "index"):
        index = _index(folder, task, run, corpus)
    say(f"3/5  asking: where did it get {fact.prompt!r} -> {fact.completion!r}?")
    with _timed(seconds, "ask"):
        answer: Answer = ask(index, query, top=setting.top)
    removed = [i for item in answer.proponents for i in (item.id, *item.duplicates)]
    control = _random(index.ids, removed, setting.seed)
    trials = [_trial("all examples", task, query, total)]
    found, others = f"without the {len(removed)} found", f"without {len(control)} at random"
    for stage, (name, ids) in enumerate(((found, removed), (others, control)), 4):
        say(f"{stage}/5  training again {name}")
        with _timed(seconds, name):
            again, _ = _train(corpus, corpus.select(without=ids), setting, None)
        trials.append(_trial(name, again, query, total - len(ids)))
    gold = list(fact.gold)
    return Demo(answer, gold, removed, control, trials, list(run.losses), folder, seconds)


def _train(
    everything: Corpus, examples: Corpus, setting: Setting, out: Path | None
) -> tuple[CausalLM, TrainingRun]:
    """A model with the tokenizer of all the facts, trained on `examples`."""
    from headwater.tasks.causal_lm import CausalLM
    from headwater.training.loop import save_model, train
    from headwater.training.small_lm import DEMO_RECIPE, small_lm

    texts = [document.content["text"] for document in everything.documents()]
    model, tokenizer = small_lm(texts, seed=setting.seed)
    task = CausalLM(model, tokenizer)
    recipe = replace(setting.recipe or DEMO_RECIPE, seed=setting.seed)
    if out is not None:
        save_model(model, out / BASE)  # `headwater verify` trains again from these
    return task, train(task, examples, recipe, out=out)


def _index(folder: Path, task: CausalLM, run: TrainingRun, corpus: Corpus) -> Any:
    """The index, corrected by the optimizer's own second moment; it knows where its model is."""
    from headwater.gradients.features import Features
    from headwater.index.index import Index
    from headwater.training.second_moment import load_second_moment

    task.source = {"name": str(run.checkpoints[-1].path.resolve()), "dtype": "float32"}
    features = Features(second_moment=load_second_moment(run, task))
    return Index.build(folder / "index", task, corpus, features)


def _random(ids: list[str], without: Collection[str], seed: int) -> list[str]:
    """As many ids as in `without`, of the others."""
    import numpy as np

    others = [name for name in ids if name not in set(without)]
    chosen = np.random.Generator(np.random.PCG64(seed)).permutation(len(others))
    return [others[i] for i in chosen[: len(without)].tolist()]


def _trial(name: str, task: CausalLM, query: Query, examples: int) -> Trial:
    """Ask this model: the probability of the answer, and its own first words."""
    import torch

    ((_, chunk),) = task.query_chunks(query)
    with torch.no_grad():
        loss = float(task.measurement(task.collate([chunk])))
        ids = task.tokenizer(str(query.prompt), return_tensors="pt")["input_ids"]
        mask = torch.ones_like(ids)
        made = task.model.generate(  # type: ignore[operator] - a transformers model
            ids, attention_mask=mask, max_new_tokens=MOST_WORDS, do_sample=False
        )
    text = task.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return Trial(name, examples, math.exp(-loss), text.partition(".")[0].strip())


def verdict(demo: Demo) -> str:
    """One honest sentence about what the three probabilities show."""
    whole, found, control = (trial.probability for trial in demo.trials)
    caveat = "One question and one seed: an illustration, not a benchmark."
    count = len(demo.removed)
    if found < whole / 2 and control > whole / 2:
        return (
            f"Without the {count} examples that were found the model no longer gives the answer, "
            f"without {count} random ones it still does: that is where it came from. {caveat}"
        )
    if found < whole / 2:
        return (
            "Both removals cost the answer, so the model hardly knew it, and nothing follows about "
            f"the examples that were found. {caveat}"
        )
    return (
        f"The model still gives the answer without the {count} examples that were found: it has "
        f"other sources, or they were not the right ones. {caveat}"
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Generator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)
