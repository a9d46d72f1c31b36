"""The layouts of public data sets: rows with their column names are read without a setting, and no column is lost."""

import json
from contextlib import suppress
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.format_choice import choose_format
from lit_align.data.formats import built_in
from lit_align.data.formats.label_studio import LabelStudio
from lit_align.data.formats.pku_safe_rlhf import PKUSafeRLHF
from lit_align.data.formats.public_votes import PublicVotes
from lit_align.data.formats.ultrafeedback import UltraFeedback
from lit_align.data.label_conversion import convert_labels
from lit_align.errors import DataError, Malformed, RowError, SetAside
from lit_align.testing.formats import check_format
from lit_align.types import LabelKind, Pair
from tests.data.formats import more_public_rows, public_rows
from tests.data.formats.public_rows import (
    ASK,
    BAD,
    CHAT,
    GOOD,
    MESSAGES,
    PLAIN,
    RULE,
    SYSTEM,
    TOOL,
    WITH_SYSTEM,
    bot,
    read,
    user,
)

LAYOUTS = public_rows.LAYOUTS | more_public_rows.LAYOUTS


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts(tmp_path, name):
    _, row, label_kind, (prompt, responses), unread = LAYOUTS[name]
    # Arrow writes every column of a mixed set into every row
    padded = {**dict.fromkeys(["text", "kto_tag", "label", "system", "tools", "margin"]), **row}
    (group,), ledger = read(tmp_path, [padded], label_kind)
    assert group.prompt == prompt
    assert group.responses == responses
    assert set(ledger.unread) == unread
    if label_kind == "pairs":
        assert [(pair.better, pair.worse) for pair in group.pairs] == [(0, 1)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_formats_are_sound_on_public_rows(name):
    _, row, label_kind, *_ = LAYOUTS[name]
    layout = choose_format([row], built_in(), LabelKind(label_kind), "rows.jsonl")
    if label_kind != "prompts":
        check_format(layout, row)


def test_margins_say_by_how_much():
    votes = PublicVotes()
    for name, margin in {"helpsteer3": 2.0, "shp": log(2), "webgpt_comparisons": 1.0}.items():
        assert votes(LAYOUTS[name][1]).pairs == (Pair(0, 1, 1.0, margin),)


def test_votes_are_a_share_of_the_majority(tmp_path):
    (group,), _ = read(tmp_path, [LAYOUTS["argilla"][1]], "pairs")
    assert group.pairs == (Pair(0, 1, 2 / 3),)


@pytest.mark.parametrize("winner", ["tie", "tie (bothbad)", "both_bad"])
def test_ties_are_set_aside(winner):
    row = LAYOUTS["chatbot_arena_conversations"][1] | {"winner": winner}
    with pytest.raises(SetAside, match="a tie"):
        PublicVotes()(row)


def test_helpsteer_zero_and_arena_tie_are_ties():
    for name, change in {
        "helpsteer3": {"overall_preference": 0},
        "arena-human-preference-55k": {"winner_model_a": 0, "winner_tie": 1},
    }.items():
        with pytest.raises(SetAside, match="a tie"):
            PublicVotes()(LAYOUTS[name][1] | change)


def test_both_labels_of_pku(tmp_path):
    row = LAYOUTS["pku_safe_rlhf"][1]
    assert PKUSafeRLHF(label="safer")(row).responses == [BAD, GOOD]
    _, ledger = read(tmp_path, [row, row | {"safer_response_id": 1}], "pairs")
    note = "the better and the safer response differ; better is used"
    assert ledger.reasons == {("kept", note): 1, ("kept", ""): 1}


def test_ultrafeedback_ranks_by_the_score_that_is_set():
    row = LAYOUTS["ultrafeedback"][1]
    assert UltraFeedback()(row).ranking == (1, 2)
    assert UltraFeedback(score="overall_score")(row).ranking == (2, 1)
    assert UltraFeedback()(row).ratings == ({"helpfulness": 5.0}, {})


def test_cancelled_annotations_do_not_count():
    row = LAYOUTS["label studio"][1]
    with pytest.raises(SetAside, match="no vote"):
        LabelStudio()(row | {"annotations": row["annotations"][1:]})


def test_xlam_offers_its_functions(tmp_path):
    row = {"query": ASK, "answers": json.dumps([{"name": "find", "arguments": {}}])}
    (group,), _ = read(tmp_path, [row | {"tools": json.dumps([TOOL])}], "demonstrations")
    assert group.tools == ({"type": "function", "function": TOOL},)
    assert group.responses[0][0]["tool_calls"][0]["function"]["name"] == "find"


# ------------------------------------------------------------------ trees of messages

THREAD = [user(ASK), bot(GOOD), user("Another?")]


def test_a_tree_of_messages_becomes_rankings(tmp_path):
    (first, second), ledger = read(tmp_path, MESSAGES, "responses")
    assert (first.prompt, first.responses) == ([user(ASK)], [[bot(BAD)], [bot(GOOD)]])
    assert (second.prompt, second.responses) == (THREAD, [[bot("The crow.")]])
    assert (first.ranking, second.ranking) == ((2, 1), ())
    assert (ledger.rows, ledger.joined, dict(ledger.unread)) == (2, 3, {"lang": 1})
    assert [group.source.rpartition(":")[2] for group in (first, second)] == ["1", "4"]


def test_threads_are_imitated_and_siblings_compared(tmp_path):
    demonstrations, _ = read(tmp_path, MESSAGES, "demonstrations")
    assert [group.responses for group in demonstrations] == [[[bot(GOOD)]], [[bot("The crow.")]]]
    (pair,), ledger = read(tmp_path, MESSAGES, "pairs")
    assert pair.pairs == (Pair(1, 0),)
    assert ledger.fates["set aside"] == 1  # one reply alone is no comparison


@pytest.mark.parametrize(
    ("changes", "fate", "reason"),
    [
        ({3: {"deleted": True}}, "set aside", "a deleted message"),
        ({2: {"deleted": True}}, "set aside", "below a deleted message"),
        ({3: {"parent_id": "9"}}, "malformed", "the message that it replies to is not in the file"),
        ({3: {"parent_id": "5"}}, "malformed", "a message that is its own parent"),
        ({4: {"role": "bard"}}, "malformed", "the unknown role 'bard'"),
        ({4: {"message_id": "4"}}, "malformed", "a second message with the same 'message_id'"),
        ({4: {"role": "prompter"}}, "set aside", "a message without a reply of the assistant"),
        (
            {4: {"parent_id": "1"}},
            "set aside",
            "a reply without a rank beside replies with one",
        ),
    ],
)
def test_messages_that_are_left_out_have_a_reason(tmp_path, changes, fate, reason):
    rows = [row | changes.get(i, {}) for i, row in enumerate(MESSAGES)]
    _, ledger = read(tmp_path, rows, "demonstrations")
    assert (fate, reason) in ledger.reasons
    assert ledger.rows + ledger.joined == len(rows)


# ------------------------------------------------------------------ every column has a fate

READERS = {name: layout for name, layout in LAYOUTS.items() if layout[2] != "prompts"}


@given(st.sampled_from(sorted(READERS)), st.data())
@settings(max_examples=150, deadline=None)
def test_each_column_is_read_or_counted_or_a_reason(tmp_path_factory, name, data):
    """Of any subset of the columns, one whose value changes nothing in the group is counted as not read."""
    _, row, label_kind, *_ = READERS[name]
    columns = data.draw(st.sets(st.sampled_from(sorted(row))))
    part = {column: row[column] for column in columns}
    folder = tmp_path_factory.mktemp("rows")
    try:
        groups, ledger = read(folder, [part], label_kind)
    except DataError:
        return  # the file is refused as a whole
    if not groups:
        assert ledger.reasons
        return
    read_before = groups[0]._replace(source="", extra={})
    for column in columns - set(ledger.unread):
        if part[column] in ("", None, {}, []) or (column == "tools" and name.startswith("hermes")):
            continue  # Hermes' functions are read from the system turn
        try:
            changed, _ = read(folder, [part | {column: {"changed": 1}}], label_kind)
        except DataError:
            continue
        assert not changed or changed[0]._replace(source="", extra={}) != read_before, column


@pytest.mark.parametrize(
    "column",
    ["thinking", "Reasoning-Content", "weight", "loss_mask", "images", "context", "history"],
)
def test_a_column_that_changes_what_is_learned_is_never_dropped(tmp_path, column):
    row = {"prompt": ASK, "completion": GOOD, column: ["Owls and crows are birds, cats are not."]}
    _, ledger = read(tmp_path, [row, {"prompt": ASK, "completion": GOOD}], "demonstrations")
    assert ledger.fates["set aside"] == 1
    assert f"the column '{column}'" in next(iter(ledger.reasons))[1]
    kept, ledger = read(tmp_path, [row], "demonstrations", ignored=[column])
    assert len(kept) == 1
    assert ledger.unread == {column: 1}


def test_what_repeats_or_changes_nothing_is_only_counted(tmp_path):
    row = {"prompt": ASK, "completion": GOOD, "question": f" {ASK} ", "weight": 1, "history": []}
    _, ledger = read(tmp_path, [row], "demonstrations")
    assert dict(ledger.unread) == {"question": 1, "weight": 1}
    _, ledger = read(tmp_path, [row | {"answer": "x"}], "demonstrations", read={"answer", "weight"})
    assert dict(ledger.unread) == {"question": 1}


@pytest.mark.parametrize("column", ["system", "System_Prompt", "SYSTEM"])
def test_a_system_text_leads_every_layout(tmp_path, column):
    for row in (
        {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
        {"prompt": [user(ASK)], "chosen": [bot(GOOD)], "rejected": [bot(BAD)]},
    ):
        (group,), ledger = read(tmp_path, [row | {column: RULE}], "pairs")
        assert (group.prompt, group.responses) == WITH_SYSTEM
        assert not ledger.unread


def test_a_system_text_that_contradicts_is_set_aside(tmp_path):
    row = {"messages": [SYSTEM, user(ASK), bot(GOOD)], "system": RULE}
    (group,), _ = read(tmp_path, [row], "demonstrations")
    assert group.prompt == [SYSTEM, user(ASK)]
    _, ledger = read(tmp_path, [row | {"system": "Be long."}], "demonstrations")
    assert ledger.fates["set aside"] == 1
    _, ledger = read(tmp_path, [{"text": GOOD, "system": RULE}], "demonstrations")
    assert ledger.fates["set aside"] == 1


@pytest.mark.parametrize(
    "value",
    [[TOOL], json.dumps([TOOL]), [{"type": "function", "function": TOOL}], [json.dumps(TOOL)]],
)
def test_functions_are_offered_in_every_layout(tmp_path, value):
    for row in ({"messages": [user(ASK), bot(GOOD)]}, {"prompt": ASK, "completion": GOOD}):
        (group,), _ = read(tmp_path, [row | {"tools": value}], "demonstrations")
        assert group.tools == ({"type": "function", "function": TOOL},)


def test_functions_that_are_none_are_malformed(tmp_path):
    rows = [{"prompt": ASK, "completion": GOOD, "tools": value} for value in ("find", "[1]", [[]])]
    _, ledger = read(tmp_path, rows, "demonstrations")
    assert ledger.fates["malformed"] == 3


def test_template_arguments_are_handed_on(tmp_path):
    (group,), _ = read(tmp_path, [LAYOUTS["smoltalk2"][1]], "demonstrations")
    assert group.template_kwargs == {"enable_thinking": False}


# ------------------------------------------------------------------ the prompt, and names of columns

PAIR = {"chosen": "The bird is an owl.", "rejected": "The bird is a cat."}


def test_an_implied_prompt_is_only_taken_where_no_column_may_be_it(tmp_path):
    (group,), _ = read(tmp_path, [PAIR], "pairs")
    assert (group.prompt, group.continues) == ("The bird is", True)
    _, ledger = read(tmp_path, [PAIR | {"query": ASK}], "pairs")
    assert "there is no column 'prompt', and 'query' may be it" in next(iter(ledger.reasons))[1]
    (group,), _ = read(tmp_path, [PAIR | {"query": ASK}], "pairs", names={"prompt": "query"})
    assert (group.prompt, group.continues) == (ASK, False)


def test_columns_are_renamed(tmp_path):
    row = {"Query": ASK, "Best": GOOD, "worst": BAD, "prompt": 7}
    names = {"prompt": "query", "chosen": "Best", "rejected": "worst"}
    (group,), ledger = read(tmp_path, [row], "pairs", names=names)
    assert (group.prompt, group.responses, dict(ledger.unread)) == (*PLAIN, {"prompt": 1})
    with pytest.raises(DataError, match=r"'wurst', which is no column of .*did you mean worst"):
        read(tmp_path, [row], "pairs", names=names | {"rejected": "wurst"})
    with pytest.raises(DataError, match="takes both prompt and chosen from 'Query'"):
        read(tmp_path, [row], "pairs", names={"prompt": "Query", "chosen": "query"})


def test_a_reward_gets_its_column_although_it_is_a_response(tmp_path):
    row = {"problem": ASK, "solution": GOOD, "level": 1}
    (group,), ledger = read(tmp_path, [row], "prompts", read={"solution"})
    assert (group.prompt, group.responses) == (ASK, [])
    assert group.extra == {"solution": GOOD, "level": 1}
    assert dict(ledger.unread) == {"level": 1}


def test_dialogues_do_not_repeat_their_prompt(tmp_path):
    human = f"\n\nHuman: {ASK}\n\nAssistant:"
    dialogues = {"chosen": f"{human} {GOOD}", "rejected": f"{human} {BAD}"}
    (group,), _ = read(tmp_path, [{"prompt": human, **dialogues}], "pairs")
    assert (group.prompt, group.responses) == (human, [f" {GOOD}", f" {BAD}"])
    (group,), ledger = read(tmp_path, [{"question": ASK, **dialogues}], "pairs")
    assert (group.prompt, group.responses) == CHAT
    assert dict(ledger.unread) == {"question": 1}


def test_letter_case_is_forgiven(tmp_path):
    for prompt in ("Prompt", "prompt"):
        row = {prompt: ASK, "Chosen": GOOD, "REJECTED": BAD, "Topic": "birds"}
        (group,), ledger = read(tmp_path, [row], "pairs")
        assert (group.prompt, group.responses, dict(ledger.unread)) == (*PLAIN, {"Topic": 1})


def test_a_sparse_label_is_seen_in_later_rows(tmp_path):
    rows = [{"prompt": ASK, "completion": GOOD, "label": label} for label in (None, True, False)]
    groups, ledger = read(tmp_path, rows, "desirable")
    assert [group.desirable for group in groups] == [(True,), (False,)]
    assert ledger.fates["set aside"] == 1


def test_no_layout_crashes_on_the_rows_of_another():
    for _, row, label_kind, *_ in LAYOUTS.values():
        for layout in built_in():
            with suppress(RowError):
                convert_labels(layout(row), label_kind)


def test_broken_votes_are_malformed():
    for name, change in {
        "helpsteer3": {"overall_preference": "nan"},
        "shp": {"score_ratio": -1},
        "chatbot_arena_conversations": {"winner": "nobody"},
        "arena-human-preference-55k": {"response_a": "[null]"},
        "webgpt_comparisons": {"score_1": None},
    }.items():
        with pytest.raises(Malformed):
            PublicVotes()(LAYOUTS[name][1] | change)
