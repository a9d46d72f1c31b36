"""On-policy learning where batches are as small as they get, and where a figure could be off by a factor."""

import json
import math
from dataclasses import dataclass
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from lit_align.advantages import masked_whiten
from lit_align.advantages.gae import GAE
from lit_align.advantages.reinforce import Reinforce
from lit_align.cli.main import main
from lit_align.data.datamodules import Prompts
from lit_align.errors import ConfigError, ModelError, TrainingError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.objectives.ppo import PPO
from lit_align.rewards.base import Reward
from lit_align.rewards.last_number import LastNumber
from lit_align.rewards.length import Length
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.pretraining_mix import PretrainingMix, ptx_datamodule
from lit_align.stages.preference import Preference
from lit_align.types import Group, PolicyTokens, Scores, Tree
from tests import tiny as make
from tests.rl.on_policy import OfflineRL, rl_arguments, stage, table, write_prompts
from tests.stages.runs import folder_of, write_chats

TREES = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(6)]


def sampled(module, trees=TREES):
    module.configure_model()
    return module.make_rollouts(trees)


# ---------------------------------------------------------------- as small as it gets


@pytest.mark.parametrize("advantage", [GAE(), Reinforce(whiten=True)])
def test_one_prompt_one_sample_one_token(advantage, tiny, tmp_path):
    """One advantage has no deviation; minibatches are more than there are prompts."""
    settings = {
        "num_generations": 1,
        "max_new_tokens": 1,
        "num_minibatches": 4,
        "whiten_rewards": True,
    }
    module = stage(tiny, Pattern("a"), advantage, **settings)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(
        module, Prompts(str(write_prompts(tmp_path / "prompts.jsonl", rows=1)), batch_size=4)
    )
    assert module.skipped == 0
    assert math.isfinite(trainer.callback_metrics["loss"])


def test_one_value_and_values_that_are_all_alike_whiten_to_nothing():
    """What rounding leaves of 0.3 less the mean of seven times 0.3 is no advantage."""
    for values in (torch.tensor([[5.0]]), torch.full((1, 7), 0.3)):
        there = torch.ones_like(values, dtype=torch.bool)
        torch.testing.assert_close(
            masked_whiten(values, there), torch.zeros_like(values), atol=1e-3, rtol=0
        )
        torch.testing.assert_close(
            masked_whiten(values, there, shift_mean=False), values, atol=1e-3, rtol=0
        )


def test_answers_that_say_nothing(tiny):
    """Every one is the end alone: one token, which is scored and paid like any other."""
    module = stage(
        tiny, Length(max_words=3, min_words=1), GAE(whiten=False), cls=OfflineRL, max_new_tokens=5
    )
    module.configure_model()
    module.adapters.model.generation_config.eos_token_id = list(
        range(module.adapters.model.config.vocab_size)
    )
    now = sampled(module)
    assert now.length.tolist() == [1] * 24
    assert now.ended.all()
    assert now.groups[0].responses[0] == "" or len(now.groups[0].responses[0]) == 1
    torch.testing.assert_close(now.tokens["rewards"][:, 0], now.scores.total)


# ---------------------------------------------------------------- where a factor would hide


def test_a_critic_without_initial_weights_predicts_zero(tiny):
    now = sampled(stage(tiny, Pattern("a"), GAE(), cls=OfflineRL, max_new_tokens=4))
    assert (now.tokens["values"] == 0).all()


