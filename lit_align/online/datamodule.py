"""On-line training: responses from the current policy, labels from a feedback source, any objective, in rounds.

Guo et al., 2024, https://arxiv.org/abs/2402.04792, for on-line DPO; SPIN, RAFT, self-rewarding and iterative DPO differ
in the source of the responses and of the labels.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lit_align.checks import check_fraction
from lit_align.data.datamodules import TextDataModule
from lit_align.data.kto_mismatched import add_mismatched_responses
from lit_align.feedback import Feedback
from lit_align.models.sample_responses import sample_responses, share_sampling
from lit_align.models.samplers import SamplingRequest
from lit_align.models.samplers.base import sampling_to_learn
from lit_align.online.checks import check_lengths, check_settings, check_stage, check_trainer
from lit_align.online.labels import label_groups, reason_to_set_aside, tree_from_record
from lit_align.online.records import (
    IDS_COLUMN,
    ROUND_COLUMNS,
    Record,
    describe_seen_scores,
    make_record,
    write_records,
)
from lit_align.online.responses import fresh_group, recorded_groups, replayed_groups
from lit_align.online.round_loader import RoundLoader, RoundState
from lit_align.processes import Processes
from lit_align.seeding import step_seed
from lit_align.stages.data_checks import tell_of_trained_prompts
from lit_align.types import Group, LabelKind, Tree


class Online(TextDataModule):
    """Rounds: responses to each prompt, labels for them, one pass of training over both.

    Lightning sees an epoch per round. Several processes share the sampling of a round, and its labelling where a label
    costs nothing; then each has the whole round. Checkpoints fall between steps and hold the rows of the round. Every
    round writes its records to ``rounds/`` in the run folder.

    Args:
        train: prompts, with recorded responses where they are used.
        feedback: labels the responses; null only if responses and labels are used as recorded.
        responses: ``fresh`` ones from the policy, those of the ``dataset``, or those of this run's earlier rounds again
            (``replay``).
        relabel: query the feedback again for responses that are not fresh; false uses their labels as recorded.
        fresh_fraction: fraction of a round's prompts that get fresh responses; the others use the data's or replay. The
            first round has nothing to replay.
        rounds: number of rounds; each is an epoch.
        round_size: prompts in a round; null takes all.
        num_generations: responses to each prompt.
        include_reference_answer: put the answer in the data beside fresh responses, as the target.
        temperature: sampling temperature; sampler and limit of a response, max_new_tokens, are the model's.
        reference_update: ``fixed``, the policy at the start of each ``round``, or moved towards that (``average``).
        reference_ema: how far ``average`` moves the reference each round, from 0 to 1.
        settings: settings that all data modules share.
    """

    label_kind = LabelKind.RESPONSES
    read_columns = (IDS_COLUMN, *ROUND_COLUMNS)
    repeats_rows = False

    def __init__(
        self,
        train: str | list[str],
        feedback: Feedback | None = None,
        responses: Literal["fresh", "dataset", "replay"] = "fresh",
        relabel: bool = True,
        fresh_fraction: float = 0.0,
        rounds: int = 1,
        round_size: int | None = None,
        num_generations: int = 2,
        include_reference_answer: bool = False,
        temperature: float = 1.0,
        reference_update: Literal["fixed", "round", "average"] = "fixed",
        reference_ema: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(train, **settings)
        self.feedback, self.responses, self.relabel = feedback, responses, relabel
        self.fresh_fraction = fresh_fraction
        self.rounds, self.round_size = rounds, round_size
        self.num_generations, self.temperature = num_generations, temperature
        self.include_reference_answer = include_reference_answer
        self.reference_update, self.reference_ema = reference_update, reference_ema
        if responses == "fresh":
            check_fraction("fresh_fraction", fresh_fraction)
            self.fresh_fraction = 1.0
        check_settings(self)
        self._feedback_attached = False
        self._trained_prompts: frozenset[str] = frozenset()  # of the reward model that labels
        self._rounds = RoundState()

    @property
    def _stage(self) -> Any:
        return cast(Any, self._running.lightning_module)

    # ------------------------------------------------------------------ Lightning's hooks

    def setup(self, stage: str) -> None:
        """Check stage and trainer, set an epoch for each round, and read the prompts."""
        trainer = self._running
        check_stage(self, self._stage)
        check_trainer(self, trainer, stage)
        if self.fresh_fraction:
            model = self._stage
            model.sampler.check(model.base, model.lora, model.tokenizer)
        if stage == "fit":
            trainer.fit_loop.max_epochs = self.rounds
        super().setup(stage)
        if stage == "fit" and self.feedback is not None:
            trees = self.trees["train"]
            self._trained_prompts = tell_of_trained_prompts(self.feedback, trees)
        self._chat = self.chat_tokenizer(self._stage, allow_empty=True)

    def label_kind_for(self, split: str) -> LabelKind:
        """Training rows are read as prompts or responses; validation rows carry labels as recorded."""
        if split != "train":
            return cast(LabelKind, self._stage.objective.label_kind)
        if self.fresh_fraction == 1 and not self.include_reference_answer:
            return LabelKind.PROMPTS
        return self.label_kind

    def steps_per_epoch(self) -> int:
        """Steps of a round; its loader needs the model."""
        num_prompts = len(self.trees["train"])
        return -(-min(self.round_size or num_prompts, num_prompts) // self.batch_size)

    def train_dataloader(self) -> RoundLoader:
        """Steps that are made when their round begins."""
        trees = self.trees["train"]
        check_lengths(self, self._stage, max(len(tree.prompt) for tree in trees))
        return RoundLoader(
            trees,
            self.round_size or len(trees),
            self._make_round,
            self._make_trees,
            save_past=self.responses == "replay",
            state=self._rounds,
            shuffle=self.shuffle,
            **self.dealing_settings(),
            **self.packing_settings(),
        )

    def data_identity(self) -> dict[str, str | int]:
        """What the prompts of a round depend on."""
        identity = super().data_identity()
        return {**identity, "round_size": self.round_size or len(self.trees["train"])}

    def state_dict(self) -> dict[str, Any]:
        """Records of the rounds, weights of the reference if it moves, and the state of the feedback."""
        reference: dict[str, Any] = {}
        if self.reference_update != "fixed":
            reference = self._stage.adapters.copy_weights("reference")
        feedback = self.feedback.state() if self.feedback else {}
        return {"rounds": dict(vars(self._rounds)), "reference": reference, "feedback": feedback}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._attach_feedback()
        self._rounds = RoundState(**state["rounds"])
        self._stage.adapters.set_weights("reference", state["reference"])
        if self.feedback:
            self.feedback.restore(state["feedback"])

    # ------------------------------------------------------------------ one round

    def _make_round(self, number: int, prompts: list[Tree], past: list[Record]) -> list[Record]:
        """Sample, label and write the records of a round; those with a label are returned."""
        self._attach_feedback()
        if number > self._rounds.reference_round:
            self._update_reference()
            self._rounds.reference_round = number
        num_fresh = round(self.fresh_fraction * len(prompts))
        if self.responses == "replay" and not past:
            num_fresh = len(prompts)
        groups = self._sample_groups(number, prompts[:num_fresh])
        if self.responses == "replay":
            num_replayed = len(prompts) - num_fresh
            groups += replayed_groups(past, num_replayed, seed=f"{self.seed} {number}")
        else:
            groups += recorded_groups(prompts[num_fresh:])
        records = self._label_records(groups, len(groups) if self.relabel else num_fresh)
        step = self._running.global_step
        for record in records:
            record["round"], record["step"] = number, step
        # as JSON has them: a checkpoint cannot restore a column of dates, which Parquet may have
        records = json.loads(json.dumps(records, default=str))
        folder = Path(self._running.default_root_dir) / "rounds"
        rank_zero_only(write_records)(folder / f"{number}.jsonl", records)
        outcomes = Counter(record.get("set_aside", "labelled") for record in records)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        scores = describe_seen_scores(records, self._trained_prompts)
        rank_zero_info(f"round {number} at step {step}: {len(records)} prompts, {counts}{scores}")
        return [record for record in records if "set_aside" not in record]

    def _sample_groups(self, number: int, prompts: list[Tree]) -> list[Group]:
        """Prompts with fresh responses from the policy."""
        if not prompts:  # a reward model has no policy to sample from
            return []
        processes = Processes.of(self._running)
        sample_some = partial(self._sample_some, number, prompts)
        return share_sampling(self._stage.sampler, processes, len(prompts), sample_some)

    def _sample_some(self, number: int, prompts: list[Tree], places: list[int]) -> list[Group]:
        """Prompts at some places with fresh responses."""
        stage = self._stage
        request = SamplingRequest(
            [prompts[place].prompt for place in places],
            max_new_tokens=stage.max_new_tokens,
            temperature=self.temperature,
            num_generations=self.num_generations,
            seed=step_seed(stage.seed, number),
            prompt_indices=places,
            batch_size=min(self.batch_size, len(places)) * self.num_generations,
            token_budget=self.token_budget,
            step=self._running.global_step,
        )
        with sampling_to_learn():
            completions, texts = sample_responses(
                stage.sampler, stage.adapters, stage.tokenizer, request
            )
        groups = []
        for place, generations, answers in zip(places, completions, texts, strict=True):
            group = prompts[place].group._replace(prompt_ids=prompts[place].prompt)
            groups.append(fresh_group(group, generations, answers, self.include_reference_answer))
        return groups

    def _label_records(self, groups: list[Group], num_queried: int) -> list[Record]:
        """Records of all groups; those that cannot be trained on carry the reason as ``set_aside``."""
        label_kind = self._stage.objective.label_kind
        processes = Processes.of(self._running)
        results = label_groups(groups, num_queried, self.feedback, label_kind, processes)
        records = []
        for group, result in zip(groups, results, strict=True):
            record = make_record(group, result)
            reason = result.reason or reason_to_set_aside(
                record, self._chat, label_kind, self.token_budget
            )
            if reason:
                record["set_aside"] = reason
            records.append(record)
        return records

    def _make_trees(self, records: list[Record]) -> list[Tree]:
        """The trees that records are trained as, with mismatched responses if the objective needs them."""
        label_kind = self._stage.objective.label_kind
        trees = [tree_from_record(record, self._chat, label_kind) for record in records]
        num_prompts = len({tuple(tree.prompt) for tree in trees})
        # with a single prompt there is no response to another one
        if num_prompts > 1 and getattr(self._stage, "mismatched", False):
            return [*add_mismatched_responses(trees, self.max_length)]
        return trees

    def _update_reference(self) -> None:
        """Move the reference to the policy, or part of the way."""
        if self.reference_update == "fixed":
            return
        weight = self.reference_ema if self.reference_update == "average" else 1.0
        self._stage.adapters.interpolate("reference", "policy", weight)

    def _attach_feedback(self) -> None:
        if self.feedback is not None and not self._feedback_attached:
            self.feedback.attach(self._stage.adapters, self._stage.tokenizer)
            self._feedback_attached = True
