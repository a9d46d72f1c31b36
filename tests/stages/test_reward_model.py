"""Reward models: what they learn from, what they score, and that nothing of them is lost on the way to the disk."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import lit_align
from lit_align.__main__ import main as command
from lit_align.cli.main import main
from lit_align.data.packing import pack
from lit_align.errors import ModelError
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.heads import ScoreHead
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.dpo import DPO
from lit_align.objectives.plackett_luce import PlackettLuce
from lit_align.objectives.regression import Regression
from lit_align.rewards.implicit import Implicit
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.testing import check_reward
from lit_align.types import Group, Pair, Tree
from tests.forked import kill_once_there, start_command
from tests.stages.runs import ROOT, arguments, folder_of, say, trace, write_pairs
from tests.stages.test_exact import gradient, stage, step, trees
from tests.stages.test_preference_losses import labelled

K = 4


def plain_scores(module: RewardModel, tree: Tree, member: str = "reward") -> torch.Tensor:
    """Each response in a row of its own, through the model as transformers calls it, and the head by hand."""
    head = module.adapters.head(member)
    with torch.no_grad(), module.adapters.activate(member, training=False) as model:
        last = [
            model.base_model(input_ids=torch.tensor([tree.prompt + response])).last_hidden_state[
                0, -1
            ]
            for response in tree.responses
        ]
        return torch.stack(last).double() @ head.weight.double()[0] + head.bias.double()[0]


def all_pairs(count: int) -> list[Tree]:
    """K responses each, the first best, all C(K, 2) comparisons; one prompt has a single comparison."""
    pairs = tuple(Pair(i, j) for i in range(K) for j in range(i + 1, K))
    rows = [
        tree._replace(group=tree.group._replace(pairs=pairs)) for tree in trees(count, responses=K)
    ]
    return [rows[0]._replace(group=rows[0].group._replace(pairs=(Pair(2, 0),))), *rows[1:]]


def test_all_comparisons_of_a_prompt_count_as_one(tiny):
    """InstructGPT's loss, equation 1, in double precision from scores of the plain pass."""
    module, rows = stage(RewardModel, BradleyTerry(), tiny), all_pairs(5)
    wanted = 0.0
    for tree in rows:
        scores = plain_scores(module, tree)
        lost = [
            math.log1p(math.exp(-(scores[p.better] - scores[p.worse]))) for p in tree.group.pairs
        ]
        wanted += sum(lost) / len(lost)
    found, _ = gradient(module, step(rows, 10_000))
    assert found == pytest.approx(wanted / len(rows), rel=1e-5)


def test_a_doubtful_label_with_a_margin_is_the_cross_entropy_of_its_chance(tiny):
    module, (tree, *_) = stage(RewardModel, BradleyTerry(margin=2.0), tiny), trees(1)
    tree = tree._replace(group=tree.group._replace(pairs=(Pair(0, 1, 0.7, 0.3),)))
    a, b = plain_scores(module, tree).tolist()
    right = 1 / (1 + math.exp(-(a - b - 2 * 0.3)))
    found, _ = gradient(module, step([tree], 1000))
    assert found == pytest.approx(-0.7 * math.log(right) - 0.3 * math.log(1 - right), rel=1e-4)


@pytest.mark.parametrize(
    "objective", [BradleyTerry(centre=0.01), PlackettLuce(), Regression(["helpfulness", "brevity"])]
)
def test_micro_batches_change_neither_loss_nor_gradient(objective, tiny):
    module = stage(RewardModel, objective, tiny, members=2)
    rows = all_pairs(7) if objective.label_kind == "pairs" else labelled(objective.label_kind, 7)
    parts = step(rows, max(tree.tokens for tree in rows))
    assert len(parts.batches) >= 4
    (loss, grad), (loss_, grad_) = gradient(module, step(rows, 10_000)), gradient(module, parts)
    assert loss_ == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(grad_, grad, rtol=1e-4, atol=1e-6)


