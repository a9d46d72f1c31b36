"""``lit-align init``: what it lists, refuses and writes, and that what it writes runs as it is."""

import itertools
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lit_align.__main__ import main
from lit_align.cli.init.base_config import size_in_name, usual_config
from lit_align.cli.init.settings import (
    optimization_settings,
    set_data,
    start_settings,
    to_yaml,
)
from lit_align.cli.init.sizes import choose_sizes
from lit_align.cli.tasks import OTHER_TASKS, TASKS
from lit_align.errors import ConfigError
from lit_align.labelling.command import parse_campaign
from lit_align.memory.model import GIB
from lit_align.memory.planner import CUDA_OVERHEAD, MemoryPlanner, Plan
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from tests.stages.runs import trace

ROWS = {
    "demonstrations": {"prompt": "Name a bird.", "completion": "An owl."},
    "pairs": {"prompt": "Name a bird.", "chosen": "An owl.", "rejected": "A bat."},
    "desirable": {"prompt": "Name a bird.", "completion": "An owl.", "label": True},
    "ranking": {
        "prompt": "Name a bird.",
        "responses": ["An owl.", "A bat.", "A jay."],
        "ranking": [1, 3, 2],
    },
    "prompts": {"prompt": "Name a bird."},
}
"""The simplest row with each kind of label, as `lit_align.cli.tasks.COLUMNS` describes it."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(path: Path, label_kind: str, num_rows: int = 8) -> Path:
    """Rows that differ in their prompts."""
    with path.open("w") as file:
        for number in range(num_rows):
            row = {**ROWS[label_kind], "prompt": f"{number}: name a bird."}
            file.write(json.dumps(row) + "\n")
    return path


def refusal(capsys, arguments: list[str]) -> str:
    """The sentence with which a command ends."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code in (1, 2)
    return capsys.readouterr().err.removeprefix("lit-align: ").rstrip()


