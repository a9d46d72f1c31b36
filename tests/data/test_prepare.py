"""All rows of hostile and of real files are accounted for."""

import gzip
import json

import pytest

from lit_align.data.formats import built_in
from lit_align.data.label_conversion import (
    to_binary_labels,
    to_demonstrations,
    to_pairs,
    to_ranking,
    to_ratings,
)
from lit_align.data.prepare import prepare
from lit_align.data.read_groups import DataSource
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, SetAside
from lit_align.types import Group, Pair

GOOD = {"prompt": "a", "chosen": "bc", "rejected": "bd"}
HOSTILE = [
    *[json.dumps(GOOD)] * 9,
    "",
    "{",
    "[]",
    "null",
    json.dumps(GOOD | {"chosen": True}),
    json.dumps(GOOD | {"chosen": ""}),
    json.dumps(GOOD | {"chosen": "bd"}),
    json.dumps({"prompt": "a"}),
    json.dumps(GOOD | {"prompt": "a" * 50}),
    json.dumps(GOOD | {"rejected": "e" * 50}),
    json.dumps(GOOD | {"rejected": "\ud800"}),
]


def test_hostile_rows_have_one_fate_each(tmp_path, tokenizer):
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join(HOSTILE))
    chat = ChatTokenizer(tokenizer(), max_length=20, overlong="truncate", as_chat=False)
    trees, ledger = prepare(
        DataSource([str(path)], "pairs", formats=built_in(), max_malformed=0.5), chat
    )
    assert ledger.fates == {
        "kept": 9,
        "truncated": 1,
        "malformed": 8,
        "set aside": 0,
        "overlong": 1,
    }
    assert ledger.rows == sum(ledger.fates.values()) == len(HOSTILE) - 1
    told = "1 of 2 responses lost the end: longer than max_length, and overlong is truncate"
    assert ledger.examples["truncated", told] == [f"{path}:19"]
    assert ledger.examples["malformed", "'chosen' is not text (got bool)"] == [f"{path}:14"]
    assert [tree.group.source for tree in trees] == [
        f"{path}:{line}" for line in (*range(1, 10), 19)
    ]
    assert ledger.tokens == sum(tree.tokens for tree in trees)
    with pytest.raises(DataError, match=r"8 of 19 rows \(42.11%\)"):
        prepare(DataSource([str(path)], "pairs", formats=built_in(), max_malformed=0.4), chat)


def test_files_of_different_layouts_make_one_set(tmp_path, tokenizer):
    pairs, unpaired = tmp_path / "pairs.jsonl", tmp_path / "thumbs.json"
    pairs.write_text(json.dumps(GOOD))
    unpaired.write_text(
        json.dumps([{"prompt": "a", "completion": "b", "label": label} for label in (True, False)])
    )
    chat = ChatTokenizer(tokenizer(), max_length=20, as_chat=False)
    trees, ledger = prepare(
        DataSource(
            [str(pairs), str(unpaired)], "demonstrations", formats=built_in(), max_malformed=0
        ),
        chat,
    )
    assert [tree.group.responses for tree in trees] == [["bc"], ["b"]]
    assert ledger.fates["set aside"] == 1
    assert (
        "         1  only the better response of a comparison is imitated"
        in ledger.table().splitlines()
    )
    with pytest.raises(
        DataError,
        match=r"thumbs.json has the format Completions, whose labels are .* but pairs are needed",
    ):
        prepare(DataSource([str(unpaired)], "pairs", formats=built_in(), max_malformed=0), chat)


def test_labels_decide_which_responses_stay():
    group = Group("a", ["b", "c", "d"], (Pair(2, 0, 0.9, 1.0),), (True, True, False))
    assert to_pairs(group)[1:4] == (["b", "d"], (Pair(1, 0, 0.9, 1.0),), ())
    assert to_demonstrations(group)[1:4] == (["c"], (), ())
    assert to_binary_labels(group) == group._replace(pairs=())
    for select in (to_pairs, to_binary_labels):
        with pytest.raises(SetAside):
            select(Group("a", ["b"]))
    with pytest.raises(SetAside):
        to_demonstrations(Group("a", ["b"], (), (False,)))


