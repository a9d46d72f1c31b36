"""The classic failures of on-policy learning, in words, as soon as the figures show them."""

from __future__ import annotations

from collections.abc import Mapping

LONGER, FLATTER, FARTHEST, BLIND = 2.0, 0.2, 50.0, -0.5
"""Times as long; share of the entropy that is left; nats a response; explained variance of a critic worse than none."""


def complaints(first: Mapping[str, float], now: Mapping[str, float]) -> dict[str, str]:
    """What is wrong with an iteration beside the first one, by a name under which it is said once.

    Args:
        first: figures of the first iteration.
        now: of this one.

    Example:
        >>> first = {"objective/scores": 0.1, "objective/length": 20.0, "objective/entropy": 2.0, "objective/kl": 0.0}
        >>> now = {"objective/scores": 0.9, "objective/length": 60.0, "objective/entropy": 1.9, "objective/kl": 8.0}
        >>> print(*complaints(first, now).values())
        scores rose from 0.10 to 0.90 while responses became 3.0 times as long: the reward may be paying for length; add
        a Length reward or a missing_eos_reward penalty
    """
    found = {}
    score, length, entropy = (f"objective/{name}" for name in ("scores", "length", "entropy"))
    if now[score] > first[score] and now[length] > LONGER * first[length]:
        found["length"] = (
            f"scores rose from {first[score]:.2f} to {now[score]:.2f} while responses became "
            f"{now[length] / first[length]:.1f} times as long: the reward may be paying for length; add a Length "
            "reward or a missing_eos_reward penalty"
        )
    if now[entropy] < FLATTER * first[entropy]:
        found["entropy"] = (
            f"entropy fell from {first[entropy]:.2f} to {now[entropy]:.2f} nats a token: the policy says the same "
            "thing again and again and has stopped exploring; raise kl.coefficient or lower the learning rate"
        )
    if now["objective/kl"] > FARTHEST:
        found["kl"] = (
            f"the policy is {now['objective/kl']:.0f} nats a response from its reference: what the reward says of such "
            "responses was never checked by anybody; raise kl.coefficient or give kl.target"
        )
    if now.get("val/explained_variance", 0.0) < BLIND:
        found["critic"] = (
            f"the critic explains {now['val/explained_variance']:.2f} of the variance of returns, worse than none: "
            "advantages are noise; raise critic.lr or samples, or use RLOO, which needs none"
        )
    return found
