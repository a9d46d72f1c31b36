"""Values nested too deeply, and files and calls that are broken: each is a sentence, wherever it stands."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from lit_align.data.formats import built_in
from lit_align.data.prepare import prepare
from lit_align.data.read_groups import DataSource
from lit_align.data.readers import read_rows
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, Malformed
from lit_align.jsonl import MAX_DEPTH, TOO_DEEP, is_too_deep, parse_json
from lit_align.types import Group
from tests import tiny

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(("depth", "is_deep"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
@pytest.mark.parametrize("inside", ["", "1", '"a"'])
def test_the_limit(depth, is_deep, inside):
    value = json.loads(nested(depth).replace("[]", f"[{inside}]"))
    assert is_too_deep(value) is is_deep
    assert is_too_deep({"a": value, "b": [1, 2]} if depth > MAX_DEPTH else value[0]) is is_deep


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 900, 100_000])
def test_deep_json_is_no_recursion_error(depth):
    with pytest.raises(ValueError, match=TOO_DEEP):
        parse_json(nested(depth))


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_deep_row_is_malformed_and_the_others_are_read(tmp_path, depth):
    path = tmp_path / "a.jsonl"
    deep = json.dumps(GOOD)[:-1] + f', "extra": {nested(depth)}}}'
    path.write_text(f"{json.dumps(GOOD)}\n{deep}\n{json.dumps(GOOD)}\n")
    rows = [row for _, row in read_rows(str(path))]
    assert [isinstance(row, Malformed) for row in rows] == [False, True, False]
    assert str(rows[1]) == TOO_DEEP


def test_a_deep_row_of_an_array_names_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f"[{json.dumps(GOOD)},\n{nested(100_000)}]")
    with pytest.raises(DataError, match=f"a.json:2 is {TOO_DEEP}"):
        list(read_rows(str(path)))


@pytest.mark.parametrize("depth", [300, 100_000])
@pytest.mark.parametrize("column", ["tools", "chat_template_kwargs", "messages"])
def test_a_cell_with_deep_json_is_malformed(tmp_path, column, depth):
    path = tmp_path / "a.jsonl"
    text = nested(depth) if column != "messages" else f'[{{"role": {nested(depth)}}}]'
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, column: text})}\n")
    source = DataSource([str(path)], "demonstrations", formats=built_in(), max_malformed=1)
    _, ledger = prepare(source, ChatTokenizer(tiny.tokenizer(), max_length=99))
    assert ledger.fates["malformed"] == 1


def test_a_deep_result_of_a_tool_is_text():
    result = {"role": "tool", "content": nested(100_000), "name": "f"}
    group = Group([GOOD["messages"][0], GOOD["messages"][1], result], [[GOOD["messages"][1]]])
    tree = ChatTokenizer(tiny.tokenizer(), max_length=999_999).encode(group).tree
    assert nested(100_000) in tiny.tokenizer().decode(tree.prompt)


@pytest.mark.parametrize("arguments", ["{", nested(100_000)])
@pytest.mark.parametrize("shown", ["call.function.arguments", "call.function.arguments | tojson"])
def test_arguments_that_are_no_json_are_malformed(arguments, shown):
    made = tiny.tokenizer()
    calls = f"{{% for call in m.tool_calls or [] %}}{{{{ call.function.name }}}}{{{{ {shown} }}}}{{% endfor %}}"
    made.chat_template = tiny.CHATML.replace("<|im_end|>", f"{calls}<|im_end|>")
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    with pytest.raises(Malformed, match="arguments of a tool call are no JSON"):
        ChatTokenizer(made, max_length=999_999).encode(Group(GOOD["messages"][:1], [[turn]]))


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_whose_header_is_broken_is_refused(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_text('"prompt')
    with pytest.raises(DataError, match="the first line, with the columns, is broken"):
        list(read_rows(str(path)))


def test_a_special_token_that_the_vocabulary_lacks_is_none():
    made = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer().backend_tokenizer,
        eos_token="<|im_end|>",
        chat_template=tiny.CHATML,
    )
    made.bos_token = "<|begin|>"
    assert None in made.all_special_ids
    group = Group(GOOD["messages"][:1], [GOOD["messages"][1:]])
    assert ChatTokenizer(made, max_length=99).encode(group).tree.responses
