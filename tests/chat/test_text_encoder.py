"""Ids by segments are those of the tokenizer, whatever it does to text; or the text is encoded in one piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from lit_align.chat.spelled_tokens import fast_backend
from lit_align.chat.text_encoder import KEPT_SEGMENTS, TextEncoder, cutting_tokens

SPECIAL = ["<s>", "<s>>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["the owl said: hello, the owl \n\n naïve Ünïcode ﬁne  text 1234 <s", " ▁a b  c\t\td"] * 3
TEXT = st.lists(
    st.sampled_from(
        [*SPECIAL, "<tool>", " ", "\n", "  ", "the owl", "ﬁ", "Ü", "<", "s>", "▁", "é", "hello,"]
    ),
    max_size=12,
).map("".join)


def byte_level(**options) -> Tokenizer:
    """Bytes, as in GPT-2, Qwen and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def pieces(scheme: str | None, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """Pieces with a mark for blanks, as in Llama 2 and Mistral."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    if scheme is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """A unigram model, whose tokens depend on the whole piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=70, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
KINDS = {
    "bytes": lambda: byte_level(add_prefix_space=False),
    "bytes after a blank": lambda: byte_level(add_prefix_space=True),
    "pieces, each after a mark": lambda: pieces("always"),
    "pieces, the first after a mark": lambda: pieces("first"),
    "pieces, marks by normalisation": lambda: pieces(None, PREPEND),
    "unigram, normalised": unigram,
}
NOT_CUT = {"pieces, the first after a mark"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> tuple[str, PreTrainedTokenizerFast]:
    """A tokenizer of each kind, with special tokens and one that is found after normalisation."""
    backend = KINDS[request.param]()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.add_tokens([AddedToken("<tool>", normalized=True)])
    return request.param, PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


@given(text=TEXT, other=TEXT)
def test_ids_are_those_of_the_tokenizer(kind, text, other):
    name, tokenizer = kind
    backend = fast_backend(tokenizer)
    assert backend is not None
    encoder = TextEncoder(tokenizer, backend)
    assert bool(encoder._cutting) == (name not in NOT_CUT)
    for whole in (text, text + other, other, text):
        assert encoder.encode(whole) == tokenizer(whole, add_special_tokens=False).input_ids


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_text_is_in_one_piece_where_a_token_takes_what_is_beside_it(option):
    backend = byte_level(add_prefix_space=False)
    backend.add_special_tokens([AddedToken("<s>", normalized=False, **{option: True})])
    assert cutting_tokens(backend) == {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")
    text = "the owl  <s> the <s>owl"
    expected = tokenizer(text, add_special_tokens=False).input_ids
    assert TextEncoder(tokenizer, backend).encode(text) == expected


def test_few_segments_are_kept():
    backend = byte_level(add_prefix_space=False)
    backend.add_special_tokens(["<s>"])
    encoder = TextEncoder(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>"), backend
    )
    for number in range(3 * KEPT_SEGMENTS):
        encoder.encode(f"always<s>{number}")
    assert len(encoder._segments) == KEPT_SEGMENTS
    assert "always" in encoder._segments


class Unwritten:
    """A compiled tokenizer that is not written out as JSON, which takes a tenth of a second for a real one."""

    def __init__(self, backend):
        self.backend = backend

    def __getattr__(self, name):
        assert name != "to_str"
        return getattr(self.backend, name)


def test_an_encoder_is_made_without_writing_the_tokenizer_out(kind):
    """Rewards make one at each call."""
    _, tokenizer = kind
    backend = fast_backend(tokenizer)
    assert TextEncoder(tokenizer, Unwritten(backend))._cutting == cutting_tokens(backend)