@pytest.mark.parametrize("loss_aggregation", ["token", "sequence"])
def test_what_is_logged_of_a_minibatch_is_its_mean(loss_aggregation, tiny):
    """Over tokens, or over responses of their means; the loss is their sum with the weight of each."""
    module = stage(
        tiny,
        Length(max_words=3),
        GAE(),
        cls=OfflineRL,
        max_new_tokens=8,
        loss_aggregation=loss_aggregation,
        critic=Critic(vf_coef=0.3),
        num_minibatches=2,
    )
    module.objective, module.kl = PolicyGradient(), KLControl(0.7, where="loss", estimator="k2")
    module.kl_coefficient = 0.7
    module.configure_model()
    random = torch.Generator().manual_seed(0)
    for parameter in module.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=random) * 0.05
    module.adapters.model.generation_config.eos_token_id = list(range(60))
    now = sampled(module)
    assert len(set(now.length.tolist())) > 1
    for step in module.steps(now):
        (batch,) = step.batches
        loss, sums = module.losses(batch, statistics=True)
        rows = [row for tree in batch.source for row in now.rows(tree)]
        each = {
            "loss/policy": -now.tokens["advantages"] * now.tokens["old_logps"],
            "loss/kl": (now.tokens["old_logps"] - now.tokens["ref_logps"]).square() / 2,
            "loss/value": (now.tokens["values"] - now.tokens["returns"]).square() / 2,
        }
        wanted = {}
        for name, values in each.items():
            parts = [values[row, : now.length[row]] for row in rows]
            wanted[name] = (
                torch.stack([p.mean() for p in parts]).mean()
                if loss_aggregation == "sequence"
                else torch.cat(parts).mean()
            )
        for name, value in wanted.items():
            torch.testing.assert_close(sums[name][0] / sums[name][1], value, rtol=1e-4, atol=1e-5)
        total = wanted["loss/policy"] + 0.7 * wanted["loss/kl"] + 0.3 * wanted["loss/value"]
        torch.testing.assert_close(
            loss / module.loss_denominator(step), total, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("whiten", [True, False])
def test_advantages_are_whitened_over_all_tokens_and_returns_are_not(whiten, tiny):
    """Without a critic's expectations a return is what is still to come, here the score alone."""
    module = stage(
        tiny, Length(max_words=3), GAE(lam=1.0, whiten=whiten), cls=OfflineRL, max_new_tokens=8
    )
    now = sampled(module)
    now.scores = now.scores._replace(total=torch.arange(24.0))
    module.estimate_advantages(now)
    each, returns = now.tokens["advantages"][now.mask], now.tokens["returns"][now.mask]
    torch.testing.assert_close(returns, now.scores.total.repeat_interleave(now.length))
    wanted = (returns - returns.mean()) / returns.std() if whiten else returns
    torch.testing.assert_close(each, wanted, rtol=1e-4, atol=1e-4)


def test_how_far_it_moved_is_seen_from_where_it_sampled(tiny):
    """Every token is twice as likely as when it was drawn: r - 1 - log r is 1 - log 2."""
    module = stage(tiny, Pattern("a"), cls=OfflineRL, max_new_tokens=4)
    now = sampled(module)
    now.tokens["old_logps"] -= math.log(2) * now.mask
    (step,) = module.steps(now)
    _, sums = module.losses(step.batches[0], statistics=True)
    found = {name: (total / n).item() for name, (total, n) in sums.items()}
    assert found["policy/ratio"] == pytest.approx(2, abs=1e-4)
    assert found["policy/approxkl"] == pytest.approx(1 - math.log(2), abs=1e-4)
    assert found["policy/clipfrac"] == 1


def test_minibatches_are_other_ones_in_each_pass(tiny):
    module = stage(
        tiny, Pattern("a"), cls=OfflineRL, max_new_tokens=2, num_iterations=3, num_minibatches=3
    )
    now = sampled(module)
    passes = [
        [id(tree) for batch in step.batches for tree in batch.source] for step in module.steps(now)
    ]
    assert len(passes) == 9
    orders = [tuple(one for part in passes[k : k + 3] for one in part) for k in (0, 3, 6)]
    assert all(sorted(order) == sorted(map(id, now.trees)) for order in orders)
    assert len({tuple(map(frozenset, (order[:2], order[2:4], order[4:]))) for order in orders}) == 3


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (PPO(), [True, True, False]),
        (PPO(clip_high=0.5), [False, True, False]),
        (PPO(ratio="sequence", clip=0.1), [False, False, False]),
        (PolicyGradient(), [False, False, False]),
    ],
)
def test_what_counts_as_clipped_is_what_the_loss_clips(objective, wanted):
    """Ratios 1.4, 0.7 and 1 in one response; their geometric mean is 0.993."""
    old = torch.zeros(3)
    tokens = PolicyTokens(
        torch.tensor([1.4, 0.7, 1.0]).log(), old, old, torch.zeros(3, dtype=torch.long)
    )
    assert objective.clip_mask(tokens).tolist() == wanted


