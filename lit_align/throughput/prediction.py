"""The time of a step by phase, on one process or several, with another sampler, and what takes most of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lit_align.data.packing import split_every
from lit_align.throughput.parts import PartTimes
from lit_align.throughput.work import Kind, StepWork
from lit_align.types import Batch


@dataclass(frozen=True)
class Cluster:
    """What a step runs on.

    Args:
        cards: processes, each with a card of its own.
        link: GB/s at which cards exchange gradients; assumed, not measured.
        sampler_speed: tokens a second of an engine that samples elsewhere, all requests together; None samples here.
        staleness: whether it samples while the policy learns.
    """

    cards: int = 1
    link: float = 10.0
    sampler_speed: float | None = None
    staleness: int = 0

    def __str__(self) -> str:
        cards = "1 card" if self.cards == 1 else f"{self.cards} cards"
        if self.sampler_speed is None:
            return cards
        return f"{cards}, served{', ahead' if self.staleness else ''}"


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Args:
        phases: of each phase on the process that takes longest.
        overlaps: whether sampling goes on beside all others.
    """

    phases: dict[str, float]
    overlaps: bool = False

    @property
    def total(self) -> float:
        """Of the step."""
        rest = sum(seconds for phase, seconds in self.phases.items() if phase != "sample")
        sampling = self.phases.get("sample", 0.0)
        return max(sampling, rest) if self.overlaps else sampling + rest

    @property
    def bottleneck(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.phases.__getitem__)


def predict(work: StepWork, parts: PartTimes, cluster: Cluster, adapter_bytes: int) -> StepTime:
    """The time of a step, from measured parts.

    A ring of n cards sends 2 (n - 1) / n times the gradients through each link (Patarasuk & Yuan, 2009,
    https://doi.org/10.1016/j.jpdc.2008.09.002, section 2).

    Args:
        work: of a step.
        parts: measured.
        cluster: what it runs on.
        adapter_bytes: of all trained adapters, in float32.
    """
    phases: dict[str, float] = {}
    if work.sampling is not None:
        phases["sample"] = _sampling(work, parts, cluster)
    batches: dict[tuple[str, Kind, int], list[Batch]] = {}
    for phase, kind, batch, times in work.passes(cluster.cards):
        batches.setdefault((phase, kind, times), []).append(batch)
    for (phase, kind, times), same in batches.items():
        phases[phase] = phases.get(phase, 0.0) + times * parts.passes(kind, same)
    steps = work.optimizer_steps
    phases["update"] = phases.get("update", 0.0) + steps * parts.optimizer()
    if cluster.cards > 1:
        sent = 2 * (cluster.cards - 1) / cluster.cards * adapter_bytes
        phases["exchange"] = steps * sent / (cluster.link * 1e9)
    overlaps = bool(cluster.staleness and cluster.sampler_speed)
    return StepTime(phases, overlaps)


def alternatives(cluster: Cluster) -> list[Cluster]:
    """One card with the sampler of the process, then what was asked for, step by step."""
    asked = [Cluster(link=cluster.link), replace(cluster, sampler_speed=None, staleness=0), cluster]
    return list(dict.fromkeys(asked))


def _sampling(work: StepWork, parts: PartTimes, cluster: Cluster) -> float:
    sampling = work.sampling
    assert sampling is not None
    if cluster.sampler_speed is not None:
        return work.sampled_tokens / cluster.sampler_speed
    prompts = [tree.prompt for tree in work.prompts(cluster.cards)]
    longest_first = sorted(prompts, key=len, reverse=True)
    seconds = 0.0
    for together in split_every(longest_first, sampling.prompts_at_once):
        seconds += parts.decoding(
            together, sampling.num_generations, sampling.response_tokens, work.token_budget
        )
    return seconds
