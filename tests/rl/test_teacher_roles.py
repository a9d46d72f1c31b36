"""Teachers that move with the policy, and teachers behind a server; runs with them that are killed and resumed."""

import pytest
import torch

from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.cli.main import main
from lit_align.cli.memory_report import plan_memory
from lit_align.data.datamodules import Prompts
from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.gkd import GKD
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.teacher_server import TeacherServer
from lit_align.rl.kl_control import KLControl
from lit_align.rl.teaching import lecture_of
from tests import tiny as tiny_models
from tests.engine import running
from tests.forked import kill_once_there, start_command
from tests.processes import make_trainer
from tests.rl.on_policy import (
    OfflineRL,
    add_hints,
    folder_of,
    rl_arguments,
    stage,
    table,
    write_prompts,
)
from tests.rl.test_teacher import learn, naive, prompts
from tests.stages.runs import ROOT


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return tiny_models.save(tmp_path_factory.mktemp("other"), seed=7)


@pytest.fixture(scope="module")
def server(other):
    with running(other) as server:
        yield server


@pytest.fixture
def module(tiny):
    made = stage(tiny, Teacher(column="hint"), ReverseKL(), cls=OfflineRL, max_new_tokens=5)
    made.objective, made.kl, made.kl_coefficient = PolicyGradient(), KLControl(0.0), 0.0
    made.configure_model()
    made.adapters.model.generation_config.eos_token_id = list(range(60))
    return made


def test_an_average_is_that_of_the_policy_after_each_update(tiny, tmp_path):
    """t_k = 0.7 t_(k-1) + 0.3 p_k over six updates, from the policy's start; the policy moves."""
    teacher = Teacher("average", rate=0.3, column="hint")
    module = stage(tiny, teacher, ReverseKL(), num_generations=2, num_minibatches=2)
    module.objective, module.kl, module.max_new_tokens = GKD(), KLControl(0.0), 4
    module.configure_model()
    averages = [module.adapters.copy_weights("policy")]
    follow = module.after_step

    def after_step(metrics, sums):
        policy = module.adapters.copy_weights("policy")
        averages.append({k: 0.7 * w + 0.3 * policy[k] for k, w in averages[-1].items()})
        follow(metrics, sums)

    module.after_step = after_step
    path = add_hints(write_prompts(tmp_path / "prompts.jsonl", rows=4))
    make_trainer(tmp_path, max_steps=3).fit(module, Prompts(str(path), batch_size=2))
    assert len(averages) == 7
    found = module.adapters.copy_weights("teacher")
    for name, weight in averages[-1].items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-8)
    assert any(not torch.equal(found[name], averages[0][name]) for name in found)


def arguments_of(name, tiny, prompts_file, run):
    more = ["--trainer.max_epochs=2", "--save_every=1", "--trainer.max_steps=-1"]
    arguments = [
        word
        for word in rl_arguments(tiny, prompts_file, run, *more)
        if not word.startswith(("--model.reward", "--model.advantage", "--model.objective"))
    ]
    at = arguments.index("--model=RL") + 1
    chosen = {
        "average": (
            *("--model.objective=GKD", "--model.advantage=ReverseKL", "--model.reward=Teacher"),
            *("--model.reward.role=average", "--model.reward.rate=0.3"),
            *("--model.reward.column=hint", "--model.kl.coefficient=0"),
        ),
        "refill": (
            *("--model.objective=PPO", "--model.advantage=GRPO", "--model.reward=Pattern"),
            *("--model.reward.regex=q|z", "--model.equal_scores=refill"),
        ),
    }
    return [*arguments[:at], *chosen[name], *arguments[at:]]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("average", ("policy/divergence",)),
        ("refill", ("objective/prompts_refilled", "objective/frac_equal_dropped")),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(name, columns, tiny, tmp_path):
    path = add_hints(write_prompts(tmp_path / "prompts.jsonl"))
    process = start_command(arguments_of(name, tiny, path, tmp_path / "cut"), ROOT)
    checkpoint = tmp_path / "cut/0/checkpoints/last.ckpt"
    kill_once_there(process, checkpoint)
    main(arguments_of(name, tiny, path, tmp_path / "whole"))
    main([*arguments_of(name, tiny, path, tmp_path / "rest"), f"--ckpt_path={checkpoint}"])
    names = ("step", "loss", "grad_norm", "objective/scores", "objective/kl", *columns)
    rest, whole = (table(tmp_path / run, *names) for run in ("rest", "whole"))
    assert rest == whole
    assert len({row[-len(columns)] for row in whole}) > 1
    assert (folder_of(tmp_path / "rest") / "summary.json").exists()