def test_a_critics_gradient_does_not_shrink_the_policys(tiny):
    """Both are scaled down to the same norm, each for itself."""
    module = stage(tiny, Pattern("a"), GAE(), cls=OfflineRL, max_new_tokens=4)
    module.configure_model()
    policy, critic = module.clipping_groups()
    assert {id(p) for p in policy + critic} == {id(p) for p in module.adapters.trainable().values()}
    heads = [id(p) for p in module.adapters.head("critic").parameters()]
    assert {*heads} < {id(p) for p in critic}
    assert len(policy) + 2 == len(critic)


def test_any_schedule_moves_the_critics_rate_too(tiny):
    """A LambdaLR has a base rate for each group that it saw when it was made."""
    module = stage(
        tiny, Pattern("a"), GAE(), critic=Critic(lr=1e-2), optimizer=partial(torch.optim.AdamW, lr=1e-3),
        lr_scheduler=partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda n: 1 / (1 + n)),
    )  # fmt: skip
    module.configure_model()
    made = module.configure_optimizers()
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()
    assert [group["lr"] for group in made["optimizer"].param_groups] == [
        pytest.approx(5e-4),
        pytest.approx(5e-3),
    ]


def test_dropout_that_is_a_number_is_off_too(tmp_path):
    """OPT keeps its dropout as a number in every layer."""
    tokenizer = make.tokenizer()
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    }
    config = OPTConfig(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, dropout=0.5, **sizes
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    module = stage(tmp_path, Pattern("a"), cls=OfflineRL, max_new_tokens=6)
    module.configure_model()
    module.adapters.peft.train()
    now = sampled(module)
    (step,) = module.steps(now)
    _, sums = module.losses(step.batches[0], statistics=True)
    assert sums["policy/approxkl"][0].item() == pytest.approx(0, abs=1e-8)


# ---------------------------------------------------------------- rewards


@dataclass(frozen=True)
class One(Reward):
    """A score for all responses together, or not a number."""

    score: float = 0.5

    def __call__(self, groups):
        return Scores(torch.tensor([self.score]), {"odd": torch.tensor([self.score])})


def test_a_part_of_a_sum_that_is_broken_is_named():
    """One score would be given to all three, and not a number would be blamed on the sum, weight 0 or not."""
    groups = [Group("", ["a", "b", "c"])]
    with pytest.raises(ModelError, match=r"^One\(score=0.5\) gave \[1\] scores for 3 responses"):
        Weighted([Pattern("a"), One()], [1.0, 1.0])(groups)
    with pytest.raises(ModelError, match=r"^One\(score=nan\) gave nan to 'a'"):
        Weighted([Pattern("a"), One(math.nan)], [1.0, 0.0])([Group("", ["a"])])


def test_parts_of_two_rewards_of_a_kind_are_both_told():
    parts = Weighted([One(0.5), One(2.0)], [1.0, 1.0])([Group("", ["a"])]).parts
    assert {name: value.item() for name, value in parts.items()} == {
        "One": 0.5,
        "odd": 0.5,
        "One1": 2.0,
        "odd1": 2.0,
    }


@pytest.mark.parametrize(
    ("said", "right"), [("10-7", 1), ("-7", 0), ("3 to -7", 0), ("x=7", 1), ("5-7.", 1)]
)
def test_a_dash_between_numbers_is_no_sign(said, right):
    assert LastNumber()([Group("", [said], extra={"answer": "7"})]).total.item() == right


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"where": "loss"},
            r"kl.estimator is k1, whose gradient as a loss is zero on average.* set it to k2",
        ),
        ({"target": 0.0}, r"kl.target is 0.0, kl.coefficient 0.05 .* all must be positive"),
        ({"target": 6.0, "coefficient": 0.0}, r"kl.target is 6.0, kl.coefficient 0.0 "),
    ],
)
def test_a_kl_penalty_that_does_nothing_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        KLControl(**settings)


@pytest.mark.parametrize("name", ["max_new_tokens", "reward_clip", "target_kl", "overlong_buffer"])
def test_limits_that_would_mislead_are_refused(name, tiny):
    with pytest.raises(ConfigError, match=rf"{name} must be positive, got -1"):
        stage(tiny, Pattern("a"), **{name: -1})


def test_a_policy_objective_belongs_to_rl(tiny):
    with pytest.raises(
        ConfigError, match=r"PPO learns from rewards of sampled responses; use the stage RL"
    ):
        Preference(PPO(), base=Base(str(tiny)), lora=Lora())


