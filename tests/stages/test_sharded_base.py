"""Processes that divide the base learn what one process with the whole of it does, and exchange checkpoints with it."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerState
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from lit_align.data.datamodules import Comparisons, Demonstrations
from lit_align.errors import ConfigError, ModelError
from lit_align.models.layers import Layer, model_without_weights, read_layers
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.models.sharding import require_shardable
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.orca.stage import CrossModal
from lit_align.rl.stage import RL
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from lit_align.stages.sharded_base import ShardedBase, require_fitting, require_sharding
from lit_align.stages.structure_checks import check_structure
from tests.processes import Trace, make_trainer, run_processes
from tests.stages.runs import write_chats, write_pairs

STEPS = 4
RESUMED = ((1, 2), (2, 1), (2, 4))
"""Numbers of processes before a checkpoint, and after it."""
CASES = {  # stage, quantization, gradient checkpointing
    "sft": (SFT, "none", True),
    "sft-nf4": (SFT, "nf4", False),
    "dpo": (Preference, "none", False),
    "dpo-nf4": (Preference, "nf4", True),
    "dpo-started": (Preference, "none", False),  # from an adapter, of which the reference is a copy
}


def make(name, tiny, folder):
    stage, quantization, checkpointing = CASES[name]
    objective = CrossEntropy() if stage is SFT else DPO(beta=0.5)
    module = stage(
        objective,
        base=Base(str(tiny), quantization=quantization, dtype="float32"),
        lora=Lora(r=4, alpha=8),
        # with the usual eps, Adam makes a step of the rounding where a gradient is zero but for that
        optimizer=partial(torch.optim.AdamW, lr=0.01, eps=1e-3),
        gradient_checkpointing=checkpointing,
        max_grad_norm=0.5,
        init_adapter=str(folder / "adapter") if name == "dpo-started" else None,
    )
    kind = Demonstrations if stage is SFT else Comparisons
    rows = str(folder / ("chats.jsonl" if stage is SFT else "pairs.jsonl"))
    # the last step of an epoch has one row, and the others of it have none
    data = kind(rows, rows, batch_size=5, token_budget=140, max_length=128, prepared_cache=None)
    return module, data


def save_random_lora(tiny, folder, **settings):
    """An adapter that changes the model: its second matrix is not zero."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    for name, value in settings.items():
        setattr(lora, name, value)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), lora).save_pretrained(folder)


def fit(name, tiny, folder, world, max_steps, resume=None, save=None):
    """One run; its trace, and what is trained in the end, on each process."""
    module, data = make(name, tiny, folder)
    trace = Trace()
    trainer = make_trainer(
        folder / "runs",
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=[trace],
        log_every_n_steps=1,
        **({"strategy": "sharded_base"} if world > 1 else {}),
    )
    trainer.fit(module, data, ckpt_path=resume)
    if save:
        trainer.save_checkpoint(save)
    weights = {key: value.detach() for key, value in module.trained_parameters().items()}
    return trace.steps, weights, module


