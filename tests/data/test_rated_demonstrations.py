"""What a response is rated stands in its prompt, and the same words ask for it afterwards."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.__main__ import main as command
from lit_align.chat.attribute_line import TEMPLATE, Steering, parse_values
from lit_align.cli.chat import parse_options
from lit_align.cli.chat_speakers import load_speakers
from lit_align.cli.main import main
from lit_align.data.rated_demonstrations import RatedDemonstrations, SteeredTokenizer
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError, SetAside
from lit_align.models.adapters import read_provenance
from lit_align.types import Group
from tests import tiny as make
from tests.stages.runs import arguments, folder_of

ATTRIBUTES = ("helpfulness", "verbosity")
ROWS = [
    {"prompt": f"What is {k}?", "response": "It is " + "so " * k, "helpfulness": 4 - k % 4, "verbosity": k % 5}
    for k in range(10)
]  # fmt: skip


def encode(group, requested=None, **changes):
    plain = ChatTokenizer(make.tokenizer(), max_length=999, **changes)
    return SteeredTokenizer(plain, ATTRIBUTES, requested).encode(group).tree


def prompt_text(tree):
    return make.tokenizer().decode(tree.prompt)


def test_the_last_question_ends_with_the_ratings_of_the_answer():
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "I."},
        {"role": "user", "content": "Why?"},
    ]
    answer = [[{"role": "assistant", "content": "So."}]]
    rated = Group(turns, answer, ratings=({"verbosity": 0.5, "helpfulness": 3, "correctness": 4},))
    text = prompt_text(encode(rated))
    line = "Attributes of the answer: helpfulness 3, verbosity 1"
    assert text.endswith(f"user\nWhy?\n\n{line}<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("Attributes") == 1
    asked = encode(rated, {"verbosity": 4, "helpfulness": 2})
    line = "Attributes of the answer: helpfulness 2, verbosity 4"  # in the order of training
    assert f"Why?\n\n{line}<" in prompt_text(asked)


def test_a_prompt_in_plain_text_ends_with_them_too():
    rated = Group("Who?", [" I."], ratings=({"verbosity": 2},))
    line = "Who?\n\nAttributes of the answer: verbosity 2"
    assert prompt_text(encode(rated, as_chat=False)) == f"{line}\n\n"
    assert f"user\n{line}<|im_end|>" in prompt_text(encode(rated))


def test_a_dialogue_in_plain_text_keeps_its_turns():
    text = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:"
    rated = Group(text, [" I."], ratings=({"verbosity": 2},))
    plain = ChatTokenizer(make.tokenizer(), max_length=999)
    encoded = SteeredTokenizer(plain, ATTRIBUTES, None).encode(rated)
    assert [turn["role"] for turn in encoded.tree.group.prompt] == ["user", "assistant", "user"]
    line = "Who?\n\nAttributes of the answer: verbosity 2"
    assert encoded.tree.group.prompt[-1]["content"] == line
    assert encoded.from_text


def test_responses_with_ratings_of_their_own_need_rows_of_their_own():
    with pytest.raises(SetAside, match="a row for each"):
        encode(Group("Who?", ["I.", "You."], ratings=({"verbosity": 1}, {"verbosity": 2})))


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="at least one attribute"):
        RatedDemonstrations("rows.jsonl", [])
    with pytest.raises(ConfigError, match="'tone', which is not one of attributes"):
        RatedDemonstrations("rows.jsonl", ["verbosity"], requested={"tone": 1})
    with pytest.raises(ConfigError, match="requested has no helpfulness"):
        RatedDemonstrations("rows.jsonl", [*ATTRIBUTES], requested={"verbosity": 1})
    with pytest.raises(ConfigError, match="own ratings"):
        RatedDemonstrations("rows.jsonl", ["verbosity"], requested={"verbosity": 1}).setup("fit")
    steering = Steering(TEMPLATE, {"verbosity": [1, 2, 3]})
    with pytest.raises(ConfigError, match="'tone'; it knows verbosity"):
        steering.line({"tone": 1})
    for value in (0, 4):
        with pytest.raises(ConfigError, match=f"verbosity is {value}, and .* 1 to 3"):
            steering.line({"verbosity": value})
    with pytest.raises(ConfigError, match="whole numbers by name"):
        parse_values("verbosity=much")


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(-3, 9), min_size=1))
@settings(max_examples=30)
def test_what_is_written_is_read(values):
    text = ",".join(f"{name}={value}" for name, value in values.items())
    assert parse_values(text) == values


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The folder of an adapter trained with attributes, and its rows."""
    folder = tmp_path_factory.mktemp("steered")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    usual = arguments(tiny, rows, folder / "run", "--trainer.max_steps=1", stage="SFT")
    usual[usual.index("--data=Demonstrations")] = "--data=RatedDemonstrations"
    main([*usual, f"--data.attributes={json.dumps(ATTRIBUTES)}"])
    return folder


