"""Rows with the column names of public data sets, what they are read as, and how a test reads them."""

import json

from lit_align.data.column_fates import ColumnSettings
from lit_align.data.formats import built_in
from lit_align.data.formats.base import HUB
from lit_align.data.read_groups import DataSource, read_groups


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


ASK, GOOD, BAD, RULE = "Name a bird.", "The owl.", "The cat.", "Be brief."
SYSTEM = {"role": "system", "content": RULE}
CHAT = ([user(ASK)], [[bot(GOOD)], [bot(BAD)]])
PLAIN = (ASK, [GOOD, BAD])
WITH_SYSTEM = ([SYSTEM, user(ASK)], [[bot(GOOD)], [bot(BAD)]])
LEARNED = ([user(ASK)], [[bot(GOOD)]])
TOOL = {"name": "find", "description": "Find a bird.", "parameters": {}}

MESSAGES = [
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": ASK, "lang": "en"},
    {"message_id": "2", "parent_id": "1", "role": "assistant", "text": BAD, "rank": 1},
    {"message_id": "3", "parent_id": "1", "role": "assistant", "text": GOOD, "rank": 0},
    {"message_id": "4", "parent_id": "3", "role": "prompter", "text": "Another?"},
    {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "The crow."},
]
"""A tree of OpenAssistant, a message a row."""

