"""Which tokenizer is used, and that its tokens are exact characters of the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evidence.named_tokenizer import tokenizer_of
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from headwater.evidence.words import word_tokenizer
from models import SENTENCES, byte_tokenizer, tiny_llama
from phrase_models import letters, sentence_pieces, text_index, token_index

ODD = [
    "Café, naïve — “quoted” 🙂🙃 end.",
    "  two spaces,\ttab\n\nnew line",
    "日本語のテキスト and עברית",
    "e\u0301 combining",
]


def byte_level() -> TextTokenizer:
    return TextTokenizer.from_json(byte_tokenizer().backend_tokenizer.to_str(), "bytes")


def subwords() -> TextTokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocab = {"[UNK]": 0, "lima": 1, "peru": 2, "##s": 3, ".": 4, "the": 5}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return TextTokenizer.from_json(raw.to_str(), "subwords")


def spelled(tokenizer: TextTokenizer, flags: object) -> set[str]:
    return {token for token, number in tokenizer.raw.get_vocab().items() if flags[number]}


@pytest.mark.parametrize("text", [*SENTENCES, *ODD])
def test_byte_level_offsets_tile_the_text(text):
    tokenizer = byte_level()
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text
    assert tokenizer.encode_many([text, ""])[0].tolist() == encoded.ids.tolist()
    reached = 0
    for start, end in encoded.offsets.tolist():
        assert start <= reached  # a character's other bytes have its range again
        reached = max(reached, end)
    assert reached == len(text)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_words_are_lossless_and_know_their_corpus(texts):
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    tokenizer = TextTokenizer.from_json(word_tokenizer(iter(clean)), "words")
    for text in clean:
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids) == text
        assert tokenizer.unknown not in encoded.ids
        reached = 0
        for start, end in encoded.offsets.tolist():
            assert start <= reached <= end
            reached = end
        assert reached == len(text)


def test_words_are_the_same_in_any_order_of_equal_counts():
    assert word_tokenizer(iter(["b a", "c"])) == word_tokenizer(iter(["c", "b a"]))


def test_truncation_padding_and_special_tokens_are_off():
    raw = byte_tokenizer(specials=True).backend_tokenizer
    raw.enable_truncation(3)
    raw.enable_padding(length=9)
    tokenizer = TextTokenizer.from_json(raw.to_str(), "bytes")
    assert tokenizer.decode(tokenizer.encode(SENTENCES[1]).ids) == SENTENCES[1]
    assert tokenizer.fingerprint == byte_level().fingerprint


def test_word_starts():
    tokenizer = byte_level()
    starts = spelled(tokenizer, tokenizer.word_starts)
    assert {"Ġc", ".", ";", "Ċ", "<s>", "Ġ"} <= starts
    assert not {"a", "apital", "9", "Ã", "©"} & starts

    tokenizer = sentence_pieces()
    starts = spelled(tokenizer, tokenizer.word_starts)
    assert {"▁a", "▁", ".", "<0x20>", "<0x2E>"} <= starts
    assert not {"ab", "é", "<0x61>", "<0xC3>", "<0xA9>"} & starts

    tokenizer = subwords()
    assert spelled(tokenizer, ~tokenizer.word_starts) == {"##s"}
    assert letters().word_starts.all()


def test_stops():
    tokenizer = byte_level()
    assert {".", "Ċ"} <= spelled(tokenizer, tokenizer.stops)
    assert not {"a", "Ġ", ","} & spelled(tokenizer, tokenizer.stops)
    tokenizer = sentence_pieces()
    assert spelled(tokenizer, tokenizer.stops) == {".", "<0x0A>", "<0x2E>"}


def test_unknown_word():
    assert letters().unknown is None  # its vocabulary has no "?"
    assert subwords().unknown == 0
    assert byte_level().unknown is None


def test_decoding_an_id_of_another_tokenizer():
    with pytest.raises(InputError, match="not of the tokenizer letters; expected ids below 10"):
        letters().decode([3, 10])


def test_the_index_s_own_is_the_loaded_model_s_or_its_file(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama().save_pretrained(tmp_path / "model")
    task = hw.CausalLM.load(str(tmp_path / "model"), dtype="float32", device="cpu")
    corpus = hw.Corpus.from_documents([{"id": "a", "text": SENTENCES[0]}])
    hw.Index.build(tmp_path / "index", task, corpus, None)
    loaded = tokenizer_of(hw.Index.open(tmp_path / "index", task))
    read = tokenizer_of(hw.Index.open(tmp_path / "index"))
    assert loaded.fingerprint == read.fingerprint == byte_level().fingerprint
    assert read.name == str(tmp_path / "model")
    named = tokenizer_of(hw.Index.open(tmp_path / "index"), tmp_path / "model" / "tokenizer.json")
    assert named.fingerprint == read.fingerprint


def test_a_copied_index_has_its_tokenizer_with_it(tmp_path):
    """Phrases can be asked for where the model is not; but not by another's tokenizer."""
    byte_tokenizer().save_pretrained(tmp_path / "model")
    tiny_llama().save_pretrained(tmp_path / "model")
    name = str(tmp_path / "model")
    task = hw.CausalLM.load(name, dtype="float32", device="cpu")
    corpus = hw.Corpus.from_documents([{"id": "a", "text": SENTENCES[0]}])
    built = Verbatim.open(hw.Index.build(tmp_path / "index", task, corpus, None))
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    index = hw.Index.open(tmp_path / "index")
    for asked in (None, name):
        assert tokenizer_of(index, asked).fingerprint == byte_level().fingerprint
    assert Verbatim.open(index, build=False).count_text("Lima") == 1
    with pytest.raises(InputError, match="no such tokenizer"):
        tokenizer_of(index, str(tmp_path / "another"))
    (built.folder / "tokenizer.json").write_text(letters().json)  # damaged: another's
    with pytest.raises(InputError, match="no such tokenizer"):
        tokenizer_of(hw.Index.open(tmp_path / "index"))


def test_spellings_stand_apart():
    tokenizer = byte_level()
    bare, spaced = tokenizer.spellings(" capital ")
    assert tokenizer.decode(bare) == "capital"
    assert tokenizer.decode(spaced) == " capital"
    assert len(tokenizer.spellings("Quito")) == 1  # its space is a token of its own
    words = tokenizer_of(text_index(["a fox, (fox"]))
    assert [[words.raw.id_to_token(i) for i in one] for one in words.spellings("fox,")] == [
        ["fox", ","],
        [" fox", ","],
    ]
    assert len(letters().spellings("a b")) == 1
    with pytest.raises(InputError, match="no tokens"):
        tokenizer.spellings(" ")


def test_a_corpus_without_a_model_has_words():
    index = text_index(SENTENCES)
    tokenizer = tokenizer_of(index)
    assert tokenizer.describe()["name"] == "words"
    assert tokenizer_of(index, "words").fingerprint == tokenizer.fingerprint
    assert " capital" in tokenizer.raw.get_vocab()


def test_bad_names(tmp_path):
    index = token_index([[1, 2]])
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(InputError, match="no such tokenizer"):
        tokenizer_of(index, "nothing-here")
    with pytest.raises(InputError, match="cannot be read"):
        tokenizer_of(index, tmp_path)
    with pytest.raises(InputError, match="There is no tokenizer.json"):
        tokenizer_of(index, tmp_path.parent)
    with pytest.raises(InputError, match="not at hand"):
        tokenizer_of(index, "nobody/has-this")
