"""The data types passed between packages: groups of responses, packed trees, log-probabilities, labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

Message = dict[str, str]
"""One turn of a conversation: ``{"role": "user", "content": "..."}``."""

Text = str | list[Message]
"""Plain text, or messages that a chat template renders."""


class LabelKind(StrEnum):
    """What a row says about its responses, and what an objective learns from."""

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
    PROMPTS = "prompts"
    """No response: the policy samples them."""
    RESPONSES = "responses"
    """Responses with whatever labels they carry; a feedback source labels them."""


class Pair(NamedTuple):
    """One comparison between two responses of a group.

    Args:
        better: index of the response that was preferred.
        worse: index of the other one.
        probability: how sure the label is, in (0, 1]; 0.5 is a coin toss.
        margin: by how much it is better, in the annotator's units.
    """

    better: int
    worse: int
    probability: float = 1.0
    margin: float = 0.0


class Group(NamedTuple):
    """One prompt, K responses to it, and what somebody thinks of them.

    Args:
        prompt: what every response continues; never scored.
        responses: K branches; in messages, every assistant turn is scored.
        pairs: comparisons between responses, by index.
        desirable: thumbs up or down for each response, or empty.
        ranking: place of each response, 1 for the best, or empty; the same place is a tie, and 0 is only known to be
            behind all that have a place.
        ratings: what was measured of each response, by attribute, or empty; what was not measured is left out.
        target: index of a response held up as the answer, outside of the comparisons; None if there is none.
        source: where the row came from, as ``file:row``.
        extra: the row's other columns, as found.
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

    @property
    def items(self) -> int:
        """Labels that it carries: comparisons, thumbs, rated responses, or one ranking."""
        return len(self.pairs) or len(self.desirable) or len(self.ratings) or bool(self.ranking)


class Tree(NamedTuple):
    """A group as token ids: the prompt once, each response after it.

    Args:
        prompt: ids shared by all responses; at least one.
        responses: ids of each response.
        scored: for each response, which of its ids are learned from.
        group: where it came from.
        mismatched: how many responses at the end belong to another prompt; they are read, never learned from.
    """

    prompt: list[int]
    responses: list[list[int]]
    scored: list[list[bool]]
    group: Group
    mismatched: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that the model reads for this tree."""
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def num_scored(self) -> int:
        """Scored tokens of all responses."""
        return sum(map(sum, self.scored))


class PackedTrees(NamedTuple):
    """Several trees laid out in rows; a token sees its own prompt and its own response.

    Args:
        input_ids: ``[rows, length]``.
        position_ids: ``[rows, length]``; a response continues its prompt's positions.
        tree: ``[rows, length]``, which tree a token belongs to; -1 is padding.
        response: ``[rows, length]``, which response of the batch; -1 is prompt or padding.
        predictor: ``[n]``, index into ``rows * length`` of the token that predicts each scored token.
        target: ``[n]``, the id of each scored token.
        owner: ``[n]``, the response each scored token belongs to.
        responses: how many responses there are.
    """

    input_ids: Tensor
    position_ids: Tensor
    tree: Tensor
    response: Tensor
    predictor: Tensor
    target: Tensor
    owner: Tensor
    responses: int

    def to(self, device: torch.device) -> PackedTrees:
        """The same on ``device``."""
        moved = {
            name: one.to(device) for name, one in self._asdict().items() if isinstance(one, Tensor)
        }
        return PackedTrees(**moved, responses=self.responses)


class TokenLogps(NamedTuple):
    """What a model says of each scored token; every field is ``[n]``.

    Args:
        logps: log-probability of the token, with gradient.
        entropy: of the distribution it was drawn from, in nats; detached, None unless asked for.
        mean_logit: mean of the logits it was drawn from; likewise.
        top1: whether the token was the likeliest; likewise.
        collision: log of the chance that two draws from that distribution agree, in nats; likewise.
    """

    logps: Tensor
    entropy: Tensor | None = None
    mean_logit: Tensor | None = None
    top1: Tensor | None = None
    collision: Tensor | None = None


class PerTokenLogps(NamedTuple):
    """Figures of each scored token, ``[responses, longest]``; zero behind the end of a response.

    Args:
        policy: log-probability of the token.
        reference: the same under the reference model; None unless asked for.
        collision: log of the chance that two draws from the policy at this token agree; likewise.
    """

    policy: Tensor
    reference: Tensor | None = None
    collision: Tensor | None = None

    def take(self, index: Tensor) -> PerTokenLogps:
        """The responses at ``index`` (``[m]``), in that order."""
        policy, *asked = (None if field is None else field[index] for field in self)
        assert policy is not None
        return PerTokenLogps(policy, *asked)


class Logps(NamedTuple):
    """Log-probabilities of responses; every field is ``[responses]``.

    Args:
        policy: summed over the scored tokens of each response.
        reference: the same under the reference model.
        length: scored tokens of each response.
        tokens: the same token by token, for objectives that ask for it.
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
        made = torch.tensor(policy)
        return cls(
            made,
            torch.zeros_like(made) if reference is None else torch.tensor(reference),
            torch.ones_like(made, dtype=torch.long) if length is None else torch.tensor(length),
        )

    def take(self, index: Tensor) -> Logps:
        """The responses at ``index`` (``[m]``), in that order."""
        tokens = self.tokens and self.tokens.take(index)
        return Logps(self.policy[index], self.reference[index], self.length[index], tokens)