# ---------------------------------------------------------------- what is answered at once


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "  dpo  "),
        (["dop"], "no task is called 'dop'; did you mean dpo?"),
        (
            ["personal"],
            "no task is called 'personal', but a packaged config is; begin with lit-align fit -c personal (-c tiny/pers"
            "onal on a CPU)",
        ),
        (["orca-digits"], "but a packaged config is; begin with lit-align fit -c orca_digits"),
        (["SimPO"], "'SimPO' is an objective and no task; add --objective SimPO to the task dpo"),
        (["Regression"], "start from the packaged config: lit-align fit -c tiny/ratings"),
        (["dpo"], "init dpo needs --base and --data: a model, and rows with prompt, chosen"),
        (["dpo", "--base", "x", "--data", "y", "--objective", "simp"], "did you mean SimPO?"),
        (["dpo", "--base", "x", "--data", "y", "--objective", "KTO"], "KTO is trained by Preference on BinaryLabels"),
        (["dpo", "--base", "x", "--data", "y", "--reward", "z"], "--reward is 'z', and dpo has none; leave it out"),
        (["dpo", "--base", "x", "--data", "y", "--card", "0"], "--card is 0; it is the memory of a GPU in GiB"),
        (["dpo", "my.csv"], "'my.csv' is no option of init dpo; files follow --data"),
        (["plugin", "a b"], "a plugin's name has letters, digits and '-', got 'a b'"),
    ],
)  # fmt: skip
def test_nothing_heavy_is_imported_for_a_list_or_a_mistake(arguments, text):
    code = (
        "import sys\nfrom lit_align.__main__ import main\n"
        f"try: main(['init', *{arguments!r}])\n"
        "except SystemExit as error: pass\n"
        "print([name for name in ('torch', 'transformers', 'lightning', 'pluggy._hooks') if name in sys.modules][:1])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert text in run.stdout + run.stderr
    assert "torch" not in run.stdout.splitlines()[-1]


def test_every_task_has_a_line(capsys):
    main(["init"])
    listed = capsys.readouterr().out
    for task in (*TASKS, *OTHER_TASKS):
        assert sum(line.startswith(f"  {task.name} ") for line in listed.splitlines()) == 1


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_written_parses_as_it_is(task, folder, tiny, capsys):
    rows = write_rows(folder / "rows.jsonl", task.label_kind)
    reward = (
        ["--reward", "{class_path: Length, init_args: {max_words: 9}}"] if task.needs_reward else []
    )
    main(["init", task.name, "--base", str(tiny), "--data", rows.name, "--card", "24", *reward])
    printed = capsys.readouterr().out
    assert "rows.jsonl: 8 rows in the format" in printed
    assert f"Next: lit-align inspect -c {task.name}.yaml --card 24" in printed
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", f"{task.name}.yaml", "--print_config"])
    assert not stopped.value.code
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["train"] == "rows.jsonl"
    assert config["model"]["init_args"]["base"]["path"] == str(tiny)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_prompt_and_response_fit_in_the_positions_of_the_base(task):
    config = usual_config(0.6)
    config.max_position_embeddings = 700
    sizes = choose_sizes(task.settings(), config, 24, None)
    assert sizes.max_length + sizes.max_new_tokens <= 700
    assert sizes.max_length >= 350
    assert bool(sizes.max_new_tokens) == ("max_new_tokens" in task.settings()["model"]["init_args"])


@pytest.mark.parametrize("task", ["dpo", "sft"])
def test_what_is_written_trains_as_it_is(task, folder, tiny, capsys):
    kind = next(other.label_kind for other in TASKS if other.name == task)
    write_rows(folder / "rows.jsonl", kind)
    main(["init", task, "--base", str(tiny), "--data", "rows.jsonl"])
    main(["inspect", "-c", task])
    assert "It fits: " in capsys.readouterr().out.replace("\n", " ")
    main(
        [
            "fit",
            "-c",
            f"{task}.yaml",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
        ]
    )
    assert len(trace(folder / "runs" / task)) == 8  # of 8 rows, one a step


def test_nothing_is_overwritten(folder, tiny, capsys):
    write_rows(folder / "rows.jsonl", "pairs")
    (folder / "dpo.yaml").write_text("mine")
    command = ["init", "dpo", "--base", str(tiny), "--data", "rows.jsonl"]
    assert refusal(capsys, command).startswith(
        "dpo.yaml exists, and nothing is overwritten; name another file"
    )
    main([*command, "--output", "new/other.yaml"])
    assert (folder / "dpo.yaml").read_text() == "mine"
    assert (folder / "new/other.yaml").exists()
    sentence = refusal(capsys, [*command, "--output", "dpo.yaml/other.yaml"])
    assert sentence.startswith("dpo.yaml/other.yaml cannot be written: ")


def test_the_command_in_the_file_writes_it_again(folder, tiny):
    write_rows(folder / "my rows.jsonl", "pairs")
    main(
        [
            "init",
            "dpo",
            "--base",
            str(tiny),
            "--data",
            "my rows.jsonl",
            "--card",
            "8",
            "--objective",
            "simpo",
        ]
    )
    written = (folder / "dpo.yaml").read_text()
    (line,) = [line for line in written.splitlines() if line.startswith("# Written by: lit-align ")]
    (folder / "dpo.yaml").unlink()
    main(shlex.split(line.removeprefix("# Written by: lit-align ")))
    assert (folder / "dpo.yaml").read_text() == written
    objective = yaml.safe_load(written)["model"]["init_args"]["objective"]
    assert objective == {"class_path": "SimPO", "init_args": {"beta": 2.0, "gamma": 1.0}}


@given(st.text(min_size=1), st.lists(st.text(), min_size=2, max_size=3), st.floats(1e-9, 1.0))
def test_whatever_a_file_is_called_the_yaml_reads_back(base, files, lr):
    task = TASKS[2]
    settings = start_settings(task, base)
    set_data(settings, files, files[:1])
    optimizer = settings["model"]["init_args"]["optimizer"]
    settings["model"]["init_args"] |= optimization_settings(optimizer, lr)
    assert yaml.safe_load(to_yaml(settings, {"train": "why", "lora": "rank"})) == settings


# ---------------------------------------------------------------- the data and the reward


def test_rows_that_do_not_fit_are_refused_with_what_would(folder, tiny, capsys):
    write_rows(folder / "rows.jsonl", "demonstrations")
    sentence = refusal(capsys, ["init", "dpo", "--base", str(tiny), "--data", "rows.jsonl"])
    assert (
        "rows.jsonl has the format Completions, whose labels are demonstrations, but pairs are needed"
        in sentence
    )
    assert "The task dpo reads rows with prompt, chosen and rejected" in sentence
    fitting = sentence.rpartition("these rows fit the tasks ")[2].split(", ")
    assert {"sft", "spin", "grpo"} <= set(fitting)
    assert not {"dpo", "kto", "ranking", "reward"} & set(fitting)
    assert not (folder / "dpo.yaml").exists()


def test_columns_of_no_format_and_files_that_are_not_there(folder, tiny, capsys):
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    command = ["init", "dpo", "--base", str(tiny), "--data"]
    assert refusal(capsys, [*command, "odd.csv"]) == (
        "dpo reads prompt, chosen and rejected; odd.csv has a, b. Name your columns, in place of the dots:\n"
        "  --columns '{prompt: ..., chosen: ..., rejected: ...}'\n"
        "List those that are not to be read: --ignore_columns '[id]'"
    )
    (folder / "odd.csv").write_text("prompt,a,b\n1,2,3\n")
    sentence = refusal(capsys, [*command, "odd.csv", "--columns", "{chosen: a}"])
    assert "--columns '{chosen: a, rejected: ...}'" in sentence
    assert "there is no file none.csv" in refusal(capsys, [*command, "none.csv"])


def test_columns_are_renamed_and_left_out_as_in_a_run(folder, tiny, capsys):
    rows = [
        {"question": f"{n}: name a bird.", "good": "An owl.", "bad": "A bat.", "thinking": "Hm."}
        for n in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["init", "dpo", "--base", str(tiny), "--data", "rows.jsonl"]
    assert "dpo reads prompt, chosen and rejected; rows.jsonl has question, " in refusal(
        capsys, command
    )
    command += ["--data.columns", "{prompt: question, chosen: good, rejected: bad}"]
    assert "changes what is learned" in refusal(capsys, command)
    assert "write '[source, id]'" in refusal(capsys, [*command, "--ignore_columns", "{a: b}"])
    assert "write '{prompt: question}'" in refusal(capsys, [*command, "--columns", "question"])
    main([*command, "--ignore_columns", "thinking"])
    written = (folder / "dpo.yaml").read_text()
    data = yaml.safe_load(written)["data"]["init_args"]
    assert data["columns"] == {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert data["ignore_columns"] == ["thinking"]
    (line,) = [line for line in written.splitlines() if line.startswith("# Written by: ")]
    (folder / "dpo.yaml").unlink()
    main(shlex.split(line.removeprefix("# Written by: lit-align ")))
    assert (folder / "dpo.yaml").read_text() == written
    capsys.readouterr()
    main(["inspect", "-c", "dpo.yaml"])
    assert "A bat." in capsys.readouterr().out
    sentence = refusal(capsys, ["init", "label", "--data", "rows.jsonl", "--columns", "{a: b}"])
    assert sentence == "init label takes no --columns; rename the columns in the file"


def test_rows_that_are_left_out_are_counted(folder, tiny, capsys):
    write_rows(folder / "rows.jsonl", "pairs", 5)
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({**ROWS["pairs"], "rejected": None}) + "\n")
    main(["init", "dpo", "--base", str(tiny), "--data", "rows.jsonl"])
    printed = capsys.readouterr().out
    assert "rows.jsonl: 6 rows in the format Preferences" in printed
    stop = "lit-align fit stops at these rows: 1 of the first 6 of rows.jsonl are malformed, over data.max_malformed"
    assert stop in printed
    assert "1 of the first 6 are left out: malformed" in (folder / "dpo.yaml").read_text()
    sentence = refusal(capsys, ["fit", "-c", "dpo.yaml", "--trainer.max_steps", "1"])
    assert "1 of 6 rows (16.67%) of rows.jsonl are malformed, over max_malformed 1.00%" in sentence


def test_a_few_malformed_rows_stop_nothing(folder, tiny, capsys):
    write_rows(folder / "rows.jsonl", "pairs", 99)
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({**ROWS["pairs"], "rejected": None}) + "\n")
    write_rows(folder / "held_out.jsonl", "pairs", 1)
    held_out = ["--validation", "rows.jsonl", "held_out.jsonl"]
    main(["init", "dpo", "--base", str(tiny), "--data", "rows.jsonl", *held_out])
    printed = capsys.readouterr().out
    assert "1 of the first 100 are left out: malformed" in printed
    assert "stops at" not in printed


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ("meien.Treffer", "meien.Treffer cannot be imported: there is no module 'meien'; install"),
        ("lit_align.rewards.length.Lenght", "lit_align.rewards.length has no 'Lenght'; did you me"),
        ("lit_align.objectives.dpo.DPO", "lit_align.objectives.dpo.DPO is no Reward; name a class"),
        ("lit_align.rewards.length.Length", "Length needs max_words; "),
        ("shutil.rmtree", "shutil.rmtree may not be named in settings, since it can run anything"),
    ],
)
def test_a_reward_by_its_path_is_imported(folder, tiny, capsys, reward, sentence):
    """The sentences are those of fit, and nothing is written."""
    write_rows(folder / "rows.jsonl", "prompts")
    command = ["init", "grpo", "--base", str(tiny), "--data", "rows.jsonl", "--reward", reward]
    assert refusal(capsys, command).startswith(sentence)
    assert not (folder / "grpo.yaml").exists()


