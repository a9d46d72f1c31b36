"""What is learned from: every assistant turn and its end, nothing else, whatever the tokenizer's habits."""

import pytest

from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, Malformed, ModelError, Overlong, SetAside
from lit_align.types import Group, Pair

SYSTEM = {"role": "system", "content": "Be kind."}
ASK, MORE = {"role": "user", "content": "2 + 2?"}, {"role": "user", "content": "Sure?"}
FOUR, FIVE, YES = ({"role": "assistant", "content": c} for c in ("4", "5 then", "Yes."))


def said(tokenizer, encoded):
    """For each response, the text of its ids and of those that are learned from."""
    tree = encoded.tree
    for ids, scored in zip(tree.responses, tree.scored, strict=True):
        yield (
            tokenizer.decode(ids),
            tokenizer.decode([i for i, s in zip(ids, scored, strict=True) if s]),
        )


def test_real_tokenizer_learns_the_answer_and_its_end(smollm2):
    assert smollm2.pad_token_id == smollm2.eos_token_id
    encoded = ChatTokenizer(smollm2, max_length=99).encode(
        Group([SYSTEM, ASK], [[FOUR], [FIVE]], (Pair(0, 1),))
    )
    prompt = smollm2.apply_chat_template([SYSTEM, ASK], add_generation_prompt=True, tokenize=False)
    assert smollm2.decode(encoded.tree.prompt) == prompt
    assert list(said(smollm2, encoded)) == [
        ("4<|im_end|>\n", "4<|im_end|>"),
        ("5 then<|im_end|>\n", "5 then<|im_end|>"),
    ]
    assert encoded[1:] == (0, 0, 0, (), False, 0, (), False)


@pytest.mark.parametrize("last", [[FOUR], [FOUR, MORE, YES]])
def test_prompt_and_response_are_what_the_template_makes_of_the_whole(smollm2, last):
    tree = ChatTokenizer(smollm2, max_length=99).encode(Group([ASK], [last])).tree
    whole = smollm2.apply_chat_template([ASK, *last], return_dict=False)
    assert tree.prompt + tree.responses[0] == whole


def test_every_assistant_turn_is_learned_and_no_other(smollm2):
    encoded = ChatTokenizer(smollm2, max_length=99).encode(
        Group([SYSTEM, ASK], [[FOUR, MORE, YES]])
    )
    assert [learned for _, learned in said(smollm2, encoded)] == ["4<|im_end|>Yes.<|im_end|>"]


def test_branches_that_begin_with_the_user_share_no_generation_prompt(smollm2):
    encoded = ChatTokenizer(smollm2, max_length=99).encode(
        Group([ASK, FOUR], [[MORE, YES], [ASK, FIVE]])
    )
    assert smollm2.decode(encoded.tree.prompt).endswith("4<|im_end|>\n")
    assert [learned for _, learned in said(smollm2, encoded)] == [
        "Yes.<|im_end|>",
        "5 then<|im_end|>",
    ]


def test_text_is_continued_and_ended(smollm2):
    encoded = ChatTokenizer(smollm2, max_length=99, as_chat=False).encode(
        Group("The sky is", [" blue.", " green."])
    )
    assert encoded.tree.prompt == smollm2("The sky is").input_ids
    assert list(said(smollm2, encoded)) == [(" blue.<|im_end|>",) * 2, (" green.<|im_end|>",) * 2]


def test_text_that_ends_itself_is_not_ended_twice(tokenizer):
    made = tokenizer()
    tree = (
        ChatTokenizer(made, max_length=99, as_chat=False).encode(Group("a", ["b<|im_end|>"])).tree
    )
    assert made.decode(tree.responses[0]) == "b<|im_end|>"


def test_a_token_across_the_boundary_is_counted_and_avoided(tokenizer):
    made = tokenizer(merges=[("b", "c")])
    encoded = ChatTokenizer(made, max_length=99, as_chat=False).encode(Group("ab", ["cd", "dc"]))
    assert encoded.boundary_merges == 1
    assert made.convert_ids_to_tokens(encoded.tree.prompt) == ["a", "b"]
    assert made.convert_ids_to_tokens(encoded.tree.responses[0]) == ["c", "d", "<|im_end|>"]


def test_template_that_ends_turns_with_another_token_than_eos(tokenizer):
    made = tokenizer(eos="</s>")
    encoded = ChatTokenizer(made, max_length=99).encode(Group([ASK], [[FOUR]]))
    assert list(said(made, encoded)) == [("4<|im_end|>\n", "4<|im_end|>")]