def test_members_differ_and_each_learns_as_if_alone(tiny):
    base, rows = Base(str(tiny), "none", "float32"), labelled("pairs")
    module = RewardModel(BradleyTerry(), members=2, base=base, lora=Lora(r=4))
    module.configure_model()
    assert not torch.equal(*(module.adapters.head(member).weight for member in module.members))
    adapters = [
        [p for n, p in module.adapters.trainable().items() if f"A.{m}." in n]
        for m in module.members
    ]
    assert len(adapters[0]) == len(adapters[1]) > 0
    assert not any(map(torch.equal, *adapters))
    (batch,) = pack(rows, 10_000)
    loss, sums = module.losses(batch, statistics=True)
    each = [
        module.label_losses(batch, module.member_scores(member, batch, False)).losses.sum()
        for member in module.members
    ]
    assert loss.item() == pytest.approx(sum(one.item() for one in each), rel=1e-6)
    total, n = sums["rewards/std"]
    raw = torch.stack(
        [
            torch.cat([plain_scores(module, tree, member) for tree in rows])
            for member in module.members
        ]
    )
    assert (total / n).item() == pytest.approx(raw.std(0).mean().item(), rel=1e-4)


def test_a_member_moves_as_it_would_alone(tiny, tmp_path):
    """The same bits after three clipped updates, whoever shares the base."""
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    more = ["--trainer.max_steps=3", "--model.lora.dropout=0", "--model.max_grad_norm=0.1"]
    for name, members in (("alone", 1), ("together", 3)):
        main(reward_arguments(tiny, pairs, tmp_path / name, *more, f"--model.members={members}"))
    alone, together = (
        folder_of(tmp_path / "alone") / "adapter",
        folder_of(tmp_path / "together") / "adapter/reward0",
    )
    for file in ("adapter_model.safetensors", "head.safetensors"):
        one, other = load_file(alone / file), load_file(together / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_without_the_rating_that_is_learned_are_set_aside(tiny, tmp_path):
    rows = [
        {
            "prompt": f"{k}?",
            "response": say(k, 3),
            "helpfulness": None if k % 3 else 4,
            "verbosity": 2,
        }
        for k in range(9)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = reward_arguments(
        tiny,
        tmp_path / "rows.jsonl",
        tmp_path / "run",
        "--model.objective.attributes=[helpfulness]",
    )
    other = {
        "--model.objective=BradleyTerry": "--model.objective=Regression",
        "--data=Comparisons": "--data=Ratings",
    }
    main([other.get(word, word) for word in args])
    ledger = json.loads((folder_of(tmp_path / "run") / "ledger.json").read_text())["train"]
    assert ledger["fates"]["kept"] == 3
    assert ledger["fates"]["set aside"] == 6
    assert "no rating of helpfulness" in json.dumps(ledger)


def test_attributes_may_not_change_places_in_a_checkpoint(tiny, tmp_path):
    rows = [
        {"prompt": f"{k}?", "response": say(k, 3), "helpfulness": 4, "verbosity": 2}
        for k in range(5)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = {
        "--model.objective=BradleyTerry": "--model.objective=Regression",
        "--data=Comparisons": "--data=Ratings",
    }

    def run(*of):
        args = reward_arguments(
            tiny,
            tmp_path / "rows.jsonl",
            tmp_path / "run",
            f"--model.objective.attributes=[{','.join(of)}]",
        )
        return [other.get(word, word) for word in args]

    main(run("helpfulness", "verbosity"))
    checkpoint = folder_of(tmp_path / "run") / "checkpoints/last.ckpt"
    with pytest.raises(SystemExit):
        main(
            [
                *run("verbosity", "helpfulness"),
                "--trainer.max_epochs=2",
                f"--ckpt_path={checkpoint}",
            ]
        )


@pytest.mark.parametrize("kind", ["cyclic", "alike"])
def test_an_ordinary_score_is_measured_whatever_the_labels(kind, tiny, monkeypatch):
    """Where each response is worse than another all count; where all are alike nothing is scaled."""
    module = stage(RewardModel, BradleyTerry(), tiny)
    monkeypatch.setattr(RewardModel, "datamodule", SimpleNamespace(token_budget=10_000))
    monkeypatch.setattr(RewardModel, "global_step", 7)
    rows = trees(3, responses=3)
    if kind == "cyclic":
        pairs = (Pair(0, 1), Pair(1, 2), Pair(2, 0))
        rows = [tree._replace(group=tree.group._replace(pairs=pairs)) for tree in rows]
        module.normalise(rows)
    else:
        with pytest.warns(UserWarning, match="reward gives all preferred responses the same score"):
            module.normalise([rows[0]] * 3)
    head = module.adapters.head("reward")
    every = torch.cat(
        [plain_scores(module, tree) for tree in (rows if kind == "cyclic" else rows[:1])]
    )
    kept = every if kind == "cyclic" else every[:1]
    assert head.mean.item() == pytest.approx(kept.mean().item(), rel=1e-4)
    assert head.scale.item() == pytest.approx(
        kept.std(correction=0).item() if kind == "cyclic" else 1.0, rel=1e-4
    )


def test_scores_are_float32_under_autocast():
    head, hidden = ScoreHead(8), torch.randn(5, 8)
    head.mean.fill_(100.0)
    wanted = head.normalize(head(hidden))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.normalize(head(hidden)), wanted)


@pytest.mark.parametrize(
    ("cls", "objective", "says"),
    [
        (
            RewardModel,
            DPO(),
            "DPO is a loss over log-probabilities, and a reward model gives scores",
        ),
        (Preference, BradleyTerry(), "use the stage RewardModel"),
    ],
)
def test_scores_and_log_probabilities_are_not_mixed_up(cls, objective, says, tiny):
    with pytest.raises(Exception, match=says):
        stage(cls, objective, tiny)


# ---------------------------------------------------------------- the command, and what it leaves


def reward_arguments(tiny: Path, train: Path, run: Path, *more: str) -> list[str]:
    other = {
        "--model=Preference": "--model=RewardModel",
        "--model.objective=DPO": "--model.objective=BradleyTerry",
    }
    return [other.get(word, word) for word in arguments(tiny, train, run, *more)]


def texts(count: int) -> list[Group]:
    """Prompts with one to three answers of ragged lengths."""
    return [
        Group(
            [{"role": "user", "content": f"{k} {say(k, 1 + k % 7)}?"}],
            [
                [{"role": "assistant", "content": say(k + i, 1 + (k * i) % 9)}]
                for i in range(1 + k % 3)
            ],
        )
        for k in range(count)
    ]


SCORE = """
import json, sys
from lit_align.rewards.implicit import Implicit
from lit_align.rewards.reward_model import RewardModelScore
from tests.stages.test_reward_model import texts
print("SCORES", json.dumps(RewardModelScore(sys.argv[1])(texts(500)).total.tolist()))
"""


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """The folder of a short run."""
    at = tmp_path_factory.mktemp("reward")
    main(reward_arguments(tiny, write_pairs(at / "pairs.jsonl"), at / "run"))
    return folder_of(at / "run")


def test_a_fresh_process_gives_the_same_scores_bit_for_bit(trained):
    here = RewardModelScore(str(trained / "adapter"))(texts(500)).total
    assert len(here) == 999
    there = subprocess.run(
        [sys.executable, "-c", SCORE, str(trained / "adapter")],
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in there.splitlines() if line.startswith("SCORES")]
    assert json.loads(line.removeprefix("SCORES")) == here.tolist()


def test_the_folder_scores_as_the_run_did(trained):
    """Adapter, head, normalisation: against the module that the checkpoint gives, and the plain pass."""
    module = lit_align.load(trained)
    groups = texts(6)
    found = RewardModelScore(str(trained / "adapter"))(groups).total
    chat = lit_align.data.tokenize.ChatTokenizer(module.tokenizer, max_length=1000)
    head = module.adapters.head("reward")
    wanted = torch.cat([plain_scores(module, chat.encode(group).tree) for group in groups])
    torch.testing.assert_close(
        found.double(), (wanted - head.mean) / head.scale, rtol=1e-4, atol=1e-4
    )


def test_zero_is_an_ordinary_preferred_response(trained):
    """22 rows were trained on and none held out: mean 0 and deviation 1 over their chosen responses."""
    rows = [
        json.loads(line) for line in (trained.parents[1] / "pairs.jsonl").read_text().splitlines()
    ]
    scores = RewardModelScore(str(trained / "adapter"))(
        [Group(row["prompt"], [row["chosen"]]) for row in rows]
    ).total
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)


def test_it_keeps_the_promises_of_a_reward(trained):
    check_reward(RewardModelScore(str(trained / "adapter")))


def test_it_shares_the_base_that_is_there(trained, tiny):
    groups = texts(5)
    alone = RewardModelScore(str(trained / "adapter"))(groups).total
    policy = stage(Preference, DPO(), tiny)
    reward, again = (
        RewardModelScore(str(trained / "adapter")),
        RewardModelScore(str(trained / "adapter")),
    )
    before = sum(p.numel() for p in policy.parameters())
    for one in (reward, again):
        one.attach(policy.adapters, policy.tokenizer)
        assert one.loaded.adapters is policy.adapters
        torch.testing.assert_close(one(groups).total, alone, rtol=1e-5, atol=1e-5)
    assert policy.adapters.active == "policy"
    assert sum(p.numel() for p in policy.parameters()) < 1.5 * before
    assert set(policy.adapters.trainable()) == set(
        stage(Preference, DPO(), tiny).adapters.trainable()
    )


@pytest.mark.parametrize("other", ["template", "numbers"])
def test_it_brings_its_own_base_where_the_one_there_is_another(other, trained, tiny):
    tokenizer = load_tokenizer(Base(str(tiny)))
    base = Base(str(tiny), "nf4" if other == "numbers" else "none", "float32")
    if other == "template":
        tokenizer.chat_template = f"{tokenizer.chat_template} "
    policy = AdapterSet(load_model(base), Lora(r=4))
    reward = RewardModelScore(str(trained / "adapter"))
    alone = reward(texts(3)).total
    again = RewardModelScore(str(trained / "adapter"))
    with pytest.warns(UserWarning, match="it loads its own base"):
        again.attach(policy, tokenizer)
    assert again.loaded.adapters is not policy
    assert torch.equal(again(texts(3)).total, alone)


def test_an_exported_reward_model_is_one(trained, tmp_path):
    command(["export", str(trained), str(tmp_path / "out")])
    assert torch.equal(
        RewardModelScore(str(tmp_path / "out"))(texts(3)).total,
        RewardModelScore(str(trained / "adapter"))(texts(3)).total,
    )


def test_one_that_ended_before_an_epoch_did_says_so(trained, tmp_path):
    shutil.copytree(trained / "adapter", tmp_path / "early")
    record = json.loads((tmp_path / "early/provenance.json").read_text())
    assert record["normalised_at"] == 6
    (tmp_path / "early/provenance.json").write_text(json.dumps({**record, "normalised_at": None}))
    with pytest.warns(UserWarning, match="ended before it normalised its scores"):
        RewardModelScore(str(tmp_path / "early"))
    del record["loads"]
    (tmp_path / "early/provenance.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="does not say loads, so no RewardModel run wrote it"):
        RewardModelScore(str(tmp_path / "early"))


def test_where_somebody_must_speak_it_is_refused(trained, tiny, tmp_path, capsys):
    with pytest.raises(
        ModelError, match="is a reward model; give its adapter/ folder to RewardModelScore"
    ):
        Implicit(str(trained))(texts(1))
    with pytest.raises(SystemExit):
        command(
            [
                "chat",
                "--adapter",
                str(trained / "adapter"),
                "--base",
                str(tiny),
                "--quantization",
                "none",
            ]
        )
    assert "is a reward model, which scores and does not answer" in capsys.readouterr().err
    pairs = trained.parents[1] / "pairs.jsonl"
    best = [
        "--model.best_of.n=2",
        "--model.best_of.reward=Length",
        "--model.best_of.reward.max_words=3",
        "--model.temperature=1",
    ]
    with pytest.raises(SystemExit):
        main(reward_arguments(tiny, pairs, tmp_path / "run", *best))
    assert "a reward model answers nothing; leave it out" in capsys.readouterr().err
    asking = '--trainer.callbacks={"class_path": "lit_align.callbacks.report.Report", "init_args": {"questions": 2}}'
    with pytest.raises(SystemExit):
        main(reward_arguments(tiny, pairs, tmp_path / "run", asking))
    assert "trains no policy that could answer" in capsys.readouterr().err


def test_an_adapter_without_its_head_is_no_reward_model(trained, tmp_path):
    shutil.copytree(trained / "adapter", tmp_path / "headless")
    (tmp_path / "headless" / "head.safetensors").unlink()
    with pytest.raises(ModelError, match=r"headless' has no head.safetensors"):
        RewardModelScore(str(tmp_path / "headless"))
    with pytest.raises(ModelError, match="no reward model in"):
        RewardModelScore(str(tmp_path))


def test_a_head_of_another_width_and_another_tokenizer_are_refused(trained, tmp_path):
    for name, broken in (("width", "head.safetensors"), ("words", "provenance.json")):
        folder = tmp_path / name
        shutil.copytree(trained / "adapter", folder)
        if name == "width":
            ScoreHead(33).save(folder)
        else:
            record = json.loads((folder / broken).read_text())
            (folder / broken).write_text(json.dumps({**record, "tokenizer": "another"}))
    with pytest.raises(
        ModelError,
        match=r"width' takes hidden states of width 33, and .* have width 32; give the base",
    ):
        RewardModelScore(str(tmp_path / "width"))(texts(1))
    with pytest.raises(ModelError, match=r"is not the one that .* was trained with"):
        RewardModelScore(str(tmp_path / "words"))(texts(1))


def test_it_starts_from_what_was_imitated(tiny, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, pairs, tmp_path / "policy"))
    init_adapter = folder_of(tmp_path / "policy") / "adapter"
    module = RewardModel(
        BradleyTerry(),
        base=Base(str(tiny), "none", "float32"),
        lora=Lora(r=4),
        init_adapter=str(init_adapter),
    )
    module.configure_model()
    module.save_adapter(tmp_path / "start")
    before, after = (
        load_file(at / "adapter_model.safetensors") for at in (init_adapter, tmp_path / "start")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_peft_loads_the_adapter(trained, tiny):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), str(trained / "adapter")
    )
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_what_is_cut_is_counted(trained):
    group = Group(
        [{"role": "user", "content": "Why?"}], [[{"role": "assistant", "content": "long " * 50}]]
    )
    length = {
        n: RewardModelScore(str(trained / "adapter"), max_length=n)([group])
        .parts["tokens_cut"]
        .item()
        for n in (64, 512)
    }
    assert length[64] > 200  # one token a byte
    assert length[512] == 0


