"""On-line training: responses from the current policy, labels from a feedback source, any objective, in rounds.

Guo et al., 2024, https://arxiv.org/abs/2402.04792, for on-line DPO; SPIN, RAFT, self-rewarding and iterative DPO differ
in who answers and who judges.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch.utilities import rank_zero_info

from lit_align.data.datamodules import TextDataModule
from lit_align.data.formats.groups import Groups, as_row
from lit_align.data.kto_mismatched import add_mismatched_responses
from lit_align.data.label_conversion import convert_labels, reference_answer
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError, Malformed, Overlong, SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.models.generate import check_context_length, sample
from lit_align.online.round_loader import Kept, Rounds, Row
from lit_align.rewards.base import as_response as answered
from lit_align.seeding import step_seed
from lit_align.types import Group, LabelKind, Text, Tree

IDS = "tokens"  # the column of a record with the ids of each response that was sampled
OLD = {
    "samples",
    "records",
    "round",
    "step",
    "set_aside",
}  # columns that say nothing of new responses to a prompt


class Online(TextDataModule):
    """Rounds: responses to each prompt, labels for them, one pass of training over both.

    Lightning sees an epoch per round. Checkpoints fall between steps; the rows of a round are part of them. Every round
    leaves its records in ``rounds/`` of the run folder.

    Args:
        train: prompts, with recorded responses where they are used.
        feedback: who labels; null only for responses and labels as they are recorded.
        responses: ``fresh`` ones from the policy, those of the ``dataset``, or again those of this run's earlier rounds
            (``replay``).
        relabel: of responses that are not fresh: ``refreshed`` by the feedback, or as ``recorded``.
        fresh_fraction: of a round's prompts that get fresh responses whatever the others have: the data's, or replayed ones. The
            first round has nothing to replay.
        rounds: how many; an epoch each.
        round_size: prompts in a round; null takes all.
        num_generations: responses to each prompt.
        include_reference_answer: whether the answer in the data stands beside fresh responses, held up as the target.
        temperature: at which the policy answers; the model's max_new_tokens is the limit of an answer.
        reference_update: ``fixed``, the policy as it was when the ``round`` began, or moved towards it then (``average``).
        reference_ema: how far the average moves each round, from 0 to 1.
        settings: everything that all data modules share.
    """

    label_kind = LabelKind.RESPONSES

    def __init__(
        self,
        train: str | list[str],
        feedback: Feedback | None = None,
        responses: Literal["fresh", "dataset", "replay"] = "fresh",
        relabel: Literal["refreshed", "recorded"] = "refreshed",
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
        for name, value in {
            "rounds": rounds,
            "round_size": round_size or 1,
            "num_generations": num_generations,
        }.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        for name, part in {
            "fresh_fraction": fresh_fraction,
            "reference_ema": reference_ema,
        }.items():
            if not 0 <= part <= 1:
                raise ConfigError(f"{name} is {part}; it is a share, from 0 to 1")
        self.fresh_fraction = 1.0 if responses == "fresh" else fresh_fraction
        if feedback is None and (self.fresh_fraction or relabel == "refreshed"):
            raise ConfigError(
                f"feedback is null, responses are {responses} and labels {relabel}; name who is to label them"
            )
        if responses == "replay" and not fresh_fraction:
            raise ConfigError(
                "responses are replay and share 0, so there would be nothing to replay; raise share"
            )
        if temperature <= 0 and num_generations > 1:
            raise ConfigError(
                f"temperature is {temperature}, so all {num_generations} samples would be alike; raise it"
            )
        self.feedback, self.responses, self.relabel, self.rounds = (
            feedback,
            responses,
            relabel,
            rounds,
        )
        self.round_size, self.num_generations, self.include_reference_answer, self.temperature = (
            round_size,
            num_generations,
            include_reference_answer,
            temperature,
        )
        self.reference_update, self.reference_ema = reference_update, reference_ema
        self._attached, self._rounds = False, Kept()

    # ------------------------------------------------------------------ what Lightning asks for

    def setup(self, stage: str) -> None:
        """Read the prompts, and let there be an epoch for each round."""
        running, module = self._running, self._module
        if module.objective.label_kind == "prompts":
            raise ConfigError(
                f"{type(module).__name__} samples by itself; give it the data module Prompts"
            )
        if self.fresh_fraction and "policy" not in module.trained_roles:
            raise ConfigError(
                f"responses are {self.responses}, share {self.fresh_fraction} and {type(module).__name__} trains no policy to "
                "give fresh ones; set responses to dataset and share to 0"
            )
        if running.world_size > 1:
            raise ConfigError(
                f"Online runs on one process, and there are {running.world_size}; set trainer.devices to 1"
            )
        if (
            self.reference_update != "fixed"
            and getattr(module, "cache_reference", None) is not None
        ):
            raise ConfigError(
                f"reference is {self.reference_update}, and cache_reference keeps a fixed one; leave it out"
            )
        if stage == "fit":
            limit = running.limit_train_batches
            if not running.fast_dev_run and (isinstance(limit, int) or limit < 1):  # type: ignore[attr-defined]
                raise ConfigError(
                    f"trainer.limit_train_batches is {limit}, and a round would go on in the epoch of the next one; "
                    "leave it out and lower data.round_size"
                )
            if running.max_epochs not in (
                -1,
                1,
                1000,
                self.rounds,
            ):  # the others are what it is where nothing is said
                raise ConfigError(
                    f"trainer.max_epochs is {running.max_epochs} and data.rounds {self.rounds}; leave max_epochs out"
                )
            running.fit_loop.max_epochs = self.rounds
        super().setup(stage)
        self._chat = ChatTokenizer(
            module.tokenizer, max_length=self.max_length, overlong=self.overlong, allow_empty=True
        )

    def label_kind_for(self, split: str) -> LabelKind:
        """Rows are read for what is used of them; what is validated on carries labels as recorded."""
        if split != "train":
            return cast(LabelKind, self._module.objective.label_kind)
        return (
            LabelKind.PROMPTS
            if self.fresh_fraction == 1 and not self.include_reference_answer
            else self.label_kind
        )

    def train_dataloader(self) -> Rounds:
        """Steps that are made when their round begins."""
        trees, module = self.trees["train"], self._module
        longest = max(len(tree.prompt) for tree in trees)
        check_context_length(module.adapters.model.config, longest, module.max_new_tokens)
        need = longest + self.num_generations * module.max_new_tokens
        if self.fresh_fraction and need > self.token_budget:
            raise ConfigError(
                f"a prompt of {longest} tokens and {self.num_generations} answers of up to {module.max_new_tokens} make {need} "
                f"tokens, over data.token_budget {self.token_budget}; raise it, or lower model.max_new_tokens"
            )
        return Rounds(
            trees,
            self.round_size or len(trees),
            self._make,
            self._understand,
            keeps=self.responses == "replay",
            kept=self._rounds,
            shuffle=self.shuffle,
            **self.packing_settings(),
        )

    def state_dict(self) -> dict[str, Any]:
        """What the rounds hold, the reference, if it has moved, and what the feedback has learned."""
        weights = (
            self._module.adapters.copy_weights("reference")
            if self.reference_update != "fixed"
            else {}
        )
        learned = self.feedback.state() if self.feedback else {}
        return {"rounds": dict(vars(self._rounds)), "reference": weights, "feedback": learned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._attach()
        self._rounds = Kept(**state["rounds"])
        self._module.adapters.set_weights("reference", state["reference"])
        if self.feedback:
            self.feedback.restore(state["feedback"])

    # ------------------------------------------------------------------ a round

    def _make(self, number: int, prompts: list[Tree], past: list[Row]) -> list[Row]:
        """Responses and labels, as records."""
        self._attach()
        if number and self.reference_update != "fixed":
            self._module.adapters.interpolate(
                "reference",
                "policy",
                self.reference_ema if self.reference_update == "average" else 1.0,
            )
        fresh = (
            len(prompts)
            if self.responses == "replay" and not past
            else round(self.fresh_fraction * len(prompts))
        )
        groups = [*self._fresh(number, prompts[:fresh]), *self._kept(number, prompts[fresh:], past)]
        asked = len(groups) if self.relabel == "refreshed" else fresh
        opinions = [
            FeedbackResult(group, reason=group.extra.get("set_aside", "")) for group in groups
        ]
        if self.feedback is not None:
            opinions[:asked] = self.feedback(groups[:asked], self._module.objective.label_kind)
        step = self._running.global_step
        rows = [self._row(group, opinion) for group, opinion in zip(groups, opinions, strict=True)]
        # only what JSON has words for: a column from Parquet may be a date, which no checkpoint takes back
        rows = json.loads(
            json.dumps([{**row, "round": number, "step": step} for row in rows], default=str)
        )
        _keep(Path(self._running.default_root_dir) / "rounds" / f"{number}.jsonl", rows)
        fates = Counter(row.get("set_aside", "labelled") for row in rows)
        told = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
        rank_zero_info(f"round {number} at step {step}: {len(rows)} prompts, {told}")
        return [row for row in rows if "set_aside" not in row]

    def _row(self, asked: Group, opinion: FeedbackResult) -> Row:
        """A record: the responses that got a label, with their ids, who said so, and what else was sampled."""
        group, records, why = opinion
        group = asked if group is None else group
        extra = {name: value for name, value in group.extra.items() if name != "set_aside"}
        extra[IDS] = _ids(asked.responses, asked.extra[IDS], group.responses)
        extra |= {} if group.responses == asked.responses else {"samples": asked.responses}
        row = {
            **as_row(group._replace(extra=extra)),
            "source": asked.source,
            "records": list(records),
        }
        why = why or self._unusable(row)
        return {**row, "set_aside": why} if why else row

    def _fresh(self, number: int, prompts: list[Tree]) -> list[Group]:
        """What the policy says now, ids beside it; the answer to be held up comes first."""
        module, groups = self._module, []
        if not prompts:  # a reward model has no policy to ask
            return []
        with module.adapters.activate("policy", training=False) as model:
            found = sample(
                model,
                module.tokenizer,
                [tree.prompt for tree in prompts],
                max_new_tokens=module.max_new_tokens,
                num_generations=self.num_generations,
                temperature=self.temperature,
                seed=step_seed(module.seed, number),
                batch_size=self.batch_size * self.num_generations,
                token_budget=self.token_budget,
            )
        for tree, said in zip(prompts, found, strict=True):
            group = tree.group
            held: list[Text] = []
            with suppress(
                SetAside
            ):  # what is then to be said of the fresh ones, the feedback knows
                held = [reference_answer(group)] if self.include_reference_answer else []
            texts = [
                str(module.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in said
            ]
            extra = {name: value for name, value in group.extra.items() if name not in OLD}
            extra[IDS] = [*([None] * len(held)), *(one.ids for one in said)]
            responses = [*held, *(answered(group, text) for text in texts)]
            target = 0 if held else None
            groups.append(
                Group(group.prompt, responses, target=target, source=group.source, extra=extra)
            )
        return groups

    def _kept(self, number: int, prompts: list[Tree], past: list[Row]) -> list[Group]:
        """Responses as the data have them, or a draw of earlier records."""
        if self.responses == "replay":
            # what was replayed is there again
            once = {
                json.dumps([row[of] for of in ("source", "responses", IDS)]): row for row in past
            }
            drawn = random.Random(f"{self.seed} {number}").choices(
                list(once.values()), k=len(prompts)
            )
            return [_group(row) for row in drawn]
        groups = [tree.group for tree in prompts]
        known = [group.extra.get(IDS) or [None] * len(group.responses) for group in groups]
        return [
            group._replace(extra={**group.extra, IDS: ids})
            for group, ids in zip(groups, known, strict=True)
        ]

    def _understand(self, rows: list[Row]) -> list[Tree]:
        trees = [self._tree(row) for row in rows]
        several = (
            len({tuple(tree.prompt) for tree in trees}) > 1
        )  # else no response belongs to another prompt
        return (
            add_mismatched_responses(trees, self.max_length)
            if several and getattr(self._module, "mismatched", False)
            else trees
        )

    def _tree(self, row: Row) -> Tree:
        """What a record stands for; sampled responses as the very tokens that were sampled."""
        whole = _group(row)
        tree = self._chat.encode(convert_labels(whole, self._module.objective.label_kind)).tree
        known = [
            its and its[: self.max_length - len(tree.prompt)]
            for its in _ids(whole.responses, row[IDS], tree.group.responses)
        ]
        return tree._replace(
            responses=[its or old for its, old in zip(known, tree.responses, strict=True)],
            scored=[
                [True] * len(its) if its else old
                for its, old in zip(known, tree.scored, strict=True)
            ],
        )

    def _unusable(self, row: Row) -> str:
        """Why nothing can be learned from a record, if so."""
        try:
            tree = self._tree(row)
        except (Malformed, SetAside, Overlong) as reason:
            return str(reason)
        return "longer than token_budget" if tree.tokens > self.token_budget else ""

    def _attach(self) -> None:
        if self.feedback is not None and not self._attached:
            self.feedback.attach(self._module.adapters, self._module.tokenizer)
            self._attached = True

    @property
    def _module(self) -> Any:
        return cast(Any, self._running.lightning_module)


def _group(row: Row) -> Group:
    return Groups()(row)._replace(source=row["source"])


def _ids(
    responses: list[Text], ids: list[list[int] | None], chosen: list[Text]
) -> list[list[int] | None]:
    """Those of the chosen responses; the same text may have been sampled twice, as other tokens."""
    known: dict[str, list[list[int] | None]] = {}
    for one, its in zip(responses, ids, strict=True):
        known.setdefault(json.dumps(one), []).append(its)
    return [known[text].pop(0) if known.get(text := json.dumps(one)) else None for one in chosen]


def _keep(file: Path, rows: list[Row]) -> None:
    """Write a round's records, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    part.replace(file)