# address, row, label kind, prompt and responses, columns that the ledger counts as not read
LAYOUTS = {
    "ultrafeedback_binarized": (
        HUB + "HuggingFaceH4/ultrafeedback_binarized",
        {
            "prompt": ASK,
            "prompt_id": "a1",
            "chosen": [user(ASK), bot(GOOD)],
            "rejected": [user(ASK), bot(BAD)],
            "messages": [user(ASK), bot(GOOD)],
            "score_chosen": 8.0,
            "score_rejected": 2.0,
        },
        "pairs",
        CHAT,
        {"prompt_id", "messages", "score_chosen", "score_rejected"},
    ),
    "ultrafeedback_binarized, to imitate": (
        HUB + "HuggingFaceH4/ultrafeedback_binarized",
        {
            "prompt": ASK,
            "chosen": [user(ASK), bot(GOOD)],
            "rejected": [user(ASK), bot(BAD)],
            "messages": [user(ASK), bot(GOOD)],
        },
        "demonstrations",
        LEARNED,
        {"prompt", "chosen", "rejected"},
    ),
    "ultrafeedback": (
        HUB + "openbmb/UltraFeedback",
        {
            "source": "own",
            "instruction": ASK,
            "models": ["a", "b"],
            "completions": [
                {
                    "annotations": {"helpfulness": {"Rating": "5", "Rationale": "It is."}},
                    "custom_system_prompt": RULE,
                    "response": GOOD,
                    "critique": "Good.",
                    "overall_score": 2.0,
                    "fine-grained_score": 5.0,
                },
                {
                    "annotations": {"helpfulness": {"Rating": "N/A", "Rationale": "It is not."}},
                    "custom_system_prompt": RULE,
                    "response": BAD,
                    "critique": "Bad.",
                    "overall_score": 9.0,
                    "fine-grained_score": 1.0,
                },
            ],
            "correct_answers": ["None"],
        },
        "pairs",
        PLAIN,
        {"source", "models", "correct_answers"},
    ),
    "helpsteer2": (
        HUB + "nvidia/HelpSteer2",
        {"prompt": ASK, "response": GOOD, "helpfulness": 4, "correctness": 4, "verbosity": 1},
        "ratings",
        (ASK, [GOOD]),
        set(),
    ),
    "helpsteer2 preference": (
        HUB + "nvidia/HelpSteer2",
        {
            "prompt": ASK,
            "response_1": BAD,
            "response_2": GOOD,
            "preference_strength": 1,
            "preference_statement": "The second is a bird.",
        },
        "pairs",
        PLAIN,
        {"preference_statement"},
    ),
    "helpsteer3": (
        HUB + "nvidia/HelpSteer3",
        {
            "domain": "general",
            "language": "english",
            "context": [user(ASK)],
            "response1": GOOD,
            "response2": BAD,
            "overall_preference": -2,
            "individual_preference": [{"score": -2, "reasoning": "The second is no bird."}],
        },
        "pairs",
        CHAT,
        {"domain", "language", "individual_preference"},
    ),
    "nectar": (
        HUB + "berkeley-nest/Nectar",
        {
            "prompt": f"\n\nHuman: {ASK}\n\nAssistant: ",
            "answers": [
                {"answer": GOOD, "model": "a", "rank": 1.0},
                {"answer": BAD, "model": "b", "rank": 2.0},
            ],
            "turns": 1,
            "num_responses": 2,
            "source": ["own"],
            "good_natured": True,
        },
        "ranking",
        (f"\n\nHuman: {ASK}\n\nAssistant: ", [GOOD, BAD]),
        {"turns", "num_responses", "source", "good_natured"},
    ),
    "pku_safe_rlhf": (
        HUB + "PKU-Alignment/PKU-SafeRLHF",
        {
            "prompt": ASK,
            "response_0": BAD,
            "response_1": GOOD,
            "is_response_0_safe": True,
            "is_response_1_safe": True,
            "better_response_id": 1,
            "safer_response_id": 0,
        },
        "pairs",
        PLAIN,
        {"is_response_0_safe", "is_response_1_safe"},
    ),
    "chatbot_arena_conversations": (
        HUB + "lmsys/chatbot_arena_conversations",
        {
            "question_id": "q",
            "model_a": "a",
            "model_b": "b",
            "winner": "model_b",
            "judge": "arena_user_1",
            "conversation_a": [user(ASK), bot(BAD)],
            "conversation_b": [user(ASK), bot(GOOD)],
            "turn": 1,
        },
        "pairs",
        CHAT,
        {"question_id", "model_a", "model_b", "judge", "turn"},
    ),
    "arena-human-preference-55k": (
        HUB + "lmsys/lmsys-arena-human-preference-55k",
        {
            "id": 1,
            "model_a": "a",
            "model_b": "b",
            "prompt": json.dumps([ASK]),
            "response_a": json.dumps([GOOD]),
            "response_b": json.dumps([BAD]),
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        },
        "pairs",
        CHAT,
        {"id", "model_a", "model_b"},
    ),
    "hh-rlhf": (
        HUB + "Anthropic/hh-rlhf",
        {
            "chosen": f"\n\nHuman: {ASK}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {ASK}\n\nAssistant: {BAD}",
        },
        "pairs",
        CHAT,
        set(),
    ),
    "full-hh-rlhf": (
        HUB + "Dahoas/full-hh-rlhf",
        {
            "prompt": f"\n\nHuman: {ASK}\n\nAssistant:",
            "response": f" {GOOD}",
            "chosen": f" {GOOD}",
            "rejected": f" {BAD}",
        },
        "pairs",
        (f"\n\nHuman: {ASK}\n\nAssistant:", [f" {GOOD}", f" {BAD}"]),
        {"response"},
    ),
    "orca_dpo_pairs": (
        HUB + "Intel/orca_dpo_pairs",
        {"system": RULE, "question": ASK, "chosen": GOOD, "rejected": BAD},
        "pairs",
        WITH_SYSTEM,
        set(),
    ),
    "distilabel-intel-orca": (
        HUB + "argilla/distilabel-intel-orca-dpo-pairs",
        {
            "system": "",
            "input": ASK,
            "chosen": GOOD,
            "rejected": BAD,
            "generations": [GOOD, BAD],
            "rating": [9.0, 1.0],
            "status": "unchanged",
        },
        "pairs",
        PLAIN,
        {"generations", "rating", "status"},
    ),
    "truthy-dpo": (
        HUB + "jondurbin/truthy-dpo-v0.1",
        {
            "id": "1",
            "source": "own",
            "system": RULE,
            "prompt": ASK,
            "chosen": GOOD,
            "rejected": BAD,
        },
        "pairs",
        WITH_SYSTEM,
        {"id", "source"},
    ),
    "ultrafeedback-binarized-preferences": (
        HUB + "argilla/ultrafeedback-binarized-preferences",
        {
            "source": "own",
            "instruction": ASK,
            "chosen_response": GOOD,
            "rejected_response": BAD,
            "chosen_avg_rating": 5.0,
        },
        "pairs",
        PLAIN,
        {"source", "chosen_avg_rating"},
    ),
    "distilabel generations": (
        "https://distilabel.argilla.io/latest/components-gallery/tasks/ultrafeedback/",
        {"instruction": ASK, "generations": [GOOD, BAD, None], "ratings": [5, 1, None]},
        "pairs",
        PLAIN,
        set(),
    ),
    "magpie": (
        HUB + "Magpie-Align/Magpie-Pro-300K-Filtered",
        {
            "uuid": "u",
            "instruction": ASK,
            "response": GOOD,
            "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": GOOD}],
        },
        "demonstrations",
        LEARNED,
        {"uuid", "instruction", "response"},
    ),
    "magpie dpo": (
        HUB + "Magpie-Align/Magpie-Llama-3.1-Pro-DPO-100K-v0.1",
        {
            "uuid": "u",
            "instruction": ASK,
            "chosen": [user(ASK), bot(GOOD)],
            "rejected": [user(ASK), bot(BAD)],
        },
        "pairs",
        CHAT,
        {"uuid", "instruction"},
    ),
    "lima": (
        HUB + "GAIR/lima",
        {"conversations": [ASK, GOOD], "source": "own"},
        "demonstrations",
        LEARNED,
        {"source"},
    ),
    "dolly": (
        HUB + "databricks/databricks-dolly-15k",
        {"instruction": ASK, "context": "Owl, cat.", "response": GOOD, "category": "qa"},
        "demonstrations",
        (f"{ASK}\nOwl, cat.", [GOOD]),
        {"category"},
    ),
    "openorca": (
        HUB + "Open-Orca/OpenOrca",
        {"id": "1", "system_prompt": RULE, "question": ASK, "response": GOOD},
        "demonstrations",
        ([SYSTEM, user(ASK)], [[bot(GOOD)]]),
        {"id"},
    ),
    "metamath": (
        HUB + "meta-math/MetaMathQA",
        {"type": "t", "query": ASK, "original_question": ASK, "response": GOOD},
        "demonstrations",
        (ASK, [GOOD]),
        {"type", "original_question"},
    ),
    "gsm8k": (
        HUB + "openai/gsm8k",
        {"question": ASK, "answer": GOOD},
        "demonstrations",
        (ASK, [GOOD]),
        set(),
    ),
    "gsm8k, to sample": (
        HUB + "openai/gsm8k",
        {"question": ASK, "answer": GOOD},
        "prompts",
        ([user(ASK)], []),
        {"answer"},
    ),
    "shp": (
        HUB + "stanfordnlp/SHP",
        {
            "post_id": "p",
            "domain": "d",
            "history": ASK,
            "human_ref_A": BAD,
            "human_ref_B": GOOD,
            "labels": 0,
            "score_A": 4,
            "score_B": 8,
            "score_ratio": 2.0,
        },
        "pairs",
        PLAIN,
        {"post_id", "domain"},
    ),
    "summarize_from_feedback": (
        HUB + "openai/summarize_from_feedback",
        {
            "info": {"id": "t", "post": ASK, "title": None, "subreddit": None},
            "summaries": [{"text": BAD, "policy": "a"}, {"text": GOOD, "policy": "b"}],
            "choice": 1,
            "worker": "w",
        },
        "pairs",
        (f"POST: {ASK}\n\nTL;DR:", [GOOD, BAD]),
        {"worker"},
    ),
    "webgpt_comparisons": (
        HUB + "openai/webgpt_comparisons",
        {
            "question": {"dataset": "own", "id": "1", "full_text": ASK},
            "answer_0": BAD,
            "answer_1": GOOD,
            "score_0": -0.5,
            "score_1": 0.5,
            "tokens_0": {"prefix": [1]},
        },
        "pairs",
        PLAIN,
        {"tokens_0"},
    ),
    "hermes-function-calling": (
        HUB + "NousResearch/hermes-function-calling-v1",
        {
            "id": "1",
            "conversations": [
                {"from": "system", "value": f"<tools>{json.dumps([TOOL])}</tools>"},
                {"from": "human", "value": ASK},
                {"from": "gpt", "value": GOOD},
            ],
            "tools": json.dumps([TOOL]),
            "category": "c",
        },
        "demonstrations",
        (
            [{"role": "system", "content": f"<tools>{json.dumps([TOOL])}</tools>"}, user(ASK)],
            [[bot(GOOD)]],
        ),
        {"id", "category"},
    ),
    "smoltalk2": (
        HUB + "HuggingFaceTB/smoltalk2",
        {
            "messages": [user(ASK), bot(GOOD)],
            "chat_template_kwargs": {"enable_thinking": False, "xml_tools": None},
            "source": "own",
        },
        "demonstrations",
        LEARNED,
        {"source"},
    ),
    "reward-bench": (
        HUB + "allenai/reward-bench",
        {
            "prompt": ASK,
            "chosen": GOOD,
            "chosen_model": "a",
            "rejected": BAD,
            "rejected_model": "b",
            "subset": "s",
            "id": 1,
        },
        "pairs",
        CHAT,
        {"chosen_model", "rejected_model", "subset", "id"},
    ),
    "reward-bench-2": (
        HUB + "allenai/reward-bench-2",
        {
            "id": "1",
            "prompt": ASK,
            "chosen": [GOOD],
            "rejected": [BAD],
            "num_correct": 1,
            "total_completions": 2,
            "models": ["a", "b"],
            "subset": "Focus",
        },
        "pairs",
        CHAT,
        {"id", "num_correct", "total_completions", "models", "subset"},
    ),
    "skywork": (
        HUB + "Skywork/Skywork-Reward-Preference-80K-v0.2",
        {
            "chosen": [user(ASK), bot(GOOD)],
            "rejected": [user(ASK), bot(BAD)],
            "source": "own",
        },
        "pairs",
        CHAT,
        {"source"},
    ),
    "kto-mix": (
        HUB + "trl-lib/kto-mix-14k",
        {"prompt": [user(ASK)], "completion": [bot(GOOD)], "label": 1},
        "desirable",
        LEARNED,
        set(),
    ),
    "argilla": (
        "https://docs.argilla.io/latest/how_to_guides/import_export/",
        {
            "id": "1",
            "status": "completed",
            "_server_id": "s",
            "instruction": ASK,
            "response1": GOOD,
            "response2": BAD,
            "preference.responses": ["response1", "response2", "response1", "response2"],
            "preference.responses.users": ["a", "b", "c", "d"],
            "preference.responses.status": ["submitted", "draft", "submitted", "submitted"],
            "reason.responses": ["It is a bird."],
        },
        "pairs",
        PLAIN,
        {"id", "status", "_server_id", "preference.responses.users", "reason.responses"},
    ),
    "label studio": (
        "https://labelstud.io/templates/pairwise_comparison",
        {
            "id": 1,
            "data": {"prompt": ASK, "answer1": GOOD, "answer2": BAD, "topic": "birds"},
            "annotations": [
                {"result": [{"type": "pairwise", "value": {"selected": "left"}}]},
                {
                    "was_cancelled": True,
                    "result": [{"type": "pairwise", "value": {"selected": "right"}}],
                },
            ],
        },
        "pairs",
        PLAIN,
        {"id", "topic"},
    ),
}


def read(tmp_path, rows, label_kind, **settings):
    """The groups of rows in a file of their own, and the ledger."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = DataSource(
        [str(path)], label_kind, formats=built_in(), columns=ColumnSettings(**settings)
    )
    ledger = source.new_ledger()
    groups = []
    for group, note in read_groups(source, ledger):
        ledger.add(group.source, "kept", note)
        groups.append(group)
    assert ledger.rows == sum(ledger.fates.values())
    return groups, ledger