def test_an_ensemble_doubts_where_its_members_disagree(tiny, tmp_path):
    args = reward_arguments(
        tiny, write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--model.members=3"
    )
    main([*args, "--trainer.max_steps=2"])
    adapter = folder_of(tmp_path / "run") / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == ["reward0", "reward1", "reward2"]
    each = torch.stack(
        [RewardModelScore(str(adapter / f"reward{i}"))(texts(4)).total for i in range(3)]
    )
    scores = RewardModelScore(str(adapter), uncertainty_penalty=0.5)(texts(4))
    torch.testing.assert_close(scores.parts["trained/mean"], each.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.parts["trained/std"], each.std(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.total, each.mean(0) - 0.5 * each.std(0), rtol=1e-4, atol=1e-5)


def test_predict_writes_the_scores(trained, tiny, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl", 5)
    args = reward_arguments(tiny, pairs, tmp_path / "run", f"--data.validation={pairs}")
    main(["predict", *args[1:], f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}"])
    written = folder_of(tmp_path / "run") / "scores.jsonl"
    assert f"scores are in {written}" in capsys.readouterr().out
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    groups = [Group(row["prompt"], row["responses"]) for row in rows]
    assert len(rows) == 5
    found = torch.tensor([score for row in rows for score in row["scores"]])
    torch.testing.assert_close(
        found, RewardModelScore(str(trained / "adapter"))(groups).total, rtol=1e-4, atol=1e-4
    )


def test_a_killed_run_goes_on_bit_for_bit(tiny, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    more = ["--save_every=1", "--trainer.max_epochs=2", "--model.members=2"]
    main(reward_arguments(tiny, pairs, tmp_path / "whole", *more))
    process = start_command(reward_arguments(tiny, pairs, tmp_path / "cut", *more), ROOT)
    checkpoint = tmp_path / "cut/0/checkpoints/last.ckpt"
    kill_once_there(process, checkpoint)
    main([*reward_arguments(tiny, pairs, tmp_path / "rest", *more), f"--ckpt_path={checkpoint}"])
    whole, rest = trace(tmp_path / "whole"), trace(tmp_path / "rest")
    assert rest == whole
    adapters = [
        folder_of(tmp_path / name) / "adapter/reward1/head.safetensors"
        for name in ("whole", "rest")
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