def test_template_without_a_token_at_the_end_of_turns(tokenizer):
    made = tokenizer(template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
                     "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    encoded = ChatTokenizer(made, max_length=99).encode(Group([ASK], [[FOUR, MORE, YES]]))
    whole, learned = "4\nuser: Sure?\nassistant: Yes.\n<|im_end|>", "4\nYes.\n<|im_end|>"
    assert list(said(made, encoded)) == [(whole, learned)]


def test_tokenizer_that_adds_bos_adds_one_to_text(tokenizer):
    made = tokenizer(adds_begin=True)
    chat, begin = ChatTokenizer(made, max_length=99, as_chat=False), made.bos_token_id
    for prompt in ("hi", "<s>hi", "<s><s>hi"):
        assert chat.encode(Group(prompt, ["x"])).tree.prompt == [
            begin,
            *made("hi", add_special_tokens=False).input_ids,
        ]
    assert begin not in chat.encode(Group("hi", ["x"])).tree.responses[0]


def test_template_and_tokenizer_that_both_add_bos_give_one(tokenizer):
    made = tokenizer(adds_begin=True, template="<s>" + tokenizer().chat_template)
    ids = ChatTokenizer(made, max_length=99).encode(Group([ASK], [[FOUR]])).tree.prompt
    assert made(made.decode(ids)).input_ids.count(made.bos_token_id) == 2  # the naive way
    assert ids.count(made.bos_token_id) == 1


def test_an_empty_prompt_is_the_beginning_of_a_text(tokenizer):
    made = tokenizer()
    assert ChatTokenizer(made, max_length=99).encode(Group("", ["abc"])).tree.prompt == [
        made.bos_token_id
    ]


FORGETS = (
    "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "response", "message"),
    [
        (None, [FOUR], "no chat template; set chat_template: chatml"),
        (FORGETS, [FOUR, MORE, YES], "leaves out or changes the content of an assistant turn"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", [FOUR], "set chat_template: chatml"),
        ("{{ messages[-1]['content'] }}", [FOUR], "set chat_template: chatml"),
    ],
)
def test_unfit_templates_are_refused_with_the_fix(tokenizer, template, response, message):
    with pytest.raises((DataError, SetAside), match=message):
        ChatTokenizer(tokenizer(template=template), max_length=99).encode(Group([ASK], [response]))


def test_template_that_leaves_out_the_system_prompt_is_refused(tokenizer):
    template = tokenizer().chat_template.replace(
        "in messages", "in messages if m['role'] != 'system'"
    )
    with pytest.raises(SetAside, match="leaves out or changes the content of a system turn"):
        ChatTokenizer(tokenizer(template=template), max_length=99).encode(
            Group([SYSTEM, ASK], [[FOUR]])
        )


def test_a_row_that_the_template_refuses_is_malformed(tokenizer):
    made = tokenizer(template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(Malformed, match="refused by the chat template: roles must alternate"):
        ChatTokenizer(made, max_length=99).encode(Group([ASK], [[FOUR]]))


@pytest.mark.parametrize(
    "group",
    [
        Group("a", ["b", ""]),
        Group("a", [[FOUR]]),
        Group([ASK], ["b"]),
        Group([ASK], [[MORE]]),
        Group("a", ["\ud800"]),
    ],
)
def test_groups_with_nothing_to_learn_are_malformed(tokenizer, group):
    with pytest.raises(Malformed):
        ChatTokenizer(tokenizer(), max_length=99, as_chat=False).encode(group)


def test_a_group_without_responses_is_its_prompt(tokenizer):
    chat = ChatTokenizer(tokenizer(), max_length=99)
    alone, answered = (chat.encode(Group([ASK], responses)).tree for responses in ([], [[FOUR]]))
    assert alone.responses == []
    assert alone.prompt == answered.prompt
    with pytest.raises(Overlong, match="prompt fills max_length"):
        ChatTokenizer(tokenizer(), max_length=len(alone.prompt), overlong="drop").encode(
            Group([ASK], [])
        )


def test_tokenizer_without_eos_is_refused(tokenizer):
    made = tokenizer()
    made.eos_token = None
    with pytest.raises(ModelError, match="set eos_token"):
        ChatTokenizer(made, max_length=99)


class TestOverlong:
    """Prompt "ab", responses "cdef" and "cg", each with its end: 2 + 5 and 2 + 3 tokens."""

    group = Group("ab", ["cdef", "cg"], (Pair(0, 1),), source="a.jsonl:3")

    def encode(self, tokenizer, max_length, overlong):
        settings = {"max_length": max_length, "overlong": overlong, "as_chat": False}
        return ChatTokenizer(tokenizer(), **settings).encode(self.group)

    @pytest.mark.parametrize("overlong", ["drop", "truncate", "error"])
    def test_what_fits_is_whole(self, tokenizer, overlong):
        assert self.encode(tokenizer, 7, overlong)[1:] == (0, 0, 0, (), False, 0, (), False)

    def test_drop(self, tokenizer):
        with pytest.raises(Overlong, match="longer than max_length"):
            self.encode(tokenizer, 6, "drop")

    def test_error(self, tokenizer):
        with pytest.raises(
            DataError, match=r"a.jsonl:3 has 2 \+ 5 tokens, over max_length 6; raise max_length"
        ):
            self.encode(tokenizer, 6, "error")

    def test_truncate_counts_tokens_and_ends(self, tokenizer):
        encoded = self.encode(tokenizer, 5, "truncate")
        assert (encoded.cut, encoded.ends_lost) == (2, 1)
        assert (
            [len(ids) for ids in encoded.tree.responses]
            == [len(s) for s in encoded.tree.scored]
            == [3, 3]
        )

    def test_responses_that_differ_only_in_what_was_cut(self, tokenizer):
        with pytest.raises(Overlong, match="do not differ"):
            self.encode(tokenizer, 3, "truncate")

    def test_prompt_is_never_cut(self, tokenizer):
        with pytest.raises(Overlong, match="prompt fills max_length"):
            self.encode(tokenizer, 2, "truncate")

    def test_cut_before_the_first_answer(self, tokenizer):
        group = Group([ASK, FOUR], [[MORE, YES]])
        chat = ChatTokenizer(tokenizer(), max_length=40, overlong="truncate")
        with pytest.raises(Overlong, match="nothing to learn"):
            chat.encode(group)