def test_a_chat_asks_in_the_words_of_the_training(run, tiny):
    adapter = folder_of(run / "run") / "adapter"
    record = read_provenance(adapter)["attributes"]
    assert record["values"] == {"helpfulness": [1, 3, 4], "verbosity": [0, 2, 4]}
    asked = ["--quantization=none", "--attributes=verbosity=4"]
    options = parse_options([str(folder_of(run / "run")), *asked])
    (speaker,) = load_speakers(options)
    speaker.turns = [{"role": "user", "content": "What is 9?"}]
    ids, _ = speaker._prompt("")
    rated = Group("What is 9?", ["so"], ratings=({"helpfulness": 3, "verbosity": 4},))
    assert ids == encode(rated).prompt


def test_an_adapter_without_attributes_cannot_be_asked_for_any(run, tiny, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        command(["chat", "--base", str(tiny), "--quantization=none", "--attributes=verbosity=1"])
    assert "no adapter here was trained with attributes" in capsys.readouterr().err


def test_other_values_are_asked_for_where_answers_are_written(run, tiny):
    unrated = run / "questions.jsonl"
    unrated.write_text('{"prompt": "What is 3?", "completion": "It is."}\n')
    trained = folder_of(run / "run")
    main(["predict", f"--config={trained}/config.yaml", f"--run={run}/said", f"--data.validation={unrated}",
          '--data.requested={"verbosity": 0, "helpfulness": 3}', "--model.max_new_tokens=4",
          f"--ckpt_path={trained}/checkpoints/last.ckpt"])  # fmt: skip
    (line,) = (folder_of(run / "said") / "answers.jsonl").read_text().splitlines()
    assert "helpfulness 3, verbosity 0" in json.dumps(json.loads(line)["prompt"])


def test_a_rater_labels_what_nobody_rated(run, tiny):
    """Its file of predictions is read as rated demonstrations."""
    usual = arguments(tiny, run / "rows.jsonl", run / "rater", "--trainer.max_steps=1")
    changed = {
        "--model=Preference": "--model=RewardModel",
        "--model.objective=DPO": "--model.objective=Regression",
        "--data=Comparisons": "--data=Ratings",
    }
    usual = [changed.get(word, word) for word in usual]
    place = usual.index("--model.objective=Regression") + 1
    usual.insert(place, f"--model.objective.attributes={json.dumps(ATTRIBUTES)}")
    main(usual)
    rater = folder_of(run / "rater")
    unrated = run / "answers.jsonl"
    rows = [{"prompt": row["prompt"], "completion": row["response"]} for row in ROWS]
    unrated.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments_of = [word for word in usual[1:] if "--data" not in word and "--run" not in word]
    main(["predict", *arguments_of, "--data=Demonstrations", f"--data.train={unrated}",
          f"--data.validation={unrated}", f"--run={run}/rated",
          f"--ckpt_path={rater}/checkpoints/last.ckpt"])  # fmt: skip
    file = folder_of(run / "rated") / "scores.jsonl"
    ratings = [json.loads(line)["ratings"] for line in file.read_text().splitlines()]
    assert [list(row[0]) for row in ratings] == [list(ATTRIBUTES)] * len(ROWS)
    usual = arguments(tiny, file, run / "boot", "--trainer.max_steps=1", stage="SFT")
    usual[usual.index("--data=Demonstrations")] = "--data=RatedDemonstrations"
    main([*usual, f"--data.attributes={json.dumps(ATTRIBUTES)}"])
    values = read_provenance(folder_of(run / "boot") / "adapter")["attributes"]["values"]
    assert values.keys() == set(ATTRIBUTES)
