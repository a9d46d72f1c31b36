"""Rounds of a campaign: people on the real page, a reward model, a policy, killed in between, and one report."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from lit_align.cli.main import main
from lit_align.data.formats.groups import Groups
from lit_align.errors import ConfigError, TrainingError
from lit_align.labelling.rounds.children import COMMAND
from lit_align.labelling.rounds.command import run
from lit_align.labelling.rounds.configs import for_round, names_reward_model
from lit_align.labelling.rounds.phases import Round, finish, keep_last_adapter, trained
from lit_align.labelling.rounds.report import agreement
from lit_align.labelling.rounds.settings import Rounds
from lit_align.rewards.reward_model import RewardModelScore
from tests.labelling.serving import Visitor
from tests.stages.runs import ROOT, arguments, folder_of, write_chats, write_pairs

PROMPTS, ROUNDS = 3, 2


def base(tiny):
    return {"path": str(tiny), "quantization": "none", "dtype": "float32"}


def config(tiny, stage, data, **more):
    """A configuration of ``fit`` with one step."""
    model = {
        "base": base(tiny), "lora": {"r": 4}, "max_new_tokens": 6,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}}, **more,
    }  # fmt: skip
    loader = {"train": "given.jsonl", "batch_size": 3, "token_budget": 512, "max_length": 256}
    return {
        "trainer": {"accelerator": "cpu", "max_steps": 1, "log_every_n_steps": 1, "enable_progress_bar": False},
        "model": {"class_path": stage, "init_args": model},
        "data": {"class_path": data, "init_args": loader},
    }  # fmt: skip


@pytest.fixture(scope="module")
def initial(tiny, tmp_path_factory):
    """Folder of a run of SFT."""
    folder = tmp_path_factory.mktemp("initial")
    chats = write_chats(folder / "chats.jsonl", 6)
    main([*arguments(tiny, chats, folder / "sft", "--trainer.max_steps=1", stage="SFT")])
    return folder_of(folder / "sft")


@pytest.fixture
def campaign(tiny, tmp_path):
    """Settings of a campaign in files; people compare, and the policy learns from what they say."""
    (tmp_path / "sft/adapter").mkdir(parents=True)
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"What do bees make of {k}?"} for k in range(PROMPTS * ROUNDS)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    objective = {"class_path": "DPO", "init_args": {"beta": 0.1}}
    files = {
        "policy": config(tiny, "Preference", "Comparisons", objective=objective),
        "label": {"port": port, "votes": 1, "annotators": ["ada"]},
    }
    settings = {
        "prompts": [str(prompts)], "prompts_per_round": PROMPTS, "rounds": ROUNDS, "initial": str(tmp_path / "sft"),
        "run": str(tmp_path / "campaign"),
    }  # fmt: skip
    for name, values in files.items():
        settings[name] = str(tmp_path / f"{name}.yaml")
        Path(settings[name]).write_text(yaml.safe_dump(values))
    return settings


def with_rewards(campaign, tiny, tmp_path):
    """The campaign with a reward model, and a policy that is rewarded by it."""
    score = {"class_path": "RewardModelScore", "init_args": {"path": "given"}}
    reward = {"class_path": "Weighted", "init_args": {"rewards": [score], "weights": [1.0]}}
    rl = {"objective": "PolicyGradient", "advantage": "RLOO", "num_generations": 2}
    policy = config(tiny, "RL", "Prompts", reward=reward, **rl)
    Path(campaign["policy"]).write_text(yaml.safe_dump(policy))
    judged = config(tiny, "RewardModel", "Comparisons", objective="BradleyTerry")
    (tmp_path / "reward.yaml").write_text(yaml.safe_dump(judged))
    return {**campaign, "reward": str(tmp_path / "reward.yaml")}


def preferring(tiny, tmp_path):
    """A run of DPO, whose implicit reward never gives two answers the same."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", 6)
    main([*arguments(tiny, pairs, tmp_path / "dpo", "--trainer.max_steps=1")])
    return folder_of(tmp_path / "dpo")


def write(settings, path):
    path.write_text(yaml.safe_dump(settings))
    return str(path)


