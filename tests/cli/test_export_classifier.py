"""A reward model gives its scores in transformers' own class, in a process that knows nothing of this package."""

import json
import re
import subprocess
import sys

import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import lit_align
from lit_align.__main__ import main as command
from lit_align.cli.main import main
from lit_align.data.scoring import score_trees, tokenize_groups
from lit_align.types import Group
from tests import tiny as tiny_model
from tests.stages.runs import arguments, folder_of, say, write_pairs

SCORE = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, loading = AutoModelForSequenceClassification.from_pretrained(".", output_loading_info=True)
assert not any(loading.values()), loading
tokenizer = AutoTokenizer.from_pretrained(".")
scores = []
with torch.no_grad():
    texts = json.load(sys.stdin)
    for start in range(0, len(texts), 8):
        batch = tokenizer(texts[start : start + 8], add_special_tokens=False, padding=True, return_tensors="pt")
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
        assert logits.shape[1] == model.config.num_labels == 1
        scores += (logits[:, 0] + model.config.score_offset).tolist()
assert not any(name.startswith("lit_align") for name in sys.modules)
print(json.dumps([scores, model.config.score_offset, tokenizer.pad_token_id == model.config.pad_token_id]))
"""


def train(base, at, objective="BradleyTerry", *more):
    """A reward model of some steps, whose scores are normalised."""
    settings = arguments(base, write_pairs(at / "pairs.jsonl"), at / "run", *more)
    settings = reward_settings(settings, objective)
    main([*settings, "--trainer.max_epochs=1", "--model.optimizer.lr=0.01"])
    return folder_of(at / "run")


def reward_settings(settings, objective="BradleyTerry"):
    """The command line of a Preference run as one of a RewardModel."""
    changed = []
    for setting in settings:
        setting = setting.replace("=Preference", "=RewardModel").replace("=DPO", f"={objective}")
        changed.append(setting)
    return changed


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return train(tiny, tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A model whose last norm has a bias."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = tiny_model.tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=2, n_head=4,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, initializer_range=0.2,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def conversations(count: int) -> list[Group]:
    groups = []
    for number in range(count):
        turns = [{"role": "user", "content": f"{number} {say(number, 1 + number % 9)}?"}]
        if number % 3 == 0:
            turns += [{"role": "assistant", "content": "Yes."}, turns[0]]
        answer = [{"role": "assistant", "content": say(number + 3, 1 + number % 12)}]
        groups.append(Group(turns, [answer]))
    return groups


def our_scores(run, groups, role="reward"):
    stage = lit_align.load(run)
    trees, _ = tokenize_groups(groups, stage.tokenizer, 512)
    return scores_of(stage, trees, role)


def scores_of(stage, trees, role):
    def score(batch):
        raw = stage.member_scores(role, batch, training=False)
        return stage.adapters.head(role).normalize(raw)

    with torch.no_grad():
        return score_trees(trees, score, 2048, dense=True).tolist()


def their_scores(folder, groups):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template([*group.prompt, *group.responses[0]], tokenize=False)
        for group in groups
    ]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCORE],
        cwd=folder,
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def test_two_hundred_scores_are_ours(run, tmp_path, capsys):
    command(["export", str(run), str(tmp_path / "out"), "--as-classifier"])
    printed = capsys.readouterr().out
    groups = conversations(200)
    scores, offset, pads = their_scores(tmp_path / "out", groups)
    assert scores == pytest.approx(our_scores(run, groups), abs=1e-5)
    assert pads
    assert f"add {offset:.6g} (`score_offset` in config.json) to a logit" in printed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert max(scores) - min(scores) > 0.1


def test_a_norm_with_a_bias_takes_the_constant(gpt2, tmp_path, capsys):
    run = train(gpt2, tmp_path)
    command(["export", str(run), str(tmp_path / "out"), "--as-classifier"])
    assert "score_offset" not in capsys.readouterr().out
    groups = conversations(40)
    scores, offset, _ = their_scores(tmp_path / "out", groups)
    assert offset == 0
    assert scores == pytest.approx(our_scores(run, groups), abs=1e-5)


def test_plain_text_begins_and_ends_as_in_training(tmp_path):
    """The tokenizer adds BOS, and no template ends a response."""
    base = tiny_model.save(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base, bos_token="<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(base)
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for number in range(12):
            row = {
                "prompt": f"{number} {say(number, 3)}?",
                "chosen": f" {say(number + 1, 2)}",
                "rejected": f" {say(number + 2, 4)}",
            }
            file.write(json.dumps(row) + "\n")
    settings = arguments(base, rows, tmp_path / "run", "--trainer.max_epochs=1")
    main(reward_settings(settings))
    run, out = folder_of(tmp_path / "run"), tmp_path / "out"
    command(["export", str(run), str(out), "--as-classifier"])
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=out,
        capture_output=True,
        text=True,
        check=True,
    )
    stage = lit_align.load(run)
    trees, _ = tokenize_groups([Group("2 + 2?", [" 4."])], stage.tokenizer, 512, False)
    assert trees[0].prompt[0] == tokenizer.bos_token_id
    assert trees[0].responses[0][-1] == tokenizer.eos_token_id
    expected = scores_of(stage, trees, "reward")
    assert json.loads(result.stdout) == pytest.approx(expected, abs=1e-5)


def test_an_ensemble_is_refused_and_a_member_is_not(tiny, tmp_path, capsys):
    run = train(tiny, tmp_path, "BradleyTerry", "--model.members=2")
    with pytest.raises(SystemExit):
        command(["export", str(run), str(tmp_path / "out"), "--as-classifier"])
    error = capsys.readouterr().err
    assert "ensemble of 2, whose score is the mean of 2 passes through different weights" in error
    command(["export", str(run), str(tmp_path / "out"), "--as-classifier", "--role=reward1"])
    groups = conversations(8)
    scores, *_ = their_scores(tmp_path / "out", groups)
    assert scores == pytest.approx(our_scores(run, groups, "reward1"), abs=1e-5)
    command(["export", str(run), str(tmp_path / "adapters")])
    assert "would draw a random one without an error" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {"reward0", "reward1"}


def test_a_policy_is_no_classifier(tiny, tmp_path, capsys):
    main(
        arguments(
            tiny, write_pairs(tmp_path / "p.jsonl"), tmp_path / "run", "--trainer.max_steps=1"
        )
    )
    run = str(folder_of(tmp_path / "run"))
    with pytest.raises(SystemExit):
        command(["export", run, str(tmp_path / "out"), "--as-classifier"])
    assert "trained a Preference and no reward model" in capsys.readouterr().err
