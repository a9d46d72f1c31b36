"""A step is one step, however it is cut up; the reference is the start; the base never moves."""

import hashlib

import pytest
import torch

from lit_align.data.packing import pack
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.reference_cache import ReferenceCache
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from lit_align.types import Group, Pair, Step, Tree


def trees(count: int, responses: int = 2, seed: int = 0) -> list[Tree]:
    """Random trees of ragged lengths; the first response is better than each other one."""
    draw = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        n = int(torch.randint(low, high, (1,), generator=draw))
        return torch.randint(5, 250, (n,), generator=draw).tolist()

    made = []
    for _ in range(count):
        branches = [ids(2, 12) for _ in range(responses)]
        pairs = tuple(Pair(0, k, 0.9 if k % 2 else 1.0) for k in range(1, responses))
        group = Group("", [""] * responses, pairs)
        made.append(Tree(ids(3, 15), branches, [[True] * len(b) for b in branches], group))
    return made


def step(rows: list[Tree], budget: int) -> Step:
    return Step.from_batches(tuple(pack(rows, budget)))


def stage(cls, objective, tiny, **settings):
    made = cls(objective, base=Base(str(tiny), "none", "float32"), lora=Lora(r=4), **settings)
    made.configure_model()
    for (
        parameter
    ) in made.adapters.trainable().values():  # both halves of an adapter, so that it does something
        torch.nn.init.normal_(
            parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel())
        )
    made.adapters.peft.train()
    return made


def gradient(module, one: Step) -> tuple[float, torch.Tensor]:
    total = 0.0
    for batch in one.batches:
        loss, _ = module.losses(batch, statistics=False)
        (loss / module.loss_denominator(one)).backward()
        total += loss.item() / module.loss_denominator(one)
    flat = torch.cat([p.grad.flatten() for p in module.adapters.trainable().values()])
    module.zero_grad()
    return total, flat


@pytest.mark.parametrize(
    ("cls", "objective"), [(Preference, DPO()), (Preference, IPO(beta=0.5)), (SFT, CrossEntropy())]
)
def test_micro_batches_change_neither_loss_nor_gradient(cls, objective, tiny):
    module = stage(cls, objective, tiny).double()  # so that what is left is not rounding
    rows = trees(12, responses=3)
    whole, parts = step(rows, 10_000), step(rows, max(tree.tokens for tree in rows))
    assert len(whole.batches) == 1
    assert len(parts.batches) >= 4
    (loss, grad), (loss_, grad_) = gradient(module, whole), gradient(module, parts)
    assert loss_ == pytest.approx(loss, rel=1e-9)
    assert torch.dist(grad, grad_) / grad.norm() < 1e-9


def test_a_soft_label_is_the_mean_of_both_orders(tiny):
    module = stage(Preference, DPO(), tiny)
    (tree,) = trees(1)

    def loss(*pair):
        one = tree._replace(group=tree.group._replace(pairs=(Pair(*pair),)))
        return module.losses(pack([one], 100)[0], statistics=False)[0].item()

    assert loss(0, 1, 0.7) == pytest.approx(0.7 * loss(0, 1) + 0.3 * loss(1, 0), rel=1e-5)
    module.label_noise = 0.1  # a label that is right with 0.7 and is then flipped with 0.1
    assert loss(0, 1, 0.7) == pytest.approx(
        0.66 * _clean(module, loss, 0, 1) + 0.34 * _clean(module, loss, 1, 0), rel=1e-5
    )


def _clean(module, loss, *pair):
    noise, module.label_noise = module.label_noise, 0.0
    value = loss(*pair)
    module.label_noise = noise
    return value


