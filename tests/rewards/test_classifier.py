"""A published reward model as a judge: what it scores is what the model says of each conversation alone."""

import json

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from lit_align.errors import ModelError
from lit_align.rewards.classifier import Classifier
from lit_align.testing import check_reward
from lit_align.types import Group
from tests import tiny as make
from tests.stages.runs import say


def config(**more) -> LlamaConfig:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaConfig(
        vocab_size=len(make.tokenizer()), max_position_embeddings=2048, **sizes, **more
    )


def save(folder, tokenizer=None, **more):
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config(**more))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    (tokenizer or make.tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One output, no padding token in its settings; it then reads its score at the very last token."""
    return save(tmp_path_factory.mktemp("classifier"), num_labels=1, pad_token_id=None)


GROUPS = [
    Group(
        [{"role": "user", "content": say(k, 2 + 5 * k)}],
        [[{"role": "assistant", "content": say(k + i, 1 + 7 * i)}] for i in range(3)],
    )
    for k in range(4)
]


def alone(path: str, groups, label=0) -> list[float]:
    """Each conversation by itself, nothing padded."""
    scorer = LlamaForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    scores = []
    for group in groups:
        for response in group.responses:
            text = tokenizer.apply_chat_template([*group.prompt, *response], tokenize=False)
            with torch.no_grad():
                logits = scorer(torch.tensor([tokenizer(text).input_ids])).logits
            scores.append(logits[0, label].item())
    return scores


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_padding_changes_no_score(model, batch_size):
    scores = Classifier(model, batch_size=batch_size)(GROUPS)
    assert scores.total.tolist() == pytest.approx(alone(model, GROUPS), abs=1e-5)
    assert scores.total.std() > 0.01
    assert scores.parts["tokens_cut"].tolist() == [0] * 12


NO_NEWLINE = make.CHATML.replace("<|im_end|>\n", "<|im_end|>")


def test_a_model_that_pads_with_the_token_that_ends_every_conversation(tmp_path):
    """Whoever trained it had the score read before that token, so that is where it is read."""
    tokenizer = make.tokenizer()
    tokenizer.chat_template = NO_NEWLINE
    path = save(tmp_path, tokenizer, num_labels=1, pad_token_id=tokenizer.eos_token_id)
    assert Classifier(path, batch_size=5)(GROUPS).total.tolist() == pytest.approx(
        alone(path, GROUPS), abs=1e-5
    )


def test_a_model_without_padding_reads_the_token_that_ends_every_conversation(tmp_path):
    tokenizer = make.tokenizer()  # which pads with that token
    tokenizer.chat_template = NO_NEWLINE
    path = save(tmp_path, tokenizer, num_labels=1, pad_token_id=None)
    assert Classifier(path, batch_size=5)(GROUPS).total.tolist() == pytest.approx(
        alone(path, GROUPS), abs=1e-5
    )


def test_it_keeps_the_promises_of_a_reward(model):
    check_reward(Classifier(model, batch_size=2))


def test_text_becomes_a_user_and_an_assistant_turn(model):
    turns = [{"role": "user", "content": "2 + 2?"}], [[{"role": "assistant", "content": "4"}]]
    judge = Classifier(model)
    assert torch.equal(judge([Group("2 + 2?", ["4"])]).total, judge([Group(*turns)]).total)


def test_what_is_too_long_loses_its_beginning_and_is_counted(model):
    group = Group("x" * 60, ["y" * 5, "y" * 5 + "!"])
    # <|im_start|>user\n..<|im_end|>\n<|im_start|>assistant\n..<|im_end|>\n, a token each mark and each byte
    tokens = [1 + 5 + 60 + 2 + 1 + 10 + n + 2 for n in (5, 6)]
    cut = Classifier(model, max_length=40)([group])
    assert cut.parts["tokens_cut"].tolist() == [n - 40 for n in tokens]
    assert cut.total[0] != cut.total[1]  # the responses are still there
    other = Classifier(model, max_length=40)([group._replace(prompt="z" + "x" * 59)])
    assert torch.equal(other.total, cut.total)  # the beginning is not


def test_of_several_outputs_one_must_be_chosen(tmp_path):
    path = save(tmp_path, num_labels=3, pad_token_id=None)
    chosen = Classifier(path, label=2)(GROUPS).total.tolist()
    assert chosen == pytest.approx(alone(path, GROUPS, label=2), abs=1e-5)
    for wrong in (None, 3, -1):
        with pytest.raises(
            ModelError, match=rf"has 3 outputs and label is {wrong}; set it from 0 to 2"
        ):
            Classifier(path, label=wrong)(GROUPS)


def test_a_language_model_is_no_reward_model(tmp_path):
    """Its head would be drawn at random, and so would every score."""
    LlamaForCausalLM(config(tie_word_embeddings=True)).save_pretrained(tmp_path)
    make.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is no reward model, it lacks score.weight; give one"):
        Classifier(str(tmp_path))(GROUPS)


def test_a_model_without_a_chat_template_is_refused(model, tmp_path):
    tokenizer = make.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template; add the one it was trained with"):
        Classifier(save(tmp_path, tokenizer, num_labels=1))(GROUPS)


def test_no_model_at_all_is_refused(tmp_path):
    with pytest.raises(
        ModelError, match=r"no reward model at .*nothing.*give a hub id or the folder"
    ):
        Classifier(str(tmp_path / "nothing"))(GROUPS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    make.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no reward model at"):
        Classifier(str(tmp_path))(GROUPS)


def test_settings_that_read_nothing_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Classifier("x", batch_size=0)
