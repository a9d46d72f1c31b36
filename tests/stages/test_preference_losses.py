"""The stage Preference with every family of objectives: thumbs, rankings, losses over whole batches and over tokens."""

import json

import pytest
import torch

from lit_align.batch_labels import PairLabels, RankLabels
from lit_align.cli.main import main
from lit_align.data.kto_mismatched import add_mismatched_responses
from lit_align.data.packing import pack
from lit_align.errors import ConfigError, DataError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives import Logps
from lit_align.objectives.bco import BCO
from lit_align.objectives.dpo import DPO
from lit_align.objectives.kto import KTO
from lit_align.objectives.kto_pair import KTOPair
from lit_align.objectives.mix import Mix
from lit_align.objectives.plackett_luce_dpo import PlackettLuceDPO
from lit_align.objectives.slic import SLiC
from lit_align.rewards.teacher_model import TeacherModel
from lit_align.stages.kto_baseline import RunningBaseline
from lit_align.stages.preference import Preference
from lit_align.stages.preference_losses import pairwise_losses, ranked_losses
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from lit_align.types import Group, Pair, Step, Tree
from tests import objective_registry
from tests.stages.runs import arguments, folder_of, trace, write_pairs
from tests.stages.test_exact import gradient, stage, trees

GROUPS = {
    "pairs": Group("", [""] * 3, pairs=(Pair(0, 1), Pair(2, 1)), target=2),
    "desirable": Group("", [""] * 3, desirable=(True, False, True)),
    "ranking": Group("", [""] * 3, ranking=(2, 1, 3)),
    "ratings": Group(
        "",
        [""] * 3,
        ratings=({"helpfulness": 3.0, "brevity": 1.0}, {"brevity": 2.0}, {"helpfulness": 5.0}),
    ),
    "demonstrations": Group("", [""] * 3),
}


def labelled(label_kind: str, count: int = 6, groups=GROUPS) -> list[Tree]:
    """Random trees of three responses with the label that an objective takes."""
    made = [tree._replace(group=groups[label_kind]) for tree in trees(count, responses=3)]
    return add_mismatched_responses(made, 100) if label_kind == "desirable" else made


def step(rows: list[Tree], budget: int = 10_000) -> Step:
    return Step.from_batches(tuple(pack(rows, budget)))


ELSEWHERE = {"prompts": "tests/rl", "steps": "test_process_reward_model.py"}
OFF_LINE = sorted(
    name for name, cls in objective_registry.classes().items() if cls.label_kind not in ELSEWHERE
)