def test_prompts_that_leave_no_room_are_refused_before_anything_is_loaded(tiny, tmp_path, capsys):
    """The tiny model has 512 positions."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    longest = max(len(json.loads(line)["prompt"][0]["content"]) for line in prompts.open())
    assert longest > 20
    words = rl_arguments(tiny, prompts, tmp_path / "run", "--model.max_new_tokens=490")
    for command in ("fit", "inspect"):
        given = [
            word
            for word in words
            if word != "fit" and not (command == "inspect" and "save_every" in word)
        ]
        with pytest.raises(SystemExit):
            main([command, *given])
        said = capsys.readouterr().err
        assert "and max_new_tokens 490 need " in said
        assert "positions, and the model has 512; lower max_new_tokens, or data.max_length" in said
        assert "Loading weights" not in said


def test_running_out_of_memory_while_sampling_names_what_would_help(tiny, monkeypatch):
    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lit_align.models.samplers.in_process.sample", no_room)
    module = stage(tiny, Pattern("a"), cls=OfflineRL, num_generations=3, max_new_tokens=7)
    module.configure_model()
    with pytest.raises(
        TrainingError,
        match=r"while 3 responses of up to 7 tokens were sampled at once; lower data.batch",
    ):
        module.make_rollouts(TREES)


# ---------------------------------------------------------------- what is left behind


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """Two iterations, demonstrations beside them, a target for the KL, and validation."""
    at = tmp_path_factory.mktemp("edges")
    prompts, chats = write_prompts(at / "prompts.jsonl"), write_chats(at / "chats.jsonl")
    more = (f"--data.validation={prompts}", f"--model.ptx.data={chats}", "--trainer.max_steps=2")
    words = rl_arguments(tiny, prompts, at / "run", *more, "--trainer.val_check_interval=1")
    return at, words


def test_where_everything_lies_is_said_and_validation_has_no_gaps(run, capsys):
    at, words = run
    main(words)
    said = capsys.readouterr().out
    folder = folder_of(at / "run")
    (line,) = [one for one in said.splitlines() if one.startswith(f"In {folder} are also")]
    for name in line.partition("are also ")[2].rstrip(".").replace(" and ", ", ").split(", "):
        assert (folder / name).exists(), name
    assert "samples.jsonl" in line
    assert "reward_kl.png" in line
    header, *rows = [one.split(",") for one in (folder / "metrics.csv").read_text().splitlines()]
    found = {name: value for row in rows for name, value in zip(header, row, strict=True) if value}
    assert {name: value for name, value in found.items() if value == "nan"} == {}
    assert {"eval_objective/scores", "eval_objective/kl"} < found.keys()
    tokens = [float(length) for (length,) in table(at / "run", "objective/length")]
    counted = [float(count) for (count,) in table(at / "run", "num_tokens")]
    assert counted == pytest.approx([16 * tokens[0], 16 * sum(tokens)])


def test_inspect_shows_the_demonstrations_too(run, capsys):
    _, words = run
    main(["inspect", *(word for word in words if word != "fit" and "save_every" not in word)])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("are trained on, the others are context:") == 2
    assert "chats.jsonl:1" in said
    assert "prompts.jsonl:1" in said


def test_demonstrations_are_cut_as_prompts_are(tmp_path):
    data = Prompts(
        "prompts.jsonl", overlong="truncate", max_length=77, max_malformed=0.5, token_budget=99
    )
    shown = ptx_datamodule(PretrainingMix("chats.jsonl", batch_size=3), data)
    assert [
        getattr(shown, name) for name in ("overlong", "max_length", "max_malformed", "token_budget")
    ] == (["truncate", 77, 0.5, 99])
    assert (shown.batch_size, shown.paths) == (3, {"ptx": ["chats.jsonl"]})


def test_demonstrations_are_read_as_prompts_are():
    settings = {
        "columns": {"messages": "turns"},
        "ignore_columns": ["score"],
        "special_tokens_in_text": "set_aside",
    }
    demonstrations = ptx_datamodule(
        PretrainingMix("chats.jsonl"), Prompts("prompts.jsonl", **settings)
    )
    assert {name: getattr(demonstrations, name) for name in settings} == settings
    mix = PretrainingMix("chats.jsonl", columns={})
    assert ptx_datamodule(mix, Prompts("prompts.jsonl", **settings)).columns == {}