def test_a_reward_of_a_module_in_the_folder_is_taken(folder, tiny, monkeypatch):
    write_rows(folder / "rows.jsonl", "prompts")
    (folder / "my_hits.py").write_text(
        "from lit_align.rewards import Reward\n\nclass Hits(Reward):\n    def __call__(self, groups):\n"
        "        return [[0.0 for _ in group.responses] for group in groups]\n"
    )
    monkeypatch.syspath_prepend(folder)
    command = ["init", "grpo", "--base", str(tiny), "--data", "rows.jsonl"]
    main([*command, "--reward", "my_hits.Hits"])
    model = yaml.safe_load((folder / "grpo.yaml").read_text())["model"]["init_args"]
    assert model["reward"] == {"class_path": "my_hits.Hits", "init_args": {}}


def test_a_task_with_a_reward_needs_one_that_is_there(folder, tiny, capsys):
    write_rows(folder / "rows.jsonl", "prompts")
    command = ["init", "ppo", "--base", str(tiny), "--data", "rows.jsonl"]
    assert "ppo needs a reward, and there is no runs/reward/0/adapter" in refusal(capsys, command)
    assert "Length needs max_words; write --reward '{class_path: Length" in refusal(
        capsys, [*command, "--reward", "Length"]
    )
    assert "did you mean Length?" in refusal(capsys, [*command, "--reward", "Lenght"])
    assert "there is no folder 'runs/x'" in refusal(capsys, [*command, "--reward", "runs/x"])
    grpo = ["init", "grpo", "--base", str(tiny), "--data"]
    assert "grpo needs a reward, and there is no column answer" in refusal(
        capsys, [*grpo, "rows.jsonl"]
    )
    (folder / "answers.jsonl").write_text('{"question": "1 + 1?", "answer": "so #### 2"}')
    main([*grpo, "answers.jsonl"])
    (folder / "runs/reward/0/adapter").mkdir(parents=True)
    main(command)
    model = yaml.safe_load((folder / "ppo.yaml").read_text())["model"]["init_args"]
    assert (
        model["reward"]["init_args"]["path"]
        == model["critic"]["init_from"]
        == "runs/reward/0/adapter"
    )