@pytest.mark.parametrize("name", OFF_LINE)
def test_every_objective_trains(name, tiny):
    """Two steps on one batch: finite, and the loss of that batch gets smaller."""
    objective = objective_registry.build(objective_registry.settings(name))
    kind = (
        SFT
        if objective.label_kind == "demonstrations"
        else RewardModel
        if objective.for_reward_model
        else Preference
    )
    source = objective.divergence_from if kind is SFT else None
    teacher = TeacherModel(base=Base(str(tiny), "none", "float32"))
    settings = {"teacher": teacher} if source and source.role == "teacher" else {}
    module = stage(kind, objective, tiny, **settings)
    one, losses = step(labelled(objective.label_kind)), []
    optimizer = torch.optim.SGD(module.adapters.trainable().values(), lr=1e-4)
    for _ in range(3):
        loss, sums = module.losses(one.batches[0], statistics=True)
        (loss / module.loss_denominator(one)).backward()
        torch.nn.utils.clip_grad_norm_(module.adapters.trainable().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        assert set(sums) <= {"loss", *module.metric_names}
    assert all(torch.tensor(losses).isfinite())
    assert (
        losses[2] < losses[0] or objective.has_stop_gradient_weight
    )  # a weight without gradient may grow faster than the rest falls
    assert losses[2] != losses[0]


@pytest.mark.parametrize(
    "objective", [KTO(), PlackettLuceDPO(), Mix([DPO(), *()], [1.0])], ids=repr
)
def test_micro_batches_change_neither_loss_nor_gradient(objective, tiny):
    module = stage(Preference, objective, tiny).double()
    module.baseline.add({"kl": (3.0, 2.0)})
    rows = labelled(objective.label_kind, 9)
    whole, parts = step(rows), step(rows, max(tree.tokens for tree in rows))
    assert len(whole.batches) == 1
    assert len(parts.batches) >= 4
    (loss, grad), (loss_, grad_) = gradient(module, whole), gradient(module, parts)
    assert loss_ == pytest.approx(loss, rel=1e-9)
    assert torch.dist(grad, grad_) / grad.norm() < 1e-9


def test_the_divergence_is_measured_on_responses_to_other_prompts(tiny):
    """And they are read only: the gradient is that of the trees without them."""
    module = stage(Preference, KTO(), tiny).double()
    with_them, judged = labelled("desirable"), labelled("desirable")
    bare = [
        tree._replace(responses=tree.responses[:3], scored=tree.scored[:3], mismatched=0)
        for tree in judged
    ]
    (_, sums) = module.losses(step(with_them).batches[0], statistics=False)
    borrowed = [
        Tree(t.prompt, t.responses[3:], t.scored[3:], Group("", [""], desirable=(True,)))
        for t in with_them
    ]
    batch = step(borrowed).batches[0]
    logps = module.logps(batch, module.tree_forward(batch.trees))
    torch.testing.assert_close(sums["kl"][0], (logps.policy - logps.reference).sum())
    assert sums["kl"][1] == len(with_them)
    (loss, grad), (loss_, grad_) = gradient(module, step(with_them)), gradient(module, step(bare))
    assert loss == pytest.approx(loss_, rel=1e-9)
    assert torch.dist(grad, grad_) / grad.norm() < 1e-9


def test_a_mismatched_response_never_answers_the_same_prompt():
    """Also where the same prompt stands in rows next to each other, at the end of the file included."""
    rows = [
        Tree([k], [[10 + i]], [[True]], Group("", [""]))
        for i, k in enumerate([1, 1, 2, 3, 3, 3, 1])
    ]
    of = {10 + i: tree.prompt for i, tree in enumerate(rows)}
    for tree in add_mismatched_responses(rows, 9):
        assert of[tree.responses[1][0]] != tree.prompt
    with pytest.raises(DataError, match="every row has the same prompt"):
        add_mismatched_responses(rows[:2], 9)
    assert [tree.tokens for tree in add_mismatched_responses(rows, 1)] == [
        2
    ] * 7  # no room for another


def test_the_running_baseline_forgets_whole_steps():
    running = RunningBaseline(size=4)
    assert running() == 0
    for k, n in enumerate((4, 1, 2, 2)):
        running.add({"kl": (float(n * k), float(n))})
    assert running() == pytest.approx((2 * 2 + 3 * 2) / 4)  # the newest two steps hold four
    running = RunningBaseline(size=1)
    running.add({"kl": (-8.0, 2.0)})
    assert running() == 0  # a divergence is not below 0
    running = RunningBaseline(size=1)
    running.add({"rewards/chosen": (6.0, 2.0), "rewards/rejected": (-8.0, 8.0)})
    assert running() == 1.0  # half way between 3 and -1, however many there are of each


def test_a_kto_run_resumes_bit_for_bit(tiny, tmp_path):
    """One group a step and shuffled, so that all of the baseline comes from earlier steps."""
    train = write_pairs(tmp_path / "pairs.jsonl", 8)
    more = ("--data.batch_size=1", "--save_every=3", "--model.baseline_size=5")
    args = [
        "--data=BinaryLabels"
        if a == "--data=Comparisons"
        else a.replace("objective=DPO", "objective=KTO")
        for a in arguments(tiny, train, tmp_path / "run", *more)
    ]
    main(args)
    whole = trace(tmp_path / "run")
    stopped = [a.replace(str(tmp_path / "run"), str(tmp_path / "half")) for a in args]
    main([*stopped, "--trainer.max_steps=5"])
    first, last = (
        trace(tmp_path / "half"),
        folder_of(tmp_path / "half") / "checkpoints" / "last.ckpt",
    )
    assert len(torch.load(last, weights_only=True)["baseline"]) > 1
    main([*stopped, f"--ckpt_path={last}"])
    assert {**first, **trace(tmp_path / "half")} == whole
    metrics = json.loads((folder_of(tmp_path / "run") / "summary.json").read_text())["metrics"]
    assert {"kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen"} <= set(
        metrics
    )


def test_a_loss_over_the_batch_refuses_a_step_in_parts(tiny, tmp_path, capsys):
    train = write_pairs(tmp_path / "pairs.jsonl", 8)
    args = [
        a.replace("objective=DPO", "objective=KTOPair")
        for a in arguments(tiny, train, tmp_path / "run")
    ]
    with pytest.raises(SystemExit):
        main([*args, "--data.token_budget=110"])
    assert "KTOPair looks at all items of a step together" in capsys.readouterr().err
    main([*args, "--data.token_budget=2000", "--trainer.max_steps=1"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": KTOPair(), "label_noise": 0.1}, "KTOPair has no loss for a flipped label"),
        (
            {"objective": PlackettLuceDPO(), "label_noise": 0.1},
            "PlackettLuceDPO has no loss for a flipped label",
        ),
        (
            {
                "objective": objective_registry.build({"class_path": "LDDPO"}),
                "cache_reference": "x",
            },
            "LDDPO reads tokens",
        ),
        (
            {"objective": objective_registry.build({"class_path": "DFT"})},
            "DFT learns from demonstrations; use the stage SFT",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        Preference(**settings, base=Base("nowhere"), lora=Lora())


@pytest.mark.parametrize(
    ("policy", "accuracy"), [([-10.0, -10.0], 0.5), ([-9.0, -10.0], 1.0), ([-11.0, -10.0], 0.0)]
)
def test_a_tie_counts_one_half_in_the_accuracy(policy, accuracy):
    """Before the first step of DPO every margin is 0, and the accuracy is that of a coin."""
    logps = Logps.from_lists(policy=policy, reference=[-10.0, -10.0])
    first, second = torch.tensor([0]), torch.tensor([1])
    pairs = PairLabels(first, second, torch.ones(1), torch.zeros(1), torch.zeros(1))
    ranking = RankLabels(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
    for result in (
        pairwise_losses(DPO(), pairs, logps, label_noise=0.0),
        ranked_losses(PlackettLuceDPO(), ranking, logps),
    ):
        total, count = result.sums["rewards/accuracies"]
        assert total / count == accuracy


def test_a_flipped_thumb_costs_the_other_loss(tiny):
    rows = labelled("desirable")
    flipped = Group("", [""] * 3, desirable=(False, True, False))
    module = stage(Preference, BCO(), tiny)
    clean, other = (
        module.losses(step(made).batches[0], statistics=False)[0].item()
        for made in (rows, [tree._replace(group=flipped) for tree in rows])
    )
    module.label_noise = 0.3
    noisy, _ = module.losses(step(rows).batches[0], statistics=False)
    assert noisy.item() == pytest.approx(0.7 * clean + 0.3 * other, rel=1e-5)


def test_a_row_without_the_target_it_is_held_to_is_named(tiny):
    module = stage(Preference, SLiC(regularize_on="target"), tiny)
    lacking = trees(1)[0]
    lacking = lacking._replace(group=lacking.group._replace(source="b.jsonl:3"))
    with pytest.raises(DataError, match=r"b.jsonl:3 has no reference answer"):
        module.losses(
            step(
                [t._replace(group=t.group._replace(source="b.jsonl:3")) for t in trees(1)]
            ).batches[0],
            False,
        )