class Running:
    """The real command; somebody votes for the answer on the left on every page that it opens."""

    def __init__(self, *options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, "campaign", *options], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.lines = []

    def until(self, end=None):
        """Read on until a line has ``end`` in it, or to the last one; vote in between."""
        for line in self.process.stdout:
            self.lines.append(line)
            link = re.match(r"ada: http://127\.0\.0\.1:(\d+)/in/(\S+)", line)
            if link:
                self.visit = link[1], link[2]
            if "Ctrl-C stops" in line:
                threading.Thread(target=self.vote, daemon=True).start()
            if end and end in line:
                return
        self.process.wait()

    def vote(self):
        port, token = self.visit
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
            except ConnectionRefusedError:  # links are printed before the page listens
                time.sleep(0.1)
        ada = Visitor(int(port), token)
        task = ada.task()
        while task:
            assert ada.send(**task, preference=-3) == 303
            task = ada.task()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_two_rounds_with_people_on_the_page_killed_in_between(campaign, initial, tmp_path):
    """Nine processes, each of which imports torch."""
    settings = {**campaign, "initial": str(initial)}
    first = Running("-c", write(settings, tmp_path / "campaign.yaml"))
    first.until("Round 1 of 2: policy on")
    first.kill()
    folder = folder_of(tmp_path / "campaign")
    assert (folder / "round-1/labels.jsonl").exists()
    assert not (folder / "round-1/round.json").exists()

    again = Running("--resume", str(folder))
    again.until()
    text = "".join(again.lines)
    assert not again.process.returncode, text
    assert "Round 1 of 2: answers" not in text  # what is done is not done twice
    assert "Round 1 of 2: labels" not in text

    first, second = json.loads((folder / "campaign.json").read_text())
    assert (first["previous"], second["previous"]) == (None, "../round-1")
    assert first["answers of"] == [str(initial)]
    assert second["answers of"] == [first["policy"], str(initial)]
    assert first["newer wins"] is None
    rows = [json.loads(row) for row in (folder / "round-2/labels.jsonl").read_text().splitlines()]
    assert second["decided"] == len(rows) == PROMPTS
    assert second["newer wins"]["share"] == sum(row["pairs"][0][0] == 0 for row in rows) / PROMPTS
    assert "newer wins" in (folder / "campaign.md").read_text()
    policy = yaml.safe_load((folder / "round-2/policy.yaml").read_text())
    labels = [str(folder / f"round-{number}/labels.jsonl") for number in (1, 2)]
    assert policy["data"]["init_args"]["train"] == labels
    assert policy["model"]["init_args"]["init_adapter"] == f"{first['policy']}/adapter"
    prompts = [
        json.dumps(json.loads(row)["prompt"])
        for number in (1, 2)
        for row in (folder / f"round-{number}/prompts.jsonl").read_text().splitlines()
    ]
    assert len(set(prompts)) == PROMPTS * ROUNDS