# ---------------------------------------------------------------- the sizes


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-8B", 8.0),
        ("Qwen/Qwen3-30B-A3B", 30.0),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135),
        ("meta-llama/Llama-3.2-1B", 1.0),
        ("mistralai/Mixtral-8x7B-v0.1", 56.0),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5),
        ("microsoft/phi-4", None),
        ("org/model-8bit", None),
    ],
)
def test_the_size_in_a_name(name, billions):
    assert size_in_name(name) == billions


@pytest.mark.parametrize("billions", [0.135, 0.6, 1.7, 3, 8.2, 13, 32.8, 70.6, 405])
def test_a_usual_config_has_about_as_many_parameters(billions):
    """Counted layer by layer: attention, three feed-forward projections, and the embeddings, within a quarter.

    Below 0.6B the embeddings alone are more: there it is larger, and the settings are for less memory than there is.
    """
    config = usual_config(billions)
    heads = config.num_attention_heads + config.num_key_value_heads
    attention = 2 * config.hidden_size * config.head_dim * heads
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    total = config.num_hidden_layers * (attention + feed_forward) + embeddings
    assert total >= 0.75e9 * billions
    assert total <= 1.25e9 * max(billions, 0.6)


@pytest.mark.parametrize("billions", [0.6, 8.2, 32.8])
@pytest.mark.parametrize(
    "task", [TASKS[0], TASKS[2], TASKS[5], TASKS[6]], ids=lambda task: task.name
)
def test_a_larger_card_never_gets_smaller_settings(billions, task):
    config, chosen = usual_config(billions), []
    for card in (8, 16, 24, 48, 80, 141):
        try:
            chosen.append(choose_sizes(task.settings(), config, card, 10_000))
        except ConfigError:
            chosen.append(None)
    fits = [sizes is not None for sizes in chosen]
    assert fits == sorted(fits)
    chosen = chosen[fits.index(True) :]
    for smaller, larger in itertools.pairwise(chosen):
        assert smaller.r <= larger.r
        assert smaller.max_length <= larger.max_length
        assert smaller.batch_size <= larger.batch_size
        assert (
            smaller.gradient_checkpointing >= larger.gradient_checkpointing
            or larger.quantization == "none"
        )


