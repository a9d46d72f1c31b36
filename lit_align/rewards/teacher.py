"""A teacher that reads what the policy sampled (on-policy distillation: Agarwal et al., 2024, https://arxiv.org/abs/2306.13649).

With another prompt the model is its own teacher: with a demonstration (SDFT: https://arxiv.org/abs/2601.19897), or with
a solution that it has found and what was wrong with its answer (SDPO: https://arxiv.org/abs/2601.20802).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_between
from lit_align.errors import ConfigError, DataError, ModelError
from lit_align.functional.divergence import Predictions
from lit_align.judges.base import load_template
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.load import Base
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores, column_text, response_text
from lit_align.rewards.teacher_model import (
    LoadedTeacher,
    TeacherModel,
    average_of_policy,
    teacher_of_role,
)
from lit_align.rewards.teacher_prompts import (
    encode_prompt,
    last_turn,
    reads_chat,
    require_sampled,
    sampled_trees,
    with_last_turn,
)
from lit_align.rewards.teacher_server import ServedTeacher, TeacherServer
from lit_align.types import Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


OTHERS = ("adapter", "base", "server")
NO_OTHER = "adapter, no base and no server"

NO_LESSON = (
    "the teacher is the reference, the policy as the run began, and is shown nothing: it teaches nothing but the way "
    "back from what another reward has taught; name a column or solved_by, or role other with an adapter, a base or a "
    "server"
)


class Lessons(NamedTuple):
    """What a teacher reads, and which responses it has something to teach.

    Args:
        trees: the responses of all groups, in order, under the teacher's prompts.
        taught: for each response, whether the teacher is shown something, or needs not be.
    """

    trees: list[Tree]
    taught: list[bool]


@dataclass(frozen=True)
class Teacher(Reward):
    r"""The log-probability that a teacher gives each sampled token, as a reward by token.

    .. math:: r_t = \log T(y_t \mid x', y_{<t})

    With the advantage ``ReverseKL`` the policy moves towards the teacher on its own samples: no score, no demonstration
    that it would not have said. Where the teacher is shown something, x' is the prompt with its last turn replaced by
    ``template``; otherwise the prompt itself.

    Args:
        role: who teaches: ``reference``, the policy as the run began, which alone and shown nothing teaches nothing;
            ``policy`` itself; ``average``, an exponential moving average of the policy's adapter; or ``other``:
            ``adapter``, ``base`` or ``server``.
        adapter: folder of an adapter on the policy's base.
        base: another model with the same vocabulary, in 4 bits unless it says otherwise.
        server: a model behind a server, with the same tokenizer; it gives the sampled tokens' log-probabilities alone.
        rate: share of the way to the policy that the average goes after each update.
        column: of the data, with what the teacher alone is shown: a demonstration, a solution, a critique; null for
            nothing.
        solved_by: a reward; the teacher is then shown the first other response to the prompt that it scores at least
            ``threshold``. A response without such a sibling, and without a column, is not scored.
        threshold: score of a response that is a solution.
        template: Jinja file with ``prompt``, ``shown`` and ``solution``; ``teacher`` is built in.
        temperature: of the teacher; that of ``RL`` is usual.
        token_budget: tokens in one forward pass.

    Raises:
        ConfigError: if role, adapter and base contradict each other, or the policy would teach itself what it knows.
        DataError: at a row whose column is empty.
        ModelError: for responses that were not sampled, or a teacher with another vocabulary.
    """

    role: Literal["reference", "policy", "average", "other"] = "reference"
    adapter: str | None = None
    base: Base | None = None
    server: TeacherServer | None = None
    rate: float = 0.05
    column: str | None = None
    solved_by: Reward | None = None
    threshold: float = 1.0
    template: str = "teacher"
    temperature: float = 1.0
    token_budget: int = 8192

    def __post_init__(self) -> None:
        named = [name for name in OTHERS if getattr(self, name) is not None]
        if len(named) != (self.role == "other"):
            raise ConfigError(
                f"the teacher's role is {self.role}, and it has {' and '.join(named) or f'no {NO_OTHER}'}; role other "
                f"takes one of {', '.join(OTHERS)}, and the others none"
            )
        check_between("rate", self.rate, 0.0, 1.0, "the share of the way to the policy")
        if self.server is not None and self.temperature != 1.0:
            raise ConfigError(
                f"temperature is {self.temperature:g}, and a server reads prompts at temperature 1; set it to 1"
            )
        if self.role in ("policy", "average") and self._is_shown_nothing:
            raise ConfigError(
                "the policy is its own teacher and is shown nothing, so that there is nothing to learn; name a column, "
                "or solved_by"
            )

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        super().attach(adapters, tokenizer)
        if self.role == "reference" and self._is_shown_nothing:
            warnings.warn(NO_LESSON, stacklevel=2)
        loaded: LoadedTeacher | ServedTeacher
        if self.server is not None:
            loaded = self.server.connect(tokenizer)
        elif self.role == "average":
            loaded = average_of_policy(adapters, tokenizer)
        elif self.role == "other":
            loaded = TeacherModel(self.adapter, self.base).load(adapters, tokenizer)
        else:
            loaded = teacher_of_role(adapters, self.role, tokenizer)
        self.__dict__["loaded"] = loaded

    def wrapped(self) -> Sequence[Wrapping]:
        return () if self.solved_by is None else (self.solved_by,)

    def can_split(self) -> bool:
        """A teacher in memory or a server has no price."""
        return self.solved_by is None or self.solved_by.can_split()

    def __call__(self, groups: Sequence[Group]) -> Scores:
        lessons = self._lessons(groups)
        tokens = self._loaded.token_logps(lessons.trees, self.temperature, self.token_budget)
        means = torch.stack([of_response.mean() for of_response in tokens])
        total, is_scored = torch.zeros(len(tokens)), torch.tensor(lessons.taught)
        return Scores(total, {"teacher_logp": means}, torch.cat(tokens), is_scored)

    def predict(self, trees: Sequence[Tree]) -> tuple[Predictions, Tensor]:
        """What the teacher predicts at each sampled token of ``trees``, in order, and whether it teaches it.

        Args:
            trees: of groups that a policy has sampled.

        Returns:
            The predictions, and ``[n]`` true where the teacher is shown something, or needs not be.
        """
        lessons = self._lessons([tree.group for tree in trees])
        loaded = self._loaded
        assert isinstance(loaded, LoadedTeacher)  # `check_distributions`
        predictions = loaded.predictions_of(lessons.trees, self.temperature, self.token_budget)
        lengths = [len(response) for tree in trees for response in tree.responses]
        taught = torch.tensor(lessons.taught).repeat_interleave(torch.tensor(lengths))
        return predictions, taught.to(predictions.states.device)

    def follow_policy(self) -> None:
        """After an update: an average moves towards the policy."""
        loaded = self._loaded
        if self.role == "average" and isinstance(loaded, LoadedTeacher):
            loaded.follow(self.rate)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs of it: the weights of an average; else nothing."""
        loaded = self._loaded
        if self.role != "average" or not isinstance(loaded, LoadedTeacher):
            return {}
        return loaded.adapters.copy_weights(loaded.role)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` has returned."""
        loaded = self._loaded
        if state and isinstance(loaded, LoadedTeacher):
            loaded.adapters.set_weights(loaded.role, state)

    def check_distributions(self, objective: str) -> None:
        """Refuse a teacher whose whole distribution an objective cannot read.

        Raises:
            ConfigError: naming the objective.
        """
        if self.server is not None:
            raise ConfigError(
                f"{objective} compares whole distributions, and a server gives the log-probabilities of sampled tokens "
                "alone; use ReverseKL with PolicyGradient"
            )
        if self.solved_by is not None and not self.solved_by.can_split():
            raise ConfigError(
                f"{objective} asks again which responses are solutions, and {type(self.solved_by).__name__} may have a "
                "price, or answer otherwise; use ReverseKL with PolicyGradient, or a reward whose can_split is true"
            )

    @property
    def _loaded(self) -> LoadedTeacher | ServedTeacher:
        loaded: LoadedTeacher | ServedTeacher | None = self.__dict__.get("loaded")
        if loaded is None:
            raise ModelError(
                f"{self} reads the tokens that a policy samples; use it as the reward of RL"
            )
        return loaded

    def _lessons(self, groups: Sequence[Group]) -> Lessons:
        lessons = Lessons([], [])
        for group, solutions in zip(groups, self._solutions(groups), strict=True):
            shown = self._shown(group)
            prompts = [self._prompt(self._loaded, group, shown, solution) for solution in solutions]
            lessons.trees.extend(sampled_trees(group, prompts))
            lessons.taught.extend(
                self._is_shown_nothing or bool(shown or solution) for solution in solutions
            )
        return lessons

    @property
    def _is_shown_nothing(self) -> bool:
        """Whether the teacher reads what the policy reads."""
        return self.column is None and self.solved_by is None

    def _shown(self, group: Group) -> str:
        """What a row has for the teacher alone."""
        if self.column is None:
            return ""
        shown = column_text(group, self.column)
        if not shown and self.solved_by is None:
            raise DataError(
                f"{group.source} has nothing in its column {self.column!r} to show to the teacher; name another column"
            )
        return shown

    def _solutions(self, groups: Sequence[Group]) -> list[list[str]]:
        """For each response the first other one to its prompt that is a solution; empty texts where there is none."""
        if self.solved_by is None:
            return [[""] * len(group.responses) for group in groups]
        scores = checked_scores(self.solved_by, groups, may_abstain=True)
        solved = (scores.total.cpu() >= self.threshold).tolist()
        solutions = []
        for group in groups:
            own, solved = solved[: len(group.responses)], solved[len(group.responses) :]
            right = [index for index, is_right in enumerate(own) if is_right]
            others = [[k for k in right if k != index] for index in range(len(own))]
            solutions.append([response_text(group.responses[k[0]]) if k else "" for k in others])
        return solutions

    def _prompt(
        self, loaded: LoadedTeacher | ServedTeacher, group: Group, shown: str, solution: str
    ) -> list[int]:
        """Token ids of what the teacher reads before a response."""
        require_sampled(group)
        if not (shown or solution) and self.base is None:
            return list(group.prompt_ids)
        as_chat = reads_chat(group, loaded.policy_tokenizer)
        if shown or solution:
            question = last_turn(group.prompt)
            text = load_template(self.template).render(
                prompt=question, shown=shown, solution=solution
            )
            group = group._replace(prompt=with_last_turn(group.prompt, text.rstrip()))
        return encode_prompt(group, loaded.tokenizer, as_chat)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Teacher)
