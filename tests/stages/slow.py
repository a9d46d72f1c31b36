"""A callback that makes steps long enough to be interrupted."""

import time

from lightning.pytorch import Callback


class Slow(Callback):
    """Wait after every step.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args) -> None:
        time.sleep(self.seconds)
