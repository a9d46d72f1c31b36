"""The data types passed between packages: groups of responses, packed trees, log-probabilities, labels.

Vocabulary:

- **prompt**: the text or conversation that responses continue; never trained on.
- **response**: one continuation of a prompt: text, or turns of which the assistant's are trained on.
- **label kind**: what is known about responses: pairs, binary labels, a ranking, ratings, labels of solution steps, or
  demonstrations to imitate.
- **solution step**: a part of a response that is judged by itself, such as a line of a calculation.
- **group**: a prompt, K responses to it and their labels, as text.
- **tree**: a group as token ids; the prompt is stored, and computed, once for all responses.
- **scored token**: a token whose log-probability the model computes: those of the assistant, with the end of each turn.
- **micro-batch** (`Batch`): trees packed under a token budget, one forward pass.
- **step** (`Step`): the micro-batches of one optimizer step.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.batch_labels import Pair as Pair
from lit_align.batch_labels import PairLabels, RankLabels, UnpairedLabels
from lit_align.batch_labels import SolutionStep as SolutionStep

Message = dict[str, Any]
"""One turn of a conversation: ``{"role": "user", "content": "..."}``, with what else a chat template reads."""

Text = str | list[Message]
"""Plain text, or messages that a chat template renders."""


class LabelKind(StrEnum):
    """What a row says about its responses, and what an objective trains on."""

    DEMONSTRATIONS = "demonstrations"
    """Responses to imitate."""
    PAIRS = "pairs"
    """Comparisons: one response is better than another."""
    DESIRABLE = "desirable"
    """Binary labels: each response is desirable or not."""
    RANKING = "ranking"
    """K responses in an order."""
    RATINGS = "ratings"
    """Numbers for each response, by attribute."""
    STEPS = "steps"
    """Whether each step of a response is right."""
    PROMPTS = "prompts"
    """Prompts only: the policy samples the responses."""
    RESPONSES = "responses"
    """Responses with any labels or none; a feedback source labels them."""


class Group(NamedTuple):
    """One prompt, K responses to it, and their labels.

    Args:
        prompt: what every response continues; never scored.
        responses: K continuations; in messages, every assistant turn is scored.
        pairs: comparisons between responses, by index.
        desirable: binary label of each response, or empty.
        ranking: place of each response, 1 for the best, or empty; equal places are a tie, and 0 is unplaced: worse than
            all that have a place.
        ratings: ratings of each response by attribute, or empty; an attribute that was not rated is left out.
        target: index of the reference answer, which takes no part in the comparisons; None if there is none.
        source: where the row came from, as ``file:row``.
        extra: the row's other columns, unchanged.
        tools: functions that the chat template offers to the assistant, as JSON schemas.
        template_kwargs: further arguments of the chat template for this row.
        continues: whether responses continue the prompt word by word, as a language model's text does; such a row is
            never rendered as a chat.
        prompt_ids: the prompt as the policy read it, where responses are sampled; else empty.
        response_ids: token ids of each response as it was sampled, with the token that ends it; None for a response
            that was not sampled, empty where none was.
        steps: the steps of each response, which together are its text, or empty.
        annotator: who gave the labels, from the column of that name; empty if the row does not say.
        beginnings: text of each response that goes on after it, with the blanks at its end; None for a response that is
            complete, empty where all are.
    """

    prompt: Text
    responses: list[Text]
    pairs: tuple[Pair, ...] = ()
    desirable: tuple[bool, ...] = ()
    ranking: tuple[int, ...] = ()
    ratings: tuple[dict[str, float], ...] = ()
    target: int | None = None
    source: str = ""
    extra: dict[str, Any] = {}  # noqa: RUF012 - never written to
    tools: tuple[dict[str, Any], ...] = ()
    template_kwargs: dict[str, Any] = {}  # noqa: RUF012 - never written to
    continues: bool = False
    prompt_ids: Sequence[int] = ()
    response_ids: Sequence[Sequence[int] | None] = ()
    steps: tuple[tuple[SolutionStep, ...], ...] = ()
    annotator: str = ""
    beginnings: Sequence[str | None] = ()

    @property
    def items(self) -> int:
        """Number of labels: comparisons, binary labels, rated responses, labelled steps, or one ranking."""
        if self.steps:
            return len(self.step_labels)
        return len(self.pairs) or len(self.desirable) or len(self.ratings) or bool(self.ranking)

    @property
    def step_labels(self) -> list[float]:
        """Labels of the steps that are learned from, all responses in order."""
        steps = [step for response in self.steps for step in response]
        return [step.label for step in steps if step.label is not None]


class Branch(NamedTuple):
    """A later part of a response, under a prompt of its own.

    Chat templates of thinking models write earlier turns otherwise than the newest one, without its thoughts for
    example. Each turn is then learned under the prompt that it is sampled from.

    Args:
        response: index of the response that the part belongs to.
        prompt: ids of the conversation so far, as the template writes it here.
        ids: ids of the part.
        scored: which of them are trained on.
    """

    response: int
    prompt: list[int]
    ids: list[int]
    scored: list[bool]


class Tree(NamedTuple):
    """A group as token ids: the prompt once, each response after it.

    Args:
        prompt: ids shared by all responses; at least one.
        responses: ids of each response.
        scored: for each response, which of its ids are trained on.
        group: the group that was tokenised.
        mismatched: how many responses at the end belong to another prompt; they get log-probabilities, but no gradient.
        branches: parts of responses that have another prompt; a response's log-probability includes those of its parts.
    """

    prompt: list[int]
    responses: list[list[int]]
    scored: list[list[bool]]
    group: Group
    mismatched: int = 0
    branches: tuple[Branch, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, of all responses and of their branches."""
        tokens = len(self.prompt) + sum(map(len, self.responses))
        return tokens + sum(len(branch.prompt) + len(branch.ids) for branch in self.branches)

    @property
    def num_scored(self) -> int:
        """Scored tokens of all responses."""
        return sum(map(sum, self.scored)) + sum(sum(branch.scored) for branch in self.branches)

    def parts_of(self, response: int) -> list[Branch]:
        """All parts of a response, each with its prompt, in the order of the conversation."""
        first = Branch(response, self.prompt, self.responses[response], self.scored[response])
        return [first, *(branch for branch in self.branches if branch.response == response)]