def test_what_is_chosen_fits_by_the_planner():
    config = usual_config(8.2)
    sizes = choose_sizes(
        next(task for task in TASKS if task.name == "dpo").settings(), config, 24, None
    )
    assert (sizes.quantization, sizes.r, sizes.token_budget, sizes.max_length) == (
        "nf4",
        16,
        8192,
        2048,
    )
    plan = Plan(
        base=Base("x", quantization="nf4", dtype="bfloat16"),
        lora=Lora(r=16),
        token_budget=8192,
        batch_size=64,
        tree=4096,
        reference=True,
        gradient_checkpointing=True,
    )
    planner = MemoryPlanner(config)
    available = (24 - CUDA_OVERHEAD) * GIB
    assert planner.peak(plan) <= available
    stored = replace(plan, gradient_checkpointing=False, token_budget=4096)
    assert planner.peak(stored) > available


@pytest.mark.parametrize(
    ("num_rows", "batch_size"), [(1, 1), (60, 2), (200, 8), (1280, 64), (None, 64), (10**6, 64)]
)
def test_a_small_file_makes_at_least_twenty_steps(num_rows, batch_size):
    sizes = choose_sizes(TASKS[2].settings(), usual_config(0.6), 80, num_rows)
    assert sizes.batch_size == batch_size
    assert num_rows is None or batch_size == 1 or num_rows / batch_size >= 20


def test_a_base_out_of_reach(folder, capsys):
    """The suite runs off-line: the name's size is used and said, and without one there is a remedy."""
    write_rows(folder / "rows.jsonl", "pairs")
    command = ["init", "dpo", "--data", "rows.jsonl", "--card", "24", "--base"]
    main([*command, "nobody/model-8B"])
    assert (
        "its config cannot be reached (there is no connection to the hub); planned for the 8B of its name"
        in (folder / "dpo.yaml").read_text()
    )
    sentence = refusal(capsys, [*command, "nobody/model", "--output", "b.yaml"])
    assert (
        "and its name has no size; give --size, the billions of parameters that it has" in sentence
    )
    main([*command, "nobody/model", "--output", "b.yaml", "--size", "3"])
    assert "nobody/model: 3B parameters, as --size says" in (folder / "b.yaml").read_text()
    assert "no model at './none'" in refusal(capsys, [*command, "./none", "--output", "c.yaml"])


# ---------------------------------------------------------------- other tasks


def test_a_labelling_page(folder):
    write_rows(folder / "rows.jsonl", "pairs")
    main(["init", "label", "--data", "rows.jsonl"])
    campaign = parse_campaign(["-c", "label.yaml"])
    assert campaign.tasks == ["rows.jsonl"]
    assert campaign.store == "label.db"


def test_other_modalities(folder, tiny, capsys):
    main(["init", "orca", "--base", str(tiny), "--data", "digits", "--modality", "Images"])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", "orca.yaml", "--print_config"])
    assert not stopped.value.code
    command = ["init", "orca", "--base", "x", "--output", "b.yaml", "--data"]
    assert "give --modality, one of Images, Series" in refusal(capsys, [*command, "x.npz"])
    (folder / "a.csv").write_text("x,y\n1,2\n")
    assert "a.csv has no column target, only x, y; rename" in refusal(capsys, [*command, "a.csv"])


@pytest.mark.parametrize("kind", ["objective", "reward"])
def test_a_plugin_passes_its_own_test(kind, folder):
    main(["init", "plugin", "lit-align-my-own", "--kind", kind])
    package = folder / "lit-align-my-own"
    text = "".join(path.read_text() for path in package.rglob("*.*"))
    assert "emplate" not in text.replace("as a plugin to copy", "")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=package,
        capture_output=True,
        text=True,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_a_plugin_takes_no_name_that_is_taken(folder, capsys):
    assert "'torch' is the name of a Python module already" in refusal(
        capsys, ["init", "plugin", "torch"]
    )
    (folder / "mine").mkdir()
    assert "mine exists, and nothing is overwritten" in refusal(capsys, ["init", "plugin", "mine"])
