"""Texts of so many characters that they cannot fit are known, and cut, without being tokenised."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_align.data import long_text
from lit_align.data.long_text import LongTexts, token_size
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, Overlong
from lit_align.types import Group, Pair
from tests import tiny

MERGES = [("a", "a"), ("aa", "aa"), ("b", "a"), ("a", "b"), ("Ġ", "a"), ("Ġa", "b"), ("ba", "ba")]
WINDOW = 60


def byte_level(merges=(), use_regex=True):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return inner


def sentencepiece():
    """With a token for each byte, and the space as a letter."""
    words = [*(f"<0x{i:02X}>" for i in range(256)), *"▁ab", "▁a", "aa", "ab", "aab", "▁▁"]
    inner = Tokenizer(
        models.Unigram([(w, -1.0 - len(w) % 2) for w in words], 0, byte_fallback=True)
    )
    inner.normalizer = normalizers.Replace(" ", "▁")
    return inner


def chat(inner, **options):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    thoughts = "{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}"
    tokenizer.chat_template = tiny.CHATML.replace("{{ m['content']", thoughts + "{{ m['content']")
    return ChatTokenizer(tokenizer, **{"max_length": WINDOW, **options})


makers = st.sampled_from(
    [byte_level, lambda: byte_level(MERGES), lambda: byte_level(MERGES, False), sentencepiece]
)
texts = st.one_of(
    st.lists(
        st.sampled_from(["a", "b", " ", "\n", "é", "ab ", "aaa", "."]), min_size=1, max_size=30
    ),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
).map("".join)


@pytest.fixture(autouse=True)
def _low_floor(monkeypatch):
    monkeypatch.setattr(long_text, "MIN_LONG", 0)


@given(makers, texts, st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_what_is_called_long_is_longer_and_the_bound_holds(make, text, count):
    inner, text = make(), text * count
    size = token_size(inner)
    ids = inner.encode(text, add_special_tokens=False).ids
    assert len(ids) * size.characters >= len(text)
    long_texts = LongTexts(inner, lambda text: inner.encode(text).ids, WINDOW)
    assert len(ids) > WINDOW or not long_texts.is_long(text)


@given(makers, texts, st.integers(100, 300), st.sampled_from(["turns", "text", "thoughts"]))
@settings(max_examples=60, deadline=None)
def test_a_long_text_has_the_tokens_that_it_would_have_been_cut_to(make, text, count, kind):
    text *= count
    question, answer = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": f"x{text}"},
    )
    if kind == "thoughts":
        answer = {**answer, "content": "b", "reasoning_content": text}
    groups = {
        "turns": Group([question], [[answer], [{**answer, "content": "b"}]], (Pair(0, 1),)),
        "thoughts": Group([question], [[{**answer, "content": f"a{text}"}]]),
        "text": Group("a", [f"x{text}"]),
    }
    group = groups[kind]
    chat_tokenizer = chat(make(), overlong="truncate", as_chat=kind != "text")
    cut = chat_tokenizer.encode(group)
    chat_tokenizer._long_texts.backend = None  # nothing is known to be long
    chat_tokenizer._long_texts.__dict__.pop("_token_size", None)
    whole = chat_tokenizer.encode(group)
    assert cut.tree == whole.tree
    assert (cut.ends_lost, cut.unread) == (whole.ends_lost, whole.unread)
    assert not whole.chars_cut


GIANT = "hello world " * 100_000


def test_a_giant_text_is_not_tokenised():
    chat_tokenizer = chat(byte_level(MERGES), overlong="truncate")
    lengths = []
    tokenize = chat_tokenizer._long_texts.tokenize
    chat_tokenizer._long_texts.tokenize = lambda text: lengths.append(len(text)) or tokenize(text)
    encoded = chat_tokenizer.encode(
        Group([{"role": "user", "content": "a"}], [[{"role": "assistant", "content": GIANT}]])
    )
    assert max(lengths) < 1000
    assert encoded.chars_cut > len(GIANT) - 1000
    assert encoded.tree.tokens == WINDOW
    assert encoded.tree.group.responses[0][0]["content"] == GIANT


def test_a_text_that_costs_less_to_tokenise_than_its_prefixes_stays_whole():
    inner = byte_level(MERGES)
    size = token_size(inner)
    long_texts = LongTexts(inner, lambda text: inner.encode(text).ids, WINDOW)
    prefixes = size.piece * (8 * WINDOW + size.piece)
    short, long = ("x" * length for length in (prefixes, prefixes + 1))
    assert long_texts.is_long(short)
    shortened = [long_texts.shorten(Group("a", [text])).responses[0] for text in (short, long)]
    assert [len(text) for text in shortened] == [prefixes, 8 * WINDOW + size.piece]


@pytest.mark.parametrize("as_chat", [True, False])
def test_the_other_ways_of_a_giant_text(as_chat):
    for group, reason in (
        (Group(GIANT, ["a"]), "prompt fills max_length"),
        (Group("a", [GIANT]), "longer than max_length"),
    ):
        with pytest.raises(Overlong, match=reason):
            chat(byte_level(), as_chat=as_chat).encode(group)
        with pytest.raises(
            DataError, match="more than 60 tokens, over max_length; raise max_length"
        ):
            chat(byte_level(), as_chat=as_chat, overlong="error").encode(group)


def test_tokens_without_a_bound_are_not_given_one():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert token_size(words) is None
    stripping = byte_level()
    stripping.normalizer = normalizers.Strip()
    assert token_size(stripping) is None
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters.remove("Ą")  # of the character U+0004
    fewer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    fewer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert token_size(fewer).lost == "\x04"
    assert not LongTexts(fewer, fewer.encode, WINDOW).is_long("\x04" * 10_000)