class PackedTrees(NamedTuple):
    """Several trees laid out in rows; a token attends to its own prompt and its own response.

    Args:
        input_ids: ``[rows, length]``.
        position_ids: ``[rows, length]``; a response continues its prompt's positions.
        tree: ``[rows, length]``, which tree a token belongs to; -1 is padding.
        response: ``[rows, length]``, which response of the batch a token belongs to; -1 is prompt or padding.
        predictor: ``[n]``, index into ``rows * length`` of the token that predicts each scored token.
        target: ``[n]``, the id of each scored token.
        owner: ``[n]``, the response each scored token belongs to.
        responses: number of responses.
        longest: scored tokens of the response that has most; None if only ``owner`` tells.
    """

    input_ids: Tensor
    position_ids: Tensor
    tree: Tensor
    response: Tensor
    predictor: Tensor
    target: Tensor
    owner: Tensor
    responses: int
    longest: int | None = None

    def to(self, device: torch.device) -> PackedTrees:
        """The same on ``device``."""
        fields = self._asdict().items()
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in fields if isinstance(value, Tensor)
        }
        return self._replace(**moved)


class TokenLogps(NamedTuple):
    """Log-probabilities and other metrics of each scored token; every field is ``[n]``.

    Args:
        logps: log-probability of the token, with gradient.
        entropy: of the predicted distribution, in nats; detached, None unless requested.
        mean_logit: mean of the logits; likewise.
        top1: whether the token was the most probable one; likewise.
        collision: log of the probability that two draws from the distribution agree, in nats; likewise.
        divergence: of the predicted distribution from another model's, in nats, with gradient; None unless requested.
    """

    logps: Tensor
    entropy: Tensor | None = None
    mean_logit: Tensor | None = None
    top1: Tensor | None = None
    collision: Tensor | None = None
    divergence: Tensor | None = None


class DivergenceFrom(NamedTuple):
    """The divergence that an objective reads: between the policy's whole distribution and another's, at each token.

    Args:
        role: the other: ``"reference"`` or ``"teacher"``.
        beta: of `generalized_jsd`, from 0, the forward KL divergence, to 1, the reverse one.
    """

    role: Literal["reference", "teacher"]
    beta: float


class PerTokenLogps(NamedTuple):
    """Metrics of each scored token, ``[responses, longest]``; padded with zeros.

    Args:
        policy: log-probability of the token.
        reference: the same under the reference model; None unless requested.
        collision: log of the probability that two draws from the policy at this token agree; likewise.
    """

    policy: Tensor
    reference: Tensor | None = None
    collision: Tensor | None = None

    def take(self, index: Tensor) -> PerTokenLogps:
        """The responses at ``index`` (``[m]``), in that order."""
        optional = (None if field is None else field[index] for field in self[1:])
        return PerTokenLogps(self.policy[index], *optional)


