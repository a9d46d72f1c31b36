"""How a turn ends is one question with one answer: for what is learned and for where sampling stops."""

from tokenizers import AddedToken

from lit_align.chat.turn_ends import turn_ends
from lit_align.data.tokenize import ChatTokenizer
from lit_align.types import Group
from tests.data.conftest import CHATML

ASK, FOUR = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
CALLS = CHATML.replace(
    "{{ m['content'] }}<|im_end|>",
    "{{ m['content'] }}{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}</call>{% endfor %}"
    "{% if m.tool_calls %}<|to_tool|>{% else %}<|im_end|>{% endif %}",
)
CALL = {"type": "function", "function": {"name": "double", "arguments": {"n": "two"}}}


def learned(made, turn):
    tree = ChatTokenizer(made, max_length=999).encode(Group([ASK], [[turn]])).tree
    scored = zip(tree.responses[0], tree.scored[0], strict=True)
    return [token for token, is_learned in scored if is_learned]


def ids_of(made, *tokens):
    return set(made.convert_tokens_to_ids(list(tokens)))


def test_an_added_token_ends_a_turn_whether_or_not_it_is_special(tokenizer):
    for special in (True, False):
        made = tokenizer(eos="</s>", template=CHATML.replace("<|im_end|>", "<|eot|>"))
        made.add_tokens([AddedToken("<|eot|>", special=special)])
        assert turn_ends(made) == ids_of(made, "</s>", "<|eot|>")
        assert made.decode(learned(made, FOUR)) == "4<|eot|>"


def test_a_template_that_closes_the_text_too_is_learned_to_the_end_of_the_turn(tokenizer):
    prompt = "{% if add_generation_prompt %}"
    closes = CHATML.replace(prompt, "{% if not add_generation_prompt %}</s>{% else %}")
    made = tokenizer(eos="</s>", template=closes)
    assert made.decode(learned(made, FOUR)) == "4<|im_end|>"


def test_a_call_has_an_end_of_its_own_and_its_closing_mark_is_none(tokenizer):
    made = tokenizer(eos="</s>", template=CALLS)
    made.add_tokens([AddedToken(token, special=True) for token in ("</call>", "<|to_tool|>")])
    assert turn_ends(made) == ids_of(made, "</s>", "<|im_end|>", "<|to_tool|>")
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert made.decode(learned(made, turn)) == '<call>double{"n": "two"}</call><|to_tool|>'


def test_without_a_template_text_ends_with_eos(tokenizer):
    made = tokenizer(eos="</s>", template=None)
    assert turn_ends(made) == ids_of(made, "</s>")
