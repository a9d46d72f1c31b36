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
from lit_align.data.packing import pack
from lit_align.data.scoring import UNLIMITED, limit_to_positions
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError, DataError, ModelError
from lit_align.judges.base import load_template
from lit_align.models.adapter_files import attach_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.check_once import check_once
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores, column_text, response_text
from lit_align.types import Text, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


NO_LESSON = (
    "the teacher is the reference, the policy as the run began, and is shown nothing: it teaches nothing but the way "
    "back from what another reward has taught; name a column or solved_by, or role other with an adapter or a base"
)


class LoadedTeacher(NamedTuple):
    """The teacher in memory: role among a base's adapters, tokenizer and forward pass; the policy's tokenizer."""

    adapters: AdapterSet
    role: str
    tokenizer: PreTrainedTokenizerBase
    tree_forward: TreeForward
    policy_tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Teacher(Reward):
    r"""The log-probability that a teacher gives each sampled token, as a reward by token.

    .. math:: r_t = \log T(y_t \mid x', y_{<t})

    With the advantage ``ReverseKL`` the policy moves towards the teacher on its own samples: no score, no demonstration
    that it would not have said. Where the teacher is shown something, x' is the prompt with its last turn replaced by
    ``template``; otherwise the prompt itself.

    Args:
        role: who teaches: ``reference``, the policy as the run began, which alone and shown nothing teaches nothing;
            ``policy`` itself; or ``other``: ``adapter``, or ``base``.
        adapter: folder of an adapter on the policy's base.
        base: another model with the same vocabulary, in 4 bits unless it says otherwise.
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

    role: Literal["reference", "policy", "other"] = "reference"
    adapter: str | None = None
    base: Base | None = None
    column: str | None = None
    solved_by: Reward | None = None
    threshold: float = 1.0
    template: str = "teacher"
    temperature: float = 1.0
    token_budget: int = 8192

    def __post_init__(self) -> None:
        named = [name for name in ("adapter", "base") if getattr(self, name) is not None]
        if len(named) != (self.role == "other"):
            raise ConfigError(
                f"the teacher's role is {self.role}, and it has {' and '.join(named) or 'no adapter and no base'}; "
                "role other takes one of adapter and base, and the others none"
            )
        if self.role == "policy" and self._is_shown_nothing:
            raise ConfigError(
                "the policy is its own teacher and is shown nothing, so that there is nothing to learn; name a column, "
                "or solved_by"
            )

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.solved_by is not None:
            self.solved_by.attach(adapters, tokenizer)
        if self.role == "reference" and self._is_shown_nothing:
            warnings.warn(NO_LESSON, stacklevel=2)
        policy_tokenizer = tokenizer
        role = "teacher" if self.role == "other" else self.role
        if self.base is not None:
            role = "reference"  # of the other base, without an adapter
            adapters, tokenizer = _other_base(self.base, tokenizer)
        elif self.adapter is not None:
            attach_adapter(adapters, role, self.adapter)
        tree_forward = TreeForward(adapters.model)
        check_once(tree_forward)
        self.__dict__["loaded"] = LoadedTeacher(
            adapters, role, tokenizer, tree_forward, policy_tokenizer
        )

    def trained_prompts(self) -> frozenset[str]:
        return frozenset() if self.solved_by is None else self.solved_by.trained_prompts()

    def can_split(self) -> bool:
        return self.solved_by is None or self.solved_by.can_split()

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        loaded: LoadedTeacher | None = self.__dict__.get("loaded")
        if loaded is None:
            raise ModelError(
                f"{self} reads the tokens that a policy samples; use it as the reward of RL"
            )
        trees: list[Tree] = []
        scored: list[bool] = []
        for group, solutions in zip(groups, self._solutions(groups), strict=True):
            shown = self._shown(group)
            prompts = [self._prompt(loaded, group, shown, solution) for solution in solutions]
            trees += _trees(group, prompts)
            scored += [self._is_shown_nothing or bool(shown or solution) for solution in solutions]
        tokens = self._token_logps(loaded, trees)
        means = torch.stack([of_response.mean() for of_response in tokens])
        total, is_scored = torch.zeros(len(tokens)), torch.tensor(scored)
        return Scores(total, {"teacher_logp": means}, torch.cat(tokens), is_scored)

    def _token_logps(self, loaded: LoadedTeacher, trees: Sequence[Tree]) -> list[Tensor]:
        """Log-probabilities of the tokens of each response, in the order of ``trees``."""
        _check_positions(loaded.adapters, trees)
        settings = loaded.adapters.loaded_as
        dense = settings is None or settings.attention != "flex_attention"
        budget = max([self.token_budget, *(tree.tokens for tree in trees)])
        logps: dict[int, list[Tensor]] = {}
        for batch in pack(trees, budget, dense=dense):
            packed = batch.trees.to(loaded.adapters.model.device)
            with loaded.adapters.activate(loaded.role, training=False):
                flat = loaded.tree_forward(packed, temperature=self.temperature).logps.float().cpu()
            for tree in batch.source:
                lengths = [len(response) for response in tree.responses]
                logps[id(tree)] = [*torch.split(flat[: sum(lengths)], lengths)]
                flat = flat[sum(lengths) :]
        return [of_response for tree in trees for of_response in logps[id(tree)]]

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

    def _prompt(self, loaded: LoadedTeacher, group: Group, shown: str, solution: str) -> list[int]:
        """Token ids of what the teacher reads before a response."""
        if not group.response_ids or any(ids is None for ids in group.response_ids):
            raise ModelError(
                f"the responses to {group.source} were not sampled by the policy; use RL"
            )
        if not (shown or solution) and self.base is None:
            return list(group.prompt_ids)
        as_chat = _reads_chat(group, loaded.policy_tokenizer)
        if shown or solution:
            question = _last_turn(group.prompt)
            text = load_template(self.template).render(
                prompt=question, shown=shown, solution=solution
            )
            group = group._replace(prompt=_with_last_turn(group.prompt, text.rstrip()))
        return _encode_prompt(group, loaded.tokenizer, as_chat)


def _other_base(
    base: Base, tokenizer: PreTrainedTokenizerBase
) -> tuple[AdapterSet, PreTrainedTokenizerBase]:
    """Another model as a teacher.

    Raises:
        ModelError: if its tokens are not the policy's.
    """
    own = load_tokenizer(base)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"the teacher {base.path!r} has another vocabulary than the policy, so it cannot read the policy's tokens; "
            "take one of the same family, or let it write answers for SFT"
        )
    return AdapterSet(load_model(base), Lora(), gradient_checkpointing=False), own


def _trees(group: Group, prompts: list[list[int]]) -> list[Tree]:
    """The sampled responses under what the teacher reads before each: one tree where that is the same for all."""
    ids = [list(response or ()) for response in group.response_ids]
    scored = [[True] * len(response) for response in ids]
    if all(prompt == prompts[0] for prompt in prompts):
        return [Tree(prompts[0], ids, scored, group)]
    parts = zip(prompts, ids, scored, strict=True)
    return [Tree(prompt, [own], [mask], group) for prompt, own, mask in parts]


def _check_positions(adapters: AdapterSet, trees: Sequence[Tree]) -> None:
    """Refuse what is longer than the teacher can read.

    Raises:
        ModelError: naming the row and the length.
    """
    for tree in trees:
        longest = len(tree.prompt) + max(map(len, tree.responses))
        limit = limit_to_positions(adapters.model, longest)
        if limit < longest:
            raise ModelError(
                f"the teacher's prompt for {tree.group.source} and a response have {longest} tokens, and it reads "
                f"{limit}; show it less, or lower max_new_tokens"
            )


def _encode_prompt(group: Group, tokenizer: PreTrainedTokenizerBase, as_chat: bool) -> list[int]:
    chat = ChatTokenizer(tokenizer, max_length=UNLIMITED, allow_empty=True, as_chat=as_chat)
    return chat.encode(group._replace(responses=[])).tree.prompt


def _reads_chat(group: Group, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the policy read the prompt as turns of a chat.

    Raises:
        ModelError: if neither gives the tokens that it read.
    """
    for as_chat in (True, False):
        if _encode_prompt(group, tokenizer, as_chat) == list(group.prompt_ids):
            return as_chat and bool(tokenizer.chat_template)
    raise ModelError(
        f"the prompt of {group.source} was tokenized otherwise than the teacher would; leave "
        "special_tokens_in_text and learned_turns at their defaults"
    )


def _last_turn(prompt: Text) -> str:
    """The text of a prompt, or of the last of its turns."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _with_last_turn(prompt: Text, text: str) -> Text:
    """A prompt with other text in its last turn."""
    if isinstance(prompt, str):
        return text
    return [*prompt[:-1], {**prompt[-1], "content": text}]


@hookimpl
def register_rewards(register: Register) -> None:
    register(Teacher)