class Logps(NamedTuple):
    """Log-probabilities of responses; every field is ``[responses]``.

    Args:
        policy: summed over the scored tokens of each response.
        reference: the same under the reference model.
        length: scored tokens of each response.
        tokens: the same token by token, for objectives that need it.
    """

    policy: Tensor
    reference: Tensor
    length: Tensor
    tokens: PerTokenLogps | None = None

    @classmethod
    def from_lists(
        cls,
        policy: list[float],
        reference: list[float] | None = None,
        length: list[int] | None = None,
    ) -> Logps:
        """Build from plain numbers, for examples and tests.

        Example:
            >>> Logps.from_lists([-10.0], [-12.0]).length
            tensor([1])
        """
        logps = torch.tensor(policy)
        return cls(
            logps,
            torch.zeros_like(logps) if reference is None else torch.tensor(reference),
            torch.ones_like(logps, dtype=torch.long) if length is None else torch.tensor(length),
        )

    def take(self, index: Tensor) -> Logps:
        """The responses at ``index`` (``[m]``), in that order."""
        tokens = self.tokens and self.tokens.take(index)
        return Logps(self.policy[index], self.reference[index], self.length[index], tokens)


class PolicyTokens(NamedTuple):
    """Tokens of sampled responses; every field is ``[n]``.

    Args:
        policy: log-probability under the current policy, with gradient.
        old_policy: under the policy that sampled them.
        reference: under the reference model.
        owner: which response a token belongs to.
        entropy: of the distribution that a token was predicted with before the first update, in nats, without gradient;
            None where it is not known, as in examples.
        sampler: log-probability as what sampled computed it: another engine, or an older policy; likewise.
        divergence: of the whole distribution from another's, in nats, with gradient, if the objective has a
            ``divergence_from``; 0 where the teacher has nothing to teach.
    """

    policy: Tensor
    old_policy: Tensor
    reference: Tensor
    owner: Tensor
    entropy: Tensor | None = None
    sampler: Tensor | None = None
    divergence: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``values``, ``[n]``, over the tokens of each response, ``[responses]``."""
        count = torch.bincount(self.owner)
        return values.new_zeros(len(count)).index_add(0, self.owner, values) / count.clamp(min=1)


class Scores(NamedTuple):
    """Scores of responses by a reward; float32.

    Args:
        total: ``[responses]``, higher for a better one.
        parts: ``[responses]`` each, components of the total by name, for the log; nan where a response has none.
        tokens: ``[n]``, additional reward of each token, all responses in order, with the token that ends each; None
            for none.
        scored: ``[responses]``, false for a response that could not be scored; None if all were. Such a response leaves
            its group, whatever its total is and whatever other rewards give it: it is compared with none, nothing is
            learned from it, and it is counted.
    """

    total: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
    tokens: Tensor | None = None
    scored: Tensor | None = None


class Batch(NamedTuple):
    """One micro-batch of a step: what passes through the model at once.

    Args:
        trees: the packed tokens.
        source: the trees in the order they were packed.
        pairs: their comparisons, or None.
        unpaired: their binary labels, or None.
        rankings: their rankings, or None.
    """

    trees: PackedTrees
    source: tuple[Tree, ...]
    pairs: PairLabels | None = None
    unpaired: UnpairedLabels | None = None
    rankings: RankLabels | None = None


class Step(NamedTuple):
    """The data of one optimizer step on this rank.

    The loss of a step is the sum over its micro-batches divided by the step's global count, so that neither the token
    budget nor the number of processes changes the loss or its gradient.

    Args:
        batches: micro-batches, each within the token budget; may be empty if the step has fewer groups than ranks.
        tokens: scored tokens of the whole step, all ranks together.
        items: labels of the whole step, all ranks together: comparisons, binary labels, rated responses, solution
            steps or rankings.
        groups: prompts of the whole step, all ranks together.
    """

    batches: tuple[Batch, ...]
    tokens: int
    items: int
    groups: int

    @classmethod
    def from_batches(cls, batches: tuple[Batch, ...]) -> Step:
        """A step of these micro-batches and no others."""
        groups = [tree.group for batch in batches for tree in batch.source]
        tokens = sum(len(batch.trees.target) for batch in batches)
        return cls(batches, tokens, sum(group.items for group in groups), len(groups))

    @property
    def trees(self) -> list[Tree]:
        """The trees of all its micro-batches, in order."""
        return [tree for batch in self.batches for tree in batch.source]