def test_a_server_gives_what_its_model_would(module, server, other):
    teacher = Teacher("other", server=TeacherServer(server.url), column="hint")
    trees = prompts(module, "Who is up?", "And who is not?", hint="An owl.")
    served = learn(module, teacher, trees)
    in_memory = Teacher("other", base=Base(str(other), "none", "float32"), column="hint")
    in_memory.attach(module.adapters, module.tokenizer)
    expected = in_memory(served.groups)
    torch.testing.assert_close(served.scores.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
    (shown,) = prompts(module, "Who is up?\n\nAn owl.")
    ids = served.trees[0].responses[0]
    loaded = in_memory.__dict__["loaded"]
    with torch.no_grad():
        row = torch.tensor([[*shown.prompt, *ids]])
        logits = loaded.adapters.model(input_ids=row).logits[0, len(shown.prompt) - 1 : -1]
    right = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    torch.testing.assert_close(served.scores.tokens[: len(ids)], right, rtol=1e-4, atol=1e-5)
    assert (right - naive(module, "policy", trees[0].prompt, ids)).abs().max() > 1e-3


def test_a_server_that_fails_is_asked_again_and_then_named(module, server):
    trees = prompts(module, "Who is up?")
    plain = learn(module, Teacher("other", server=TeacherServer(server.url)), trees)
    server.plan("no prompt", 503)
    again = learn(module, Teacher("other", server=TeacherServer(server.url)), trees)
    assert torch.equal(plain.scores.tokens, again.scores.tokens)
    teacher = Teacher("other", server=TeacherServer(server.url, retries=0))
    teacher.attach(module.adapters, module.tokenizer)
    server.plan("no prompt")
    with pytest.raises(ModelError, match="no prompt_logprobs of all tokens"):
        teacher(plain.groups)
    server.plan()
    with pytest.raises(ModelError, match=r"serves .*, and the teacher is 'a-model'"):
        TeacherServer(server.url, model="a-model").connect(module.tokenizer)


def test_a_server_has_no_whole_distributions():
    teacher = Teacher("other", server=TeacherServer("http://localhost:1/v1"))
    with pytest.raises(ConfigError, match="a server gives the log-probabilities of sampled tokens"):
        lecture_of(GKD(), teacher)
    with pytest.raises(ConfigError, match="a server reads prompts at temperature 1"):
        Teacher("other", server=TeacherServer("http://localhost:1/v1"), temperature=0.5)


def test_memory_counts_the_teacher(tiny, other, module):
    """An average is one more adapter in float32; another base is its weights."""
    trees = prompts(module, "Who is up?")
    data = Prompts("x.jsonl", batch_size=2)

    def frozen(teacher):
        made = stage(tiny, teacher, ReverseKL(), max_new_tokens=4, lora=Lora(r=4))
        return plan_memory(made, data, trees).frozen

    adapter = sum(
        4 * weight.numel() for weight in module.adapters.adapter_weights("policy").values()
    )
    assert frozen(Teacher(column="hint")) == 0
    assert frozen(Teacher("average", column="hint")) == adapter
    base = Teacher("other", base=Base(str(other), "none", "float32"))
    weights = sum(4 * weight.numel() for weight in set(module.adapters.model.parameters()))
    lora = sum(4 * weight.numel() for weight in module.adapters.parameters_for("policy"))
    assert frozen(base) == weights - lora