def test_before_the_first_step_the_divergence_is_exactly_zero(tiny):
    module = Preference(DPO(), base=Base(str(tiny), "none", "float32"), lora=Lora(r=4))
    module.configure_model()
    batch = pack(trees(6), 10_000)[0]
    logps = module.logps(batch, module.tree_forward(batch.trees))
    assert torch.equal(logps.policy, logps.reference)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_training_leaves_the_base_as_it_was(quantization, tiny):
    module = Preference(DPO(), base=Base(str(tiny), quantization, "float32"), lora=Lora(r=4))
    module.configure_model()
    module.adapters.peft.train()

    def digest() -> str:
        frozen = (p for p in module.adapters.parameters() if not p.requires_grad)
        return hashlib.sha256(
            b"".join(p.detach().contiguous().view(torch.uint8).numpy().tobytes() for p in frozen)
        ).hexdigest()

    before, one = digest(), step(trees(4), 10_000)
    optimizer = torch.optim.AdamW(module.adapters.trainable().values(), lr=0.1)
    losses = []
    for _ in range(3):
        loss, _ = module.losses(one.batches[0], statistics=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert digest() == before


def test_cached_reference_is_the_computed_one(tiny, tmp_path):
    one = step(trees(5, responses=3), 60)
    plain = stage(Preference, DPO(), tiny)
    expected = gradient(plain, one)
    for attempt in range(2):  # the second time from the disk
        module = stage(Preference, DPO(), tiny, cache_reference=str(tmp_path))
        if attempt:
            module._score = None  # it must not be asked for
        loss, grad = gradient(module, one)
        assert loss == expected[0]
        assert torch.equal(grad, expected[1])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "left", ['{"tokens": "half', '{"tokens": "x", "logps": [-1.0]}', '{"tokens": "x", "logps": [-']
)
def test_a_line_that_two_runs_wrote_into_is_computed_again(left, tmp_path):
    known, *_ = three = trees(3)
    one = ReferenceCache(tmp_path, "name")
    one.get_or_compute([known], lambda: torch.tensor([-1.0, -2.0]))
    with one.path.open("a") as file:  # of a run that dies there, while this one goes on
        file.write(left)
    one.get_or_compute(three[1:2], lambda: torch.tensor([-3.0, -4.0]))
    one.get_or_compute(three[2:], lambda: torch.tensor([-5.0, -6.0]))
    again = ReferenceCache(tmp_path, "name")
    assert again.get_or_compute([known], None).tolist() == [-1.0, -2.0]
    assert again.get_or_compute(three[2:], None).tolist() == [-5.0, -6.0]
    assert again.get_or_compute(three[1:2], lambda: torch.tensor([-3.0, -4.0])).tolist() == [
        -3.0,
        -4.0,
    ]
    assert len(again) == 3


@pytest.mark.parametrize("line", ["[]", "1", "{}", '{"tokens": 1]}', "\0\0"])
def test_a_broken_line_costs_only_itself(line, tmp_path):
    (tmp_path / "name.0.jsonl").write_text(f'{line}\n{{"tokens": "x", "logps": [-1.0]}}\n')
    assert len(ReferenceCache(tmp_path, "name")) == 1


def test_another_adapter_has_another_cache(tiny, tmp_path):
    one = step(trees(5), 10_000)
    plain = stage(Preference, DPO(), tiny)
    save_adapter(plain.adapters, tmp_path / "sft")
    for init_adapter in (None, str(tmp_path / "sft")):
        module = stage(
            Preference,
            DPO(),
            tiny,
            cache_reference=str(tmp_path / "cache"),
            init_adapter=init_adapter,
        )
        gradient(module, one)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("cls", "objective"),
    [(Preference, DPO()), (RewardModel, BradleyTerry()), (SFT, CrossEntropy())],
)
def test_padding_to_few_shapes_changes_neither_loss_nor_gradient(cls, objective, tiny):
    module = stage(cls, objective, tiny)
    rows = trees(7, responses=3)
    tight = Step.from_batches(tuple(pack(rows, 128, dense=True)))
    padded = Step.from_batches(tuple(pack(rows, 128, dense=True, few_shapes=True)))
    assert {batch.trees.input_ids.shape for batch in padded.batches} <= {
        (1, 64),
        (2, 64),
        (1, 128),
        (1, 96),
    }
    (loss, grad), (loss_, grad_) = gradient(module, tight), gradient(module, padded)
    assert loss_ == pytest.approx(loss, rel=1e-6)
    assert torch.dist(grad, grad_) < 2e-6 * grad.norm()
