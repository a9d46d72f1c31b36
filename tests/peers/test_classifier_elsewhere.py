"""A reward model as a classifier, in the hands of TRL's trainers and of scripts that score conversations."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, pipeline

import lit_align
from lit_align.__main__ import main as command
from lit_align.data.scoring import tokenize_groups
from tests.cli.test_export_classifier import conversations, our_scores, scores_of, train
from tests.stages.runs import say


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(tiny, tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def classifier(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "out"
    command(["export", str(run), str(folder), "--as-classifier"])
    return folder


@pytest.mark.parametrize("trainer", ["RLOO", "GRPO"])
def test_a_trainer_of_trl_is_given_our_scores(trainer, run, classifier, tiny, tmp_path):
    import trl

    config = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=12,
        bf16=False,  # which rounds a score in the third digit
        use_cpu=True,
        report_to="none",
    )
    prompts = [[{"role": "user", "content": f"{say(number, 3)}?"}] for number in range(4)]
    run_of_trl = getattr(trl, f"{trainer}Trainer")(
        model=str(tiny),
        reward_funcs=str(classifier),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )
    (model,) = run_of_trl.reward_funcs
    scored = []
    model.register_forward_hook(
        lambda _, __, inputs, output: scored.append((inputs, output.logits.clone())),
        with_kwargs=True,
    )
    run_of_trl.train()
    (inputs, scores), *_ = scored
    expected = _our_scores_of_tokens(run, inputs["input_ids"], inputs["attention_mask"].bool())
    assert max(expected) - min(expected) > 0.01
    assert (scores[:, 0] + model.config.score_offset).tolist() == pytest.approx(expected, abs=1e-5)


def _our_scores_of_tokens(run, ids, mask):
    """The scores of conversations that are tokenized already."""
    stage = lit_align.load(run)
    (like,), _ = tokenize_groups(conversations(1), stage.tokenizer, 512)
    trees = []
    for row, counts in zip(ids, mask, strict=True):
        tokens = row[counts].tolist()
        response = tokens[1:]
        trees.append(
            like._replace(prompt=tokens[:1], responses=[response], scored=[[True] * len(response)])
        )
    return scores_of(stage, trees, "reward")


def test_a_pipeline_ranks_as_the_run_does(run, classifier):
    """As RewardBench scores: a text-classification pipeline over rendered conversations, the raw logit."""
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    score = pipeline("text-classification", model=str(classifier), tokenizer=tokenizer)
    groups = conversations(24)
    texts = [
        tokenizer.apply_chat_template([*group.prompt, *group.responses[0]], tokenize=False)
        for group in groups
    ]
    settings = {"truncation": True, "padding": True, "max_length": 512, "batch_size": 8}
    results = score(texts, function_to_apply="none", **settings)
    logits = torch.tensor([result["score"] for result in results])
    expected = torch.tensor(our_scores(run, groups))
    torch.testing.assert_close(
        logits + score.model.config.score_offset, expected, rtol=0, atol=1e-5
    )
    chosen, rejected = slice(0, None, 2), slice(1, None, 2)
    assert torch.equal(logits[chosen] > logits[rejected], expected[chosen] > expected[rejected])


@torch.no_grad()
def test_a_logit_of_one_conversation_is_its_score(run, classifier):
    """As cards of reward models on the hub do: the template's token ids, and the first logit."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier, num_labels=1).eval()
    groups = conversations(4)
    scores = []
    for group in groups:
        turns = [*group.prompt, *group.responses[0]]
        inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        scores.append(model(**inputs).logits[0][0].item() + model.config.score_offset)
    assert scores == pytest.approx(our_scores(run, groups), abs=1e-5)
