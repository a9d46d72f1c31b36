"""Supervised objectives that read entropy or a divergence, against all logits of one row at a time."""

import json
import shutil

import pytest
import torch

from lit_align import load
from lit_align.cli.main import main
from lit_align.errors import ConfigError, ModelError
from lit_align.functional.divergence import generalized_jsd
from lit_align.models.adapter_files import save_adapter
from lit_align.models.load import Base
from lit_align.objectives.asft import ASFT
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dft import DFT
from lit_align.objectives.distillation import Distillation
from lit_align.objectives.dpo import DPO
from lit_align.objectives.eaft import EAFT, FULL_ENTROPY
from lit_align.objectives.mix import Mix
from lit_align.rewards.teacher_model import TeacherModel
from lit_align.stages.sft import SFT
from tests import tiny as tiny_models
from tests.stages.runs import arguments, folder_of
from tests.stages.test_exact import gradient, stage, step, trees


def rows_of(module, role, made):
    """Log-probabilities of all entries before each response token, and the tokens."""
    every, ids = [], []
    with module.adapters.activate(role, training=False) as model:
        for tree in made:
            for response in tree.responses:
                row = torch.tensor([[*tree.prompt, *response]])
                logits = model(input_ids=row).logits[0, len(tree.prompt) - 1 : -1]
                every.append(logits.log_softmax(-1))
                ids.append(torch.tensor(response))
    return torch.cat(every), torch.cat(ids)


def expected(module, made, objective, other=None):
    """Loss of all tokens."""
    own, ids = rows_of(module, "policy", made)
    logps = own.gather(1, ids[:, None])[:, 0]
    entropy = -(own.exp() * own).sum(1).detach()
    match objective:
        case EAFT(alpha=alpha):
            losses = -((entropy / FULL_ENTROPY).clamp(max=1) ** alpha) * logps
        case ASFT(weight=weight, beta=beta):
            anchor = rows_of(module, "reference", made)[0].detach()
            losses = DFT()(logps) + weight * generalized_jsd(own, anchor, beta)
        case Distillation(beta=beta, weight=weight):
            divergence = generalized_jsd(own, other, beta)
            losses = weight * divergence - (1 - weight) * logps
    return losses.mean()


@pytest.mark.parametrize("objective", [EAFT(0.5), EAFT(2.0), ASFT(0.3), ASFT(0.3, beta=0.5)])
def test_loss_and_gradient_are_those_of_all_logits(objective, tiny):
    module, made = stage(SFT, objective, tiny).double(), trees(4, responses=2)
    compare(module, made, expected(module, made, objective))


def compare(module, made, right):
    loss, found = gradient(module, step(made, 10_000))
    assert loss == pytest.approx(right.item(), rel=1e-9)
    weights = module.adapters.trainable().values()
    wanted = torch.cat([grad.flatten() for grad in torch.autograd.grad(right, list(weights))])
    assert wanted.norm() > 1e-3
    assert torch.dist(found, wanted) / wanted.norm() < 1e-6
    parts = step(made, max(tree.tokens for tree in made))
    assert len(parts.batches) > 1
    again, cut = gradient(module, parts)
    assert again == pytest.approx(loss, rel=1e-9)
    assert torch.dist(cut, found) / wanted.norm() < 1e-6


@pytest.mark.parametrize("objective", [Distillation(0.0), Distillation(0.5, weight=0.7)])
def test_an_adapter_on_the_same_base_teaches(objective, tiny, tmp_path):
    taught = stage(SFT, CrossEntropy(), tiny)
    save_adapter(taught.adapters, tmp_path / "teacher")
    module = stage(SFT, objective, tiny, teacher=TeacherModel(str(tmp_path / "teacher")), seed=5)
    made, module = trees(4), module.double()
    for weight in module.adapters.trainable().values():
        weight.data *= -0.5
    module.load_teacher().adapters.double()
    other = rows_of(module, "teacher", made)[0].detach()
    compare(module, made, expected(module, made, objective, other))


def test_another_base_teaches(tiny, tmp_path):
    other = tiny_models.save(tmp_path, seed=3)
    teacher = TeacherModel(base=Base(str(other), "none", "float32"))
    objective = Distillation(0.5)
    module, made = stage(SFT, objective, tiny, teacher=teacher).double(), trees(4)
    module.load_teacher().adapters.double()
    right, _ = rows_of(stage(SFT, CrossEntropy(), other).double(), "reference", made)
    compare(module, made, expected(module, made, objective, right.detach()))


@pytest.mark.parametrize(
    ("objective", "teacher", "says"),
    [
        (Distillation(), None, "Distillation learns from a teacher, and there is none"),
        (ASFT(), TeacherModel("x"), "ASFT does not learn from it; set objective to Distillation"),
    ],
)
def test_a_teacher_without_a_pupil_is_refused(objective, teacher, says, tiny):
    with pytest.raises(ConfigError, match=says):
        stage(SFT, objective, tiny, teacher=teacher)


@pytest.mark.parametrize("part", [EAFT(), ASFT(), Distillation()])
def test_comparisons_have_no_entropy_and_no_teacher(part):
    with pytest.raises(ConfigError, match=f"{type(part).__name__} reads entropy or a divergence"):
        Mix([DPO(), part], [1.0, 0.5])


def distil(tiny, folder, teacher):
    """A distilled run of one step."""
    rows = folder / "rows.jsonl"
    row = {"prompt": "What is it?", "completion": "An owl, and a bat. " * 3}
    rows.write_text(json.dumps(row) + "\n")
    usual = arguments(tiny, rows, folder / "run", "--trainer.max_steps=1", stage="SFT")
    place = usual.index("--model.objective=CrossEntropy")
    usual[place : place + 1] = [
        "--model.objective=Distillation",
        f"--model.teacher.base.path={teacher}",
        "--model.teacher.base.quantization=none",
        "--model.teacher.base.dtype=float32",
    ]
    main([*usual, f"--data.validation={rows}"])
    return folder_of(folder / "run")


def test_answers_and_a_loaded_run_need_no_teacher(tiny, tmp_path):
    teacher = tiny_models.save(tmp_path / "teacher", seed=3)
    run = distil(tiny, tmp_path, teacher)
    shutil.rmtree(teacher)
    assert load(run).teacher is not None
    main(["predict", f"--config={run}/config.yaml", f"--run={tmp_path}/said", "--model.max_new_tokens=2",
          f"--ckpt_path={run}/checkpoints/last.ckpt"])  # fmt: skip
    assert (folder_of(tmp_path / "said") / "answers.jsonl").read_text()


def test_what_the_teacher_cannot_read_is_refused(tiny, tmp_path):
    teacher = tiny_models.save(tmp_path / "teacher", seed=3)
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    with pytest.raises(SystemExit) as refused:
        distil(tiny, tmp_path, teacher)
    assert isinstance(refused.value.__context__, ModelError)
    assert "have 88 tokens, and it reads 32;" in str(refused.value.__context__)


def test_a_teacher_is_one_model():
    with pytest.raises(ConfigError, match="one of adapter and base"):
        TeacherModel()