class PolicyTokens(NamedTuple):
    """Tokens of sampled responses; every field is ``[n]``.

    Args:
        policy: log-probability under the policy as it is now, with gradient.
        old_policy: under the policy that sampled them.
        reference: under the reference model.
        owner: which response a token belongs to.
    """

    policy: Tensor
    old_policy: Tensor
    reference: Tensor
    owner: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``values``, ``[n]``, over the tokens of each response, ``[responses]``."""
        count = torch.bincount(self.owner)
        return values.new_zeros(len(count)).index_add(0, self.owner, values) / count.clamp(min=1)


class Scores(NamedTuple):
    """What a reward says of responses; float32.

    Args:
        total: ``[responses]``, higher for a better one.
        parts: ``[responses]`` each, what the total is made of, by name, for the log.
        tokens: ``[n]``, what each token earns besides, all responses in order, the token that ends one included; None
            for nothing.
    """

    total: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
    tokens: Tensor | None = None


class PairLabels(NamedTuple):
    """The comparisons of a batch; every field is ``[pairs]``.

    Args:
        chosen: which response of the batch was preferred.
        rejected: which one was not.
        probability: that the preference is right.
        margin: by how much.
        target: a third response that is held up as the answer; -1 where there is none.
    """

    chosen: Tensor
    rejected: Tensor
    probability: Tensor
    margin: Tensor
    target: Tensor


class UnpairedLabels(NamedTuple):
    """Responses of a batch that were judged one by one.

    Args:
        response: ``[thumbs]``, which responses of the batch.
        desirable: ``[thumbs]``, whether the thumb was up.
        mismatched: ``[m]``, responses that belong to another prompt.
    """

    response: Tensor
    desirable: Tensor
    mismatched: Tensor


class RankLabels(NamedTuple):
    """The rankings of a batch; both fields are ``[rankings, longest]``.

    Args:
        order: responses of the batch from best to worst, -1 behind the end.
        place: their places, ascending; equal ones are a tie, and those of `UNRANKED` are only known to be behind the
            others.
    """

    order: Tensor
    place: Tensor


UNRANKED = 2**31 - 1
"""The place of a response that has none."""


class Batch(NamedTuple):
    """What runs through the model at once: one micro-batch of a step.

    Args:
        trees: the packed tokens.
        source: the trees in the order they were packed.
        pairs: their comparisons, or None.
        thumbs: their thumbs, or None.
        rankings: their rankings, or None.
    """

    trees: PackedTrees
    source: tuple[Tree, ...]
    pairs: PairLabels | None = None
    unpaired: UnpairedLabels | None = None
    rankings: RankLabels | None = None


class Step(NamedTuple):
    """All that one optimiser step learns from on this rank.

    The loss of a step is the sum over its micro-batches divided by the step's global count, so that neither the token
    budget nor the number of processes changes the loss or its gradient.

    Args:
        batches: micro-batches, each within the token budget; may be empty on a rank that ran out of items.
        tokens: scored tokens of the whole step, all ranks together.
        items: labels of the whole step, all ranks together: comparisons, thumbs, rated responses or rankings.
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
