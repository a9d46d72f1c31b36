"""Keys of turns: thoughts, tool calls, weights and tools reach the template, or the row says what was lost."""

import json

import pytest

from lit_align.data.formats.fields import parse_messages
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, Pair

ASK, MORE = {"role": "user", "content": "2 + 2?"}, {"role": "user", "content": "Sure?"}
HEADER = "<|im_start|>assistant\n"
THINKS = (
    "{% if tools %}<|im_start|>tools{% for t in tools %}{{ t.function.name }} {% endfor %}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.KEY %}<think>{{ m.KEY }}</think>{% endif %}"
    "{% if m.role == 'assistant' and enable_thinking is defined and not m.KEY %}<think></think>{% endif %}"
    "{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ CALL }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
NESTED = "{{ call.function.name }}({{ call.function.arguments | tojson }})"
FORMS = {
    "nested objects": "call.function.name }}({{ call.function.arguments | tojson }})",
    "nested text": "call.function.name + '(' + call.function.arguments + ')' }}",
    "flat objects": "call.name }}({{ call.arguments | tojson }})",
}


def thinks(key="reasoning_content", call="nested objects"):
    return THINKS.replace("KEY", key).replace("{{ CALL }}", "{{ " + FORMS[call])


def assistant(content, **keys):
    return {"role": "assistant", "content": content, **keys}


def encode(tokenizer, prompt, response, **settings):
    prompt, response = (parse_messages(turns, "messages") for turns in (prompt, response))
    group = Group(prompt, [response], **settings.pop("group", {}))
    return ChatTokenizer(tokenizer, max_length=999, **settings).encode(group)


def learned(tokenizer, encoded):
    """The learned text of each part of the response."""
    texts = []
    for part in encoded.tree.parts_of(0):
        ids = [token for token, scored in zip(part.ids, part.scored, strict=True) if scored]
        texts.append(tokenizer.decode(ids))
    return texts


@pytest.mark.parametrize("row_key", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("template_key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_reach_the_template_under_its_own_key(tokenizer, row_key, template_key):
    made = tokenizer(template=thinks(template_key))
    encoded = encode(made, [ASK], [assistant("4", **{row_key: "Pairs."})])
    assert learned(made, encoded) == ["<think>Pairs.</think>4<|im_end|>"]
    assert encoded.unread == ()


def test_thoughts_that_the_template_does_not_write_set_the_row_aside(tokenizer):
    with pytest.raises(SetAside, match="the thoughts of an assistant turn"):
        encode(tokenizer(), [ASK], [assistant("4", reasoning_content="Pairs.")])


def test_two_different_thoughts_are_malformed(tokenizer):
    with pytest.raises(Malformed, match="different thoughts"):
        encode(tokenizer(), [ASK], [assistant("4", reasoning_content="a", thinking="b")])


def test_thoughts_within_the_content_stay_there(tokenizer):
    made = tokenizer()
    encoded = encode(made, [ASK], [assistant("<think>Pairs.</think>4")])
    assert learned(made, encoded) == ["<think>Pairs.</think>4<|im_end|>"]


@pytest.mark.parametrize("key", ["weight", "train", "training", "trainable", "loss", "loss_mask"])
@pytest.mark.parametrize("value", [0, False, 0.0])
def test_a_turn_of_weight_zero_is_read_and_not_learned(tokenizer, key, value):
    made = tokenizer()
    turns = [assistant("5", **{key: value}), MORE, assistant("4", **{key: 1})]
    encoded = encode(made, [ASK], turns)
    assert learned(made, encoded) == ["4<|im_end|>"]
    (ids,) = encoded.tree.responses
    assert made.decode(ids).startswith("5<|im_end|>")


def test_other_weights_set_the_row_aside(tokenizer):
    with pytest.raises(SetAside, match=r"weight 0.5; a turn is learned \(1\) or only read \(0\)"):
        encode(tokenizer(), [ASK], [assistant("4", weight=0.5)])
    with pytest.raises(SetAside, match="only read"):
        encode(tokenizer(), [ASK], [assistant("4", weight=0)])


def test_only_the_last_answer_is_learned(tokenizer):
    made = tokenizer()
    turns = [assistant("4"), MORE, assistant("Yes."), MORE, assistant("No.", weight=0)]
    encoded = encode(made, [ASK], turns, learned_turns="last")
    assert learned(made, encoded) == ["Yes.<|im_end|>"]


def test_keys_that_nothing_reads_are_counted(tokenizer):
    asked = {**ASK, "timestamp": 3, "name": None, "train": True}
    encoded = encode(tokenizer(), [asked], [assistant("4", model="m", weight=1)])
    assert set(encoded.unread) == {"turn.timestamp", "turn.train", "turn.model"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arguments", [{"n": "two"}, '{"n": "two"}'])
@pytest.mark.parametrize("nested", [True, False])
def test_tool_calls_have_the_form_that_the_template_reads(tokenizer, form, arguments, nested):
    made = tokenizer(template=thinks(call=form))
    call = {"name": "double", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": call} if nested else call
    result = {"role": "tool", "content": "4"}
    turns = [assistant(None, tool_calls=[call]), result, assistant("4.")]
    encoded = encode(made, [ASK], turns)
    called = '<call>double({"n": "two"})</call>'
    assert learned(made, encoded) == [f"{called}<|im_end|>4.<|im_end|>"]


def test_tool_calls_that_the_template_does_not_write_set_the_row_aside(tokenizer):
    call = {"name": "double", "arguments": {}}
    with pytest.raises(SetAside, match="the tool calls of an assistant turn"):
        encode(tokenizer(), [ASK], [assistant("", tool_calls=[call])])


def test_the_older_function_call_is_a_tool_call():
    turn = assistant(None, function_call={"name": "double", "arguments": "{}"})
    (parsed,) = parse_messages([turn], "messages")
    assert parsed["tool_calls"] == [
        {"type": "function", "function": {"name": "double", "arguments": "{}"}}
    ]
    assert parsed["content"] == ""


def test_tools_are_offered_or_the_row_is_set_aside(tokenizer):
    made = tokenizer(template=thinks())
    group = {"tools": ({"name": "double"},)}
    encoded = encode(made, [ASK], [assistant("4")], group=group)
    assert made.decode(encoded.tree.prompt).startswith("<|im_start|>toolsdouble <|im_end|>")
    with pytest.raises(SetAside, match="does not show the tools"):
        encode(tokenizer(), [ASK], [assistant("4")], group=group)


def test_arguments_of_the_template_come_from_the_row(tokenizer):
    made = tokenizer(template=thinks())
    group = {"template_kwargs": {"enable_thinking": False, "mood": "calm"}}
    encoded = encode(made, [ASK], [assistant("4")], group=group)
    assert made.decode(encoded.tree.prompt).endswith(HEADER + "<think></think>")
    assert encoded.unread == ("chat_template_kwargs.mood",)


def test_parts_of_text_are_joined_and_others_set_the_row_aside():
    text = [{"type": "text", "text": "2 +"}, " 2?", {"type": "text", "text": "", "image": None}]
    assert parse_messages([{**ASK, "content": text}], "messages") == [ASK]
    with pytest.raises(SetAside, match="a part of type 'image_url', not text"):
        parse_messages([{**ASK, "content": [{"type": "image_url"}]}], "messages")


WANTS_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_wants_parts_gets_parts(tokenizer):
    made = tokenizer(template=WANTS_PARTS)
    encoded = encode(made, [ASK], [assistant("4")])
    assert made.decode(encoded.tree.prompt) == f"<|im_start|>user\n2 + 2?<|im_end|>\n{HEADER}"
    assert learned(made, encoded) == ["4<|im_end|>"]


FORGETFUL = (  # writes the thoughts of the newest turn only, and an empty thought where it has none
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>{{ m.thinking or '' }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_each_turn_is_learned_under_the_prompt_that_it_is_sampled_from(tokenizer):
    made = tokenizer(template=FORGETFUL)
    turns = [assistant("4", thinking="Pairs."), MORE, assistant("Yes.", thinking="Again.")]
    encoded = encode(made, [ASK], turns)
    assert learned(made, encoded) == [
        "<think>Pairs.</think>4<|im_end|>",
        "<think>Again.</think>Yes.<|im_end|>",
    ]
    prompts = [part.prompt for part in encoded.tree.parts_of(0)]
    for prompt, before in zip(prompts, ([ASK], [ASK, turns[0], MORE]), strict=True):
        assert prompt == made.apply_chat_template(
            before, add_generation_prompt=True, return_dict=False
        )


def test_an_empty_thought_of_the_template_is_not_learned(tokenizer):
    made = tokenizer(template=FORGETFUL)
    encoded = encode(made, [ASK], [assistant("4")])
    assert learned(made, encoded) == ["4<|im_end|>"]
    (ids,) = encoded.tree.responses
    assert made.decode(ids) == "<think></think>4<|im_end|>\n"


def test_responses_with_several_turns_keep_their_labels(tokenizer):
    made = tokenizer(template=FORGETFUL)
    responses = [[assistant("4"), MORE, assistant("Yes.")], [assistant("5")]]
    group = Group([ASK], responses, (Pair(0, 1),))
    tree = ChatTokenizer(made, max_length=999).encode(group).tree
    assert [branch.response for branch in tree.branches] == [0]
    assert tree.num_scored == sum(len(f"{words}e") for words in ("4", "Yes.", "5"))


def test_lost_parts_of_a_conversation_are_counted(tokenizer):
    made = tokenizer(template=FORGETFUL)
    turns = [assistant("4"), {"role": "user", "content": "Sure?" * 40}, assistant("Yes.")]
    whole = encode(made, [ASK], turns).tree
    chat = ChatTokenizer(made, max_length=60, overlong="truncate")
    encoded = chat.encode(Group([ASK], [parse_messages(turns, "messages")]))
    (branch,) = whole.branches
    assert (encoded.tree.branches, encoded.cut, encoded.ends_lost) == ((), len(branch.ids), 1)


def test_json_results_of_tools_may_be_formatted_anew(tokenizer):
    template = thinks().replace(
        "{{ m.content }}", "{{ m.content | replace(', ', ',') | replace(': ', ':') }}"
    )
    made = tokenizer(template=template)
    call = {"name": "double", "arguments": {}}
    result = {"role": "tool", "content": json.dumps({"sum": "four", "of": [2, 2]})}
    encoded = encode(made, [ASK], [assistant("", tool_calls=[call]), result, assistant("4.")])
    assert '{"sum":"four","of":[2,2]}' in made.decode(encoded.tree.responses[0])
