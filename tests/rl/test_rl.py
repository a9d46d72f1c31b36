"""Runs of on-policy learning: where they start, what they leave behind and alone, and that they go on exactly."""

import hashlib
import json
import math
from dataclasses import asdict
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch

import lit_align
from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.cli.main import main
from lit_align.data.datamodules import Prompts
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ModelError
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.pretraining_mix import PretrainingMix
from lit_align.rl.stage import RL
from lit_align.types import Group, Tree
from tests.forked import kill_once_there, start_command
from tests.rl.on_policy import OfflineRL, rl_arguments, stage, table, write_prompts
from tests.stages.runs import ROOT, arguments, folder_of, say, write_chats, write_pairs


def everything(tiny, at, run):
    """Arguments of a run with a temperature, demonstrations and a table of samples besides."""
    more = (
        "--model.temperature=0.7",
        f"--model.ptx.data={at / 'chats.jsonl'}",
        "--model.ptx.weight=0.5",
    )
    more += ("--model.entropy_bonus.target=100", "--model.entropy_bonus.step=0.02")
    more += ("--model.kl.target=0.001", "--model.kl.horizon=100", "--model.target_kl=0.1")
    often = (
        "--model.ptx.batch_size=3",
        "--model.log_samples_every=4",
        "--trainer.max_epochs=4",
        "--save_every=1",
    )
    return rl_arguments(tiny, at / "prompts.jsonl", run, *more, *often)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run of PPO that nobody disturbs."""
    at = tmp_path_factory.mktemp("rl")
    write_prompts(at / "prompts.jsonl")
    write_chats(at / "chats.jsonl")
    main(everything(tiny, at, at / "run"))
    return at


def test_the_first_iteration_starts_at_the_reference(whole):
    """KL exactly 0; the first update compares the policy with itself; the sampler saw what the training pass sees."""
    (first, *rest) = table(
        whole / "run", "objective/kl", "policy/first_ratio", "policy/sampler_gap"
    )
    assert float(first[0]) == 0
    assert rest
    for _, ratio, gap in (first, *rest):
        assert float(ratio) == pytest.approx(1, abs=1e-5)
        assert float(gap) < 1e-5
    assert float(rest[-1][0]) != 0


def test_an_iteration_counts_as_one_step(whole):
    """Of 8 prompts in steps of 4 there are 2 in an epoch, each of four updates unless it moved too far."""
    assert [step for step, _ in table(whole / "run", "step", "loss")] == [str(k) for k in range(8)]
    assert max(float(updates) for (updates,) in table(whole / "run", "updates")) == 4


def test_what_is_logged(whole):
    wanted = {
        f"objective/{name}"
        for name in ("kl", "kl_k1", "kl_k2", "kl_k3", "entropy", "length", "eos_rate")
    }
    wanted |= {
        f"policy/{name}" for name in ("clipfrac", "approxkl", "ratio", "first_ratio", "sampler_gap")
    }
    wanted |= {
        "val/explained_variance",
        "val/clipfrac",
        "grad_norm",
        "objective/rlhf_reward",
        "loss/value",
        "loss/kl",
    }
    rows = table(whole / "run", *sorted(wanted))
    assert all(math.isfinite(float(value)) for row in rows for value in row)
    for k1, k2, k3, one in table(
        whole / "run", *(f"objective/kl{name}" for name in ("_k1", "_k2", "_k3", ""))
    ):
        assert k1 == one
        assert min(float(k2), float(k3)) >= 0


def test_an_iteration_ends_where_the_policy_moved_too_far(whole, tiny, tmp_path):
    """The first update compares the policy with itself, the second with what the first made of it."""
    more = ("--trainer.max_steps=2", "--model.target_kl=1e-9")
    main(rl_arguments(tiny, whole / "prompts.jsonl", tmp_path / "run", *more))
    for updates, moved in table(tmp_path / "run", "updates", "policy/approxkl"):
        assert float(updates) == 2
        assert float(moved) * 2 > 1e-9


def test_rates_fall_with_each_update(tiny, whole, tmp_path):
    """Four updates of an iteration take both rates half way down in four steps."""
    module = stage(
        tiny, Pattern("a"), GAE(), critic=Critic(lr=1e-2), num_iterations=2, num_minibatches=2, max_new_tokens=4,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, eps=1e-5),
        lr_scheduler=partial(torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.5, total_iters=4),
    )  # fmt: skip
    fit(module, whole, tmp_path, 1)
    groups = module.trainer.optimizers[0].param_groups
    assert [(group["lr"], group["eps"]) for group in groups] == [
        (pytest.approx(5e-4), 1e-5),
        (pytest.approx(5e-3), 1e-5),
    ]


def fit(module, whole, folder, steps):
    """Some iterations without the command."""
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, Prompts(str(whole / "prompts.jsonl"), batch_size=2))


def test_a_killed_run_goes_on_bit_for_bit(whole, tiny, tmp_path):
    process = start_command(everything(tiny, whole, tmp_path / "cut"), ROOT)
    checkpoint = tmp_path / "cut/0/checkpoints/last.ckpt"
    kill_once_there(process, checkpoint)
    main([*everything(tiny, whole, tmp_path / "rest"), f"--ckpt_path={checkpoint}"])
    names = ("step", "updates", "objective/scores", "objective/kl", "objective/kl_coefficient")
    names += ("loss", "loss/ptx", "val/explained_variance", "grad_norm")
    names += ("objective/entropy_coefficient", "policy/entropy")
    rest = table(tmp_path / "rest", *names)
    assert rest == table(whole / "run", *names)


def test_what_was_trained_comes_back(whole, tiny, tmp_path):
    """From the command, and from Python, where the settings are noted as plain values."""
    stage_ = lit_align.load(folder_of(whole / "run"))
    assert (type(stage_), stage_.reward, stage_.advantage) == (RL, Pattern("a|e|i"), GAE())
    assert stage_.ptx == PretrainingMix(str(whole / "chats.jsonl"), 0.5, 3)
    coefficient = 0.05
    for kl, before in table(whole / "run", "objective/kl", "objective/kl_coefficient"):
        assert float(before) == pytest.approx(coefficient)
        coefficient *= 1 + max(-0.2, min(0.2, float(kl) / 0.001 - 1)) * 16 / 100
    assert (stage_.kl_coefficient, len(stage_.diagnostics.kl_and_score)) == (
        pytest.approx(coefficient),
        8,
    )
    assert coefficient != pytest.approx(0.05)
    applied = [float(x) for (x,) in table(whole / "run", "objective/entropy_coefficient")]
    assert applied == pytest.approx([0.02 * k for k in range(8)])
    assert stage_.entropy_control.state() == pytest.approx({"coefficient": 0.16, "applied": 0.16})
    made = stage(tiny, Weighted([Pattern("a")], [2.0]), GRPO(std=False), num_generations=3)
    noted = (
        made.hparams["reward"]["init_args"]["rewards"][0]["init_args"],
        made.hparams["kl"],
        made.hparams["num_generations"],
    )
    assert noted == ({"regex": "a"}, {**asdict(KLControl())}, 3)


def test_samples_are_left_to_read(whole):
    """Of iterations 0 and 4: four prompts, four samples each, and figures that are those of the log."""
    rows = [json.loads(line) for line in (folder_of(whole / "run") / "samples.jsonl").open()]
    assert [row["step"] for row in rows] == [0] * 16 + [4] * 16
    logged = table(
        whole / "run", "objective/scores", "objective/kl", "objective/length", "objective/eos_rate"
    )
    for step in (0, 4):
        mine = [row for row in rows if row["step"] == step]
        means = [sum(row[name] for row in mine) / 16 for name in ("score", "kl", "tokens", "ended")]
        assert means == pytest.approx([float(value) for value in logged[step]], abs=1e-6)
        assert all(
            bool(Pattern("a|e|i")([Group("", [row["response"]])]).total) == bool(row["score"])
            for row in mine
        )
    assert (folder_of(whole / "run") / "reward_kl.png").stat().st_size > 5000


def test_demonstrations_have_a_ledger_too(whole):
    ledgers = json.loads((folder_of(whole / "run") / "ledger.json").read_text())
    assert {name: ledger["fates"]["kept"] for name, ledger in ledgers.items()} == {
        "train": 8,
        "ptx": 22,
    }


# ---------------------------------------------------------------- roles on one base


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """The adapter of a reward model on the same base."""
    at = tmp_path_factory.mktemp("reward")
    other = {
        "--model=Preference": "--model=RewardModel",
        "--model.objective=DPO": "--model.objective=BradleyTerry",
    }
    made = arguments(tiny, write_pairs(at / "pairs.jsonl"), at / "run", "--trainer.max_steps=6")
    main([other.get(word, word) for word in made])
    return folder_of(at / "run") / "adapter"


def test_the_critic_starts_from_the_scores_of_the_reward_model(trained, tiny):
    """Its value before each token is the score of the partial response, as if it ended there."""
    reward = RewardModelScore(str(trained))
    module = stage(tiny, reward, GAE(), critic=Critic(init_from=str(trained)), cls=OfflineRL)
    module.configure_model()
    chat = ChatTokenizer(module.tokenizer, max_length=256)
    prompt = chat.encode(Group([{"role": "user", "content": say(1, 3)}], [])).tree.prompt
    tree = Tree(prompt, [[5, 6, 7], [8, 9]], [[True] * 3, [True] * 2], Group("", ["", ""]))
    models = module.actor_critic()
    (batch,) = models.pack([tree])
    found = models.values(batch, training=False).tolist()
    ((member, *_),) = [reward.loaded.members]
    head = module.adapters.head(member)
    assert head.scale != 1
    with torch.no_grad(), module.adapters.activate(member, training=False) as model:
        wanted = [
            head.normalize(
                head(model.base_model(input_ids=torch.tensor([prompt + ids[:n]]))[0][:, -1])
            ).item()
            for ids in tree.responses
            for n in range(len(ids))
        ]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len({round(one, 3) for one in wanted}) == 4  # both responses follow the same prompt


def test_a_critic_refuses_a_reward_model_with_other_settings(trained, tiny, tmp_path):
    record = json.loads((trained / "provenance.json").read_text())
    for change, says in (
        ({"tokenizer": "another"}, r"was trained with another tokenizer or chat template"),
        (
            {"lora": {**record["lora"], "alpha": 7}},
            r"'alpha': 7.* and the critic .*'alpha': 32.*set lora to the former",
        ),
    ):
        other = tmp_path / next(iter(change))
        other.mkdir()
        for file in trained.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        (other / "provenance.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(ModelError, match=says):
            stage(tiny, Pattern("a"), GAE(), critic=Critic(init_from=str(other))).configure_model()
    (other / "head.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"has no head.safetensors, so it is an adapter and not a reward model"
    ):
        stage(tiny, Pattern("a"), GAE(), critic=Critic(init_from=str(other))).configure_model()


def test_roles_leave_each_other_alone(trained, whole, tiny, tmp_path):
    """Base, reference and reward keep every byte while policy and critic learn."""
    module = stage(
        tiny,
        RewardModelScore(str(trained)),
        GAE(),
        max_new_tokens=4,
        init_adapter=str(folder_of(whole / "run") / "adapter"),
    )
    module.configure_model()

    def bytes_of():
        found = {}
        for name, tensor in module.adapters.state_dict().items():
            (who,) = {"policy", "critic", "reference", "trained0"} & {*name.split(".")} or {"base"}
            digest = found.setdefault(who, hashlib.sha256())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
        return {who: digest.hexdigest() for who, digest in found.items()}

    before = bytes_of()
    fit(module, whole, tmp_path, 2)
    after = bytes_of()
    assert {who for who in before if before[who] != after[who]} == {"policy", "critic"}
    assert before.keys() == {"base", "reference", "trained0", "policy", "critic"}
