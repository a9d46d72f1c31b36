"""Demonstrations beside the reward, so that what nobody scores is not unlearned (PPO-ptx: Ouyang et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.data.datamodules import Demonstrations, TextDataModule
from lit_align.data.loader import StepLoader
from lit_align.types import Step


@dataclass
class PretrainingMix:
    """Demonstrations that are learned in every update (eq. 2 of Ouyang et al., 2022).

    Args:
        data: files or hub data sets, in any layout that gives demonstrations.
        weight: γ: of their cross-entropy, a mean over tokens, beside the policy's loss.
        batch_size: demonstrations in an update.
    """

    data: str | list[str]
    weight: float = 1.0
    batch_size: int = 8


def beside(ptx: PretrainingMix, prompts: TextDataModule) -> Demonstrations:
    """Its data, to be cut and counted as ``prompts`` are."""
    data = Demonstrations(
        ptx.data,
        batch_size=ptx.batch_size,
        token_budget=prompts.token_budget,
        max_length=prompts.max_length,
        overlong=prompts.overlong,
        max_malformed=prompts.max_malformed,
        seed=prompts.seed,
    )
    data.paths = {"ptx": data.paths["train"]}
    return data


def demonstrations(ptx: PretrainingMix, prompts: TextDataModule) -> StepLoader:
    """Prepared; their ledger is one more in the run's."""
    data = beside(ptx, prompts)
    data.trainer, data.ledgers = prompts.trainer, prompts.ledgers
    data.prepare_split("ptx")
    return data.step_loader("ptx", shuffle=True)


def drawn(steps: StepLoader, number: int) -> Step:
    """The step that update ``number`` learns from, whichever were drawn before."""
    steps.epoch, steps.next = divmod(number, len(steps))
    return next(iter(steps))
