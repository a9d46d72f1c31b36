"""The progress bar of predict, which counts answers: a batch of prompts is answered at once, and takes long."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lit_align.progress import show_answers
from lit_align.stages.language_model_stage import LanguageModelStage


class AnswersBar(ProgressBar):
    """A bar on a terminal, and a line now and then elsewhere; of the answers of the first process."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self._is_enabled = False

    def enable(self) -> None:
        """Show it again."""
        self._is_enabled = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the answers that an interrupted run has not given."""
        if not self._is_enabled:
            return
        stage = cast(LanguageModelStage, pl_module)
        num_prompts = len(stage.datamodule.predict_dataloader().trees) - stage.num_answered
        num_answers = num_prompts * (stage.best_of.n if stage.best_of else 1)
        self._stack.enter_context(show_answers("answers", num_answers))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is."""
        self._stack.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar as it is."""
        self._stack.close()
