"""Mix supervised batches into policy updates to prevent forgetting (PPO-ptx: Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lit_align.data.datamodules import Demonstrations, TextDataModule, to_device
from lit_align.data.loader import StepLoader
from lit_align.types import Step


@dataclass
class PretrainingMix:
    """Demonstrations in every policy update (eq. 2 of Ouyang et al., 2022).

    Args:
        data: files or hub data sets, in any format with demonstrations.
        weight: γ: weight of their cross-entropy, a mean over tokens, beside the policy loss.
        batch_size: demonstrations in an update.
        columns: the files' column for each column of the format that they name differently; None takes those of the
            prompts.
    """

    data: str | list[str]
    weight: float = 1.0
    batch_size: int = 8
    columns: dict[str, str] | None = None

    def token_weight(self, count: int, demonstrations: Step) -> float:
        """Weight of a demonstration's token in a summed loss that is later divided by ``count``."""
        return self.weight * count / demonstrations.tokens


def ptx_datamodule(ptx: PretrainingMix, prompts: TextDataModule) -> Demonstrations:
    """Data module of the demonstrations, read with the settings of the prompts' data module."""
    data = Demonstrations(
        ptx.data,
        batch_size=ptx.batch_size,
        token_budget=prompts.token_budget,
        max_length=prompts.max_length,
        overlong=prompts.overlong,
        max_malformed=prompts.max_malformed,
        seed=prompts.seed,
        as_chat=prompts.as_chat,
        learned_turns=prompts.learned_turns,
        columns=prompts.columns if ptx.columns is None else ptx.columns,
        ignore_columns=prompts.ignore_columns,
        special_tokens_in_text=prompts.special_tokens_in_text,
    )
    data.paths = {"ptx": data.paths["train"]}
    return data


def load_demonstrations(ptx: PretrainingMix, prompts: TextDataModule) -> StepLoader:
    """Read and tokenize the demonstrations; their ledger is added to the run's."""
    data = ptx_datamodule(ptx, prompts)
    data.trainer, data.ledgers = prompts.trainer, prompts.ledgers
    data.prepare_split("ptx")
    return data.step_loader("ptx", shuffle=True)


def demonstrations_of_update(loader: StepLoader, number: int) -> Step:
    """Demonstrations of update ``number``; they depend on the number alone, so a resumed run sees the same."""
    loader.epoch, loader.next = divmod(number, len(loader))
    return next(iter(loader))


def add_demonstrations(step: Step, demonstrations: Step, device: torch.device) -> Step:
    """The step with the micro-batches of ``demonstrations`` after its own."""
    batches = [to_device(batch, device) for batch in demonstrations.batches]
    return step._replace(batches=(*step.batches, *batches))