def test_a_judge_labels_and_the_reward_model_of_the_round_rewards(
    campaign, initial, tiny, tmp_path
):
    """Four processes, each of which imports torch."""
    policy_run = preferring(tiny, tmp_path)
    judge = tmp_path / "judge.yaml"
    implicit = {"class_path": "Implicit", "init_args": {"run": str(policy_run)}}
    feedback = {"class_path": "FromReward", "init_args": {"reward": implicit}}
    judge.write_text(yaml.safe_dump({"feedback": feedback}))
    settings = with_rewards(campaign, tiny, tmp_path)
    settings |= {"label": None, "judge": str(judge), "rounds": 1, "initial": str(initial)}
    (record,) = run(["-c", write(settings, tmp_path / "campaign.yaml")])
    home = folder_of(tmp_path / "campaign") / "round-1"
    assert record["reward model"] == str(home / "reward/0/adapter")
    config = yaml.safe_load((home / "policy.yaml").read_text())
    assert config["data"]["init_args"]["train"] == [str(home / "prompts.jsonl")]
    (score,) = config["model"]["init_args"]["reward"]["init_args"]["rewards"]
    assert score["init_args"]["path"] == record["reward model"]
    assert Path(record["policy"], "adapter").is_dir()
    groups = [Groups()(json.loads(row)) for row in (home / "labels.jsonl").read_text().splitlines()]
    scores = RewardModelScore(record["reward model"])(groups).total.reshape(-1, 2)
    better = [group.pairs[0].better for group in groups]
    assert agreement(record["reward model"], groups) == [
        bool(row[k] > row[1 - k]) for row, k in zip(scores, better, strict=True)
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judge": "judge.yaml"}, "give the one that labels, and not the other"),
        ({"label": None}, "judge is None and label is None"),
        ({"initial": "nowhere"}, "initial is nowhere, in which there is no adapter/"),
        ({"rounds": 3}, "3 rounds of 3 prompts need 9, and there are 6"),
        ({"reward": "personal.yaml"}, "rounds put the votes of all into one label"),
        ({"reward": None}, "is rewarded by a RewardModelScore, and reward is null"),
    ],
)
def test_what_cannot_go_on_is_refused_before_the_first_round(
    campaign, tiny, tmp_path, monkeypatch, change, sentence
):
    (tmp_path / "judge.yaml").write_text(
        "feedback: {class_path: FromReward, init_args: {reward: {class_path: Repetition}}}\n"
    )
    (tmp_path / "personal.yaml").write_text(
        "model: {class_path: PersonalRewardModel}\ndata: {class_path: Comparisons}\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = {**with_rewards(campaign, tiny, tmp_path), **change}
    with pytest.raises(ConfigError, match=sentence):
        run(["-c", write(settings, tmp_path / "c.yaml")])
    assert not (tmp_path / "campaign").exists()


def test_a_round_in_which_nothing_is_decided_says_so(campaign, tmp_path):
    current = Round(tmp_path, 1, Rounds(**campaign))
    current.home.mkdir()
    for file, text in ((current.answers, "{}\n"), (current.labels, "")):
        file.write_text(text)
    with pytest.raises(TrainingError, match="no answer of round 1 was preferred to another"):
        finish(current, [])


def test_a_run_killed_after_its_last_step_keeps_its_adapter(initial, tmp_path):
    """Resumed, it has nothing left to do, and writes none; what the checkpoint has is the adapter."""
    runs = tmp_path / "policy"
    shutil.copytree(initial, runs / "0")
    shutil.rmtree(runs / "0/adapter")
    (runs / "1").mkdir()  # of the fit that had nothing to do
    assert trained(runs) is None
    keep_last_adapter([runs / "0"])
    assert trained(runs) == runs / "0"
    weights = "adapter_model.safetensors"
    kept, written = (folder / "adapter" / weights for folder in (runs / "0", initial))
    assert kept.read_bytes() == written.read_bytes()
    with pytest.raises(TrainingError, match="the fit wrote no adapter"):
        keep_last_adapter([runs / "1"])


def test_a_campaign_is_done_by_one_process_at_a_time(campaign, tmp_path):
    file = write(campaign, tmp_path / "c.yaml")
    folder = tmp_path / "campaign/0"
    (folder / "round-1").mkdir(parents=True)
    shutil.copy(file, folder / "config.yaml")
    with FileLock(folder / ".lock"), pytest.raises(ConfigError, match="another process does"):
        run(["--resume", str(folder)])


def test_the_labelling_page_gets_its_store_from_the_round(campaign, tmp_path):
    Path(campaign["label"]).write_text("store: mine.db\n")
    with pytest.raises(ConfigError, match=r"label\.yaml says store, which each round sets itself"):
        run(["-c", write(campaign, tmp_path / "c.yaml")])


def test_no_campaign_to_go_on_with(tmp_path):
    with pytest.raises(ConfigError, match="holds no campaign that has begun"):
        run(["--resume", str(tmp_path)])


def test_reward_models_are_found_wherever_they_are_nested():
    score = {"class_path": "lit_align.rewards.RewardModelScore", "init_args": {"path": "old"}}
    reward = {"class_path": "Weighted", "init_args": {"rewards": [{"class_path": "Length"}, score]}}
    settings = {
        "model": {"class_path": "RL", "init_args": {"reward": reward}},
        "data": {"class_path": "Prompts"},
    }
    assert names_reward_model(settings)
    for_round(settings, Path("runs"), ["p.jsonl"], reward_model="new")
    assert score["init_args"]["path"] == "new"
    assert settings["data"]["init_args"]["train"] == ["p.jsonl"]


@pytest.mark.parametrize("path", ["configs/campaign", "configs/tiny/campaign"])
def test_configurations_of_campaigns_are_whole(path, monkeypatch, tmp_path):
    """But for the run to begin with, which is made first."""
    monkeypatch.chdir(ROOT)
    file = f"{path}/campaign.yaml"
    assert Path(file).read_text().startswith(f"# lit-align campaign -c {file}\n")
    settings = {**yaml.safe_load(Path(file).read_text()), "initial": str(tmp_path)}
    (tmp_path / "adapter").mkdir()
    Rounds(**settings)
    for name, command in (("label", "label"), ("judge", "judge")):
        if settings.get(name):
            assert Path(settings[name]).read_text().startswith(f"# lit-align {command} -c ")