def test_no_readable_row_is_refused_with_the_first_reason(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text("{\n{")
    with pytest.raises(
        DataError, match=r"none of the 2 rows of .* \(the first, .*a.jsonl:1, is not JSON\)"
    ):
        prepare(
            DataSource([str(path)], "pairs", formats=built_in(), max_malformed=1),
            ChatTokenizer(tokenizer(), max_length=9),
        )


@pytest.mark.parametrize(
    ("file", "label_kind", "rows", "lost"),
    [
        ("hh_harmless/harmless-base-test.jsonl.gz", "pairs", 2312, {"malformed": 4}),
        ("llamafactory_demo/dpo_en_demo.json", "pairs", 299, {}),
        ("llamafactory_demo/kto_en_demo.json", "desirable", 300, {}),
        ("llamafactory_demo/kto_en_demo.json", "demonstrations", 300, {"set aside": 150}),
        ("llamafactory_demo/alpaca_en_demo.json", "demonstrations", 995, {}),
    ],
)
def test_real_sets_lose_no_row_unseen(shared_data, smollm2, file, label_kind, rows, lost):
    chat = ChatTokenizer(smollm2, max_length=10_000)
    trees, ledger = prepare(
        DataSource([str(shared_data / file)], label_kind, formats=built_in(), max_malformed=0.01),
        chat,
    )
    manifest = [
        line.split("\t") for line in (shared_data / "MANIFEST.tsv").read_text().splitlines()
    ]
    assert str(rows) in {row[2] for row in manifest if f"{row[0]}/{row[1]}" == file}
    assert ledger.rows == rows
    assert (
        ledger.fates
        == {
            "kept": rows - sum(lost.values()),
            "truncated": 0,
            "malformed": 0,
            "set aside": 0,
            "overlong": 0,
        }
        | lost
    )
    assert ledger.boundary_merges == 0
    end = smollm2.eos_token_id
    for tree in trees:
        for ids, scored in zip(tree.responses, tree.scored, strict=True):
            assert [i for i, s in zip(ids, scored, strict=True) if s][-1] == end


def test_the_lost_rows_of_hh_are_those_without_an_answer(shared_data):
    with gzip.open(shared_data / "hh_harmless" / "harmless-base-test.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert sum(any(row[side].rstrip().endswith("Assistant:") for side in row) for row in rows) == 4


def test_labels_are_made_from_others_where_they_say_the_same():
    ranking = Group("a", ["b", "c", "d"], ranking=(2, 1, 2))
    assert to_pairs(ranking).pairs == (Pair(1, 0), Pair(1, 2))
    assert to_demonstrations(ranking).responses == ["c"]
    assert to_binary_labels(ranking).desirable == (False, True, False)
    assert to_ranking(ranking).ranking == (2, 1, 2)
    with pytest.raises(SetAside, match="ties all"):
        to_ranking(ranking._replace(ranking=(1, 1, 1)))
    first_two = Group(
        "a", ["b", "c", "d", "e"], ranking=(2, 0, 1, 0)
    )  # the others are only known to be behind
    assert to_pairs(first_two).pairs == (Pair(0, 1), Pair(0, 3), Pair(2, 0), Pair(2, 1), Pair(2, 3))
    assert to_demonstrations(first_two).responses == ["d"]
    rating = Group("a", ["b", "c"], ratings=({}, {"tone": 3.0}))
    assert to_ratings(rating).responses == ["c"]
    with pytest.raises(SetAside, match="no rating"):
        to_ratings(ranking)
    pair = Group("a", ["b", "c"], (Pair(1, 0),))
    assert to_binary_labels(pair).desirable == (False, True)
    assert to_ranking(pair).ranking == (2, 1)
    doubtful = Group("a", ["b", "c"], (Pair(0, 1, 0.25),))
    assert to_ranking(doubtful).ranking == (2, 1)
    assert to_binary_labels(doubtful).desirable == (False, True)
    with pytest.raises(SetAside):
        to_ranking(Group("a", ["b", "c"], (Pair(0, 1, 0.5),)))
    chain = Group("a", ["b", "c", "d"], (Pair(0, 1), Pair(1, 2)))
    assert to_binary_labels(chain).responses == ["b", "d"]  # the one in the middle is neither
    assert to_binary_labels(chain).desirable == (True, False)
    with pytest.raises(SetAside, match="no ranking"):
        to_ranking(chain)
    held = Group("a", ["b", "c", "d"], (Pair(0, 1),), target=2)
    assert to_pairs(held).target == 2
    assert to_pairs(held).responses == ["b", "c", "d"]


def test_plain_text_on_a_chat_model_becomes_turns_and_the_ledger_says_so(tmp_path, tokenizer):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD))
    source = DataSource([str(path)], "pairs", formats=built_in())
    made = tokenizer()
    (tree,), ledger = prepare(source, ChatTokenizer(made, max_length=200))
    turns = [{"role": "user", "content": GOOD["prompt"]}]
    assert tree.prompt == made.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False
    )
    assert tree.group.responses[0] == [{"role": "assistant", "content": GOOD["chosen"]}]
    assert "plain text rendered as user and assistant turns" in ledger.table()
    (plain,), ledger = prepare(source, ChatTokenizer(made, max_length=200, as_chat=False))
    assert made.decode(plain.prompt) == GOOD["prompt"]
    assert "plain text" not in ledger.table()
