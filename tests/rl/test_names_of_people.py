"""A policy for one person: neither its checkpoints nor its adapter hold the name."""

import json
from dataclasses import dataclass

import torch

from lit_align.annotators import annotator_key
from lit_align.cli.main import main
from lit_align.labelling.feedback import Human
from lit_align.rewards.length import Length
from lit_align.stages.resume import data_settings
from tests.rl.on_policy import stage, write_prompts
from tests.rl.test_diagnostics import GRPO, with_reward
from tests.stages.runs import folder_of

NAME = "ada lovelace"


@dataclass(frozen=True)
class Hers(Length):
    """Lengths as one person likes them."""

    annotator: str | None = None


def test_what_a_run_hands_on_has_a_hash_for_the_name(tiny, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", rows=4)
    reward = ("--model.reward=tests.rl.test_names_of_people.Hers", "--model.reward.max_words=4")
    named = (*reward, f"--model.reward.annotator={NAME}", "--trainer.max_steps=1")
    main([*with_reward(tiny, prompts, tmp_path / "run", *named), *GRPO])
    run = folder_of(tmp_path / "run")
    checkpoints = list(run.rglob("*.ckpt"))
    assert checkpoints
    for file in (*checkpoints, *(run / "adapter").iterdir()):
        assert NAME.encode() not in file.read_bytes()
    settings = json.loads((run / "adapter/provenance.json").read_text())["settings"]
    saved = torch.load(checkpoints[0], weights_only=True)["hyper_parameters"]
    for held in (settings, saved):
        assert held["reward"]["init_args"]["annotator"] == annotator_key(NAME)
    assert NAME in (run / "config.yaml").read_text()  # label forget reads it


def test_a_stage_that_is_made_in_python_hashes_too(tiny):
    made = stage(tiny, Hers(max_words=4, annotator=NAME))
    assert made.hparams["reward"]["init_args"]["annotator"] == annotator_key(NAME)
    assert made.reward.annotator == NAME


def test_what_a_checkpoint_says_of_the_data_has_hashes():
    class Voted:
        def __init__(self, feedback, only_annotator, without_annotators, columns):
            self.feedback, self.only_annotator = feedback, only_annotator
            self.without_annotators, self.columns = without_annotators, columns

    data = Voted(Human("l.db", annotator=NAME), NAME, [NAME, 7], {"annotator": "worker"})
    settings = data_settings(data)
    key = annotator_key(NAME)
    assert settings["feedback"]["init_args"]["annotator"] == settings["only_annotator"] == key
    assert settings["without_annotators"] == [key, annotator_key("7")]
    assert settings["columns"] == {"annotator": "worker"}