def learn(tiny, folder, world):
    """All cases in this process, one of ``world``; then a run that goes on from a half of one."""
    for name in CASES:
        steps, weights, module = fit(name, tiny, folder, world, STEPS)
        shares = [w for w in module.adapters.model.parameters() if isinstance(w, DTensor)]
        numbers = sum(w.to_local().numel() for w in shares), sum(w.numel() for w in shares)
        rank = module.global_rank
        torch.save((steps, weights, numbers), folder / f"{name}.{world}.{rank}.pt")
    fit("dpo-nf4", tiny, folder, world, STEPS // 2, save=folder / f"half.{world}.ckpt")


def resume(tiny, folder, world, saved):
    steps, weights, module = fit(
        "dpo-nf4", tiny, folder, world, STEPS, resume=folder / f"half.{saved}.ckpt"
    )
    torch.save((steps, weights), folder / f"resumed.{saved}.{world}.{module.global_rank}.pt")


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    write_pairs(folder / "pairs.jsonl", rows=11)
    write_chats(folder / "chats.jsonl", rows=11)
    save_random_lora(tiny, folder / "adapter")
    for world in (1, 2):
        run(folder, world, partial(learn, tiny, folder, world))
    for saved, world in RESUMED:
        run(folder, world, partial(resume, tiny, folder, world, saved))
    return folder


def run(folder, world, work):
    output = folder / "output.txt"
    status = run_processes(world, work, output)
    assert status == [0] * world, output.read_text()[-5000:]


def assert_same(expected, weights, steps, own):
    assert own.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(own[key], value, rtol=1e-5, atol=1e-5, msg=key)
    assert len(steps) == len(expected)
    for step, metrics in zip(expected, steps, strict=True):
        assert metrics == pytest.approx(step, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_divided_base_teaches_the_same(learned, name):
    expected, weights, whole = torch.load(learned / f"{name}.1.0.pt")
    assert whole == (0, 0)
    assert len({step["loss"] for step in expected}) == STEPS
    for rank in (0, 1):
        steps, own, (held, all_numbers) = torch.load(learned / f"{name}.2.{rank}.pt")
        assert 0 < held <= all_numbers / 2 * 1.05
        assert_same(expected, weights, steps, own)


@pytest.mark.parametrize(("saved", "world"), RESUMED)
def test_a_checkpoint_loads_on_another_number_of_processes(learned, saved, world):
    expected, weights, _ = torch.load(learned / "dpo-nf4.1.0.pt")
    for rank in range(world):
        steps, own = torch.load(learned / f"resumed.{saved}.{world}.{rank}.pt")
        rest = expected[-len(steps) :]
        assert len(steps) >= STEPS // 2
        assert_same(rest, weights, steps, own)


@pytest.mark.parametrize(
    ("stage", "data", "message"),
    [
        (SimpleNamespace(can_shard_base=False), None, "SimpleNamespace also samples or scores"),
        (SimpleNamespace(can_shard_base=True, cache_reference="x"), None, "cache_reference is set"),
        (
            SimpleNamespace(can_shard_base=True),
            object.__new__(Online),
            "Online samples from the model",
        ),
    ],
)
def test_passes_of_some_processes_alone_are_refused(stage, data, message):
    trainer = SimpleNamespace(strategy=object.__new__(ShardedBase))
    with pytest.raises(ConfigError, match=message):
        require_sharding(stage, trainer, data)


def test_only_training_divides_the_base():
    trainer = SimpleNamespace(strategy=object.__new__(ShardedBase))
    require_fitting("fit", trainer)
    with pytest.raises(ConfigError, match="leave it out to predict, on one process"):
        require_fitting("predict", trainer)


@pytest.fixture
def shared_weight():
    """A weight that is divided, among one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield distribute_tensor(torch.ones(2), init_device_mesh("cpu", (1,)), [Shard(0)])
    dist.destroy_process_group()


def test_a_model_from_before_the_run_is_divided_as_the_run_has_it(shared_weight):
    whole, shared = (
        SimpleNamespace(model=nn.ParameterList([nn.Parameter(weight, requires_grad=False)]))
        for weight in (torch.ones(2), shared_weight)
    )
    ddp, sharded = (
        SimpleNamespace(strategy=object.__new__(strategy), state=TrainerState())
        for strategy in (DDPStrategy, ShardedBase)
    )
    optimizer = partial(torch.optim.SGD, lr=0.1)
    stage = SFT(CrossEntropy(), base=Base("unread"), lora=Lora(r=4, alpha=8), optimizer=optimizer)
    for adapters, trainer in ((whole, None), (shared, None), (whole, ddp), (shared, sharded)):
        stage._adapters, stage._trainer = adapters, trainer
        stage.configure_model()
    stage._adapters, stage._trainer = whole, sharded
    with pytest.raises(ConfigError, match="the base was loaded whole before the run; make a new"):
        stage.configure_model()
    stage._adapters, stage._trainer = shared, ddp
    with pytest.raises(ConfigError, match="divided among processes by an earlier run"):
        stage.configure_model()


def test_stages_that_sample_or_score_do_not_divide_the_base():
    stages = (SFT, Preference, RewardModel, RL, CrossModal)
    assert [stage for stage in stages if stage.can_shard_base] == [SFT, Preference]


def test_a_model_that_cannot_be_divided_is_refused_by_its_structure(tiny):
    config = LlamaConfig.from_pretrained(tiny)
    model = model_without_weights(config)
    layers = read_layers(model)
    require_shardable(model, layers, "tiny")
    for stored, name in (
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "8 bits"),
        ({"quant_method": "fp8"}, "fp8"),
    ):
        model.config.quantization_config = stored
        with pytest.raises(ModelError, match=f"'tiny' is stored in {name}, whose scales"):
            require_shardable(model, layers, "tiny")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    require_shardable(model, layers, "tiny")
    experts = [*layers, Layer("layers.0.experts.up", "experts", (4, 8, 8), in_module=False)]
    with pytest.raises(ModelError, match="'tiny' has stacked weights of experts"):
        require_shardable(model, experts, "tiny")
    model.model.layers = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(ModelError, match="'tiny' has no list of decoder layers"):
        require_shardable(model, layers, "tiny")


def test_a_dora_is_refused_before_weights_are_loaded(tiny, tmp_path):
    save_random_lora(tiny, tmp_path, use_dora=True)
    trainer = SimpleNamespace(strategy=object.__new__(ShardedBase))
    check_structure(Base(str(tiny)), str(tmp_path), False, SimpleNamespace(strategy=None))
    with pytest.raises(ModelError, match=r"the adapter in .* is a DoRA, which reads the weights"):
        check_structure(Base(str(tiny)), str(tmp_path), False, trainer)
