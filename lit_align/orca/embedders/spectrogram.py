"""Moments of a sound as tokens, by what frequencies are in them."""

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Spectrogram(Embedder):
    """Short windows of a waveform, each by the logarithm of its power at each frequency (Hann window).

    Args:
        window: samples in a window.
        hop: samples from one window to the next; windows begin as long as there are samples.
        floor: power below which nothing is told apart; that of the data is 1.
    """

    input_kinds = frozenset({"series"})

    def __init__(self, window: int = 256, hop: int = 128, floor: float = 1e-4) -> None:
        super().__init__()
        if not 1 <= hop <= window or floor <= 0:
            raise ConfigError(
                f"hop is {hop}, window {window}, floor {floor}; hop is from 1 to window, floor above 0"
            )
        self.window, self.hop, self.floor = window, hop, floor

    def build(self, inputs: InputSpec, width: int) -> None:
        self.project = nn.Linear(inputs.channels * (self.window // 2 + 1), width)

    def n_tokens(self, inputs: InputSpec) -> int:
        return -(-inputs.shape[0] // self.hop)

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        more = -x.shape[2] % self.hop + self.window - self.hop
        x, there = (
            nn.functional.pad(each, (0, more)).unfold(2, self.window, self.hop)
            for each in (x, mask)
        )
        power = (
            torch.fft.rfft(x * torch.hann_window(self.window).to(x)).abs().square() / self.window
        )
        return Embedded(
            self.project((power + self.floor).log().transpose(1, 2).flatten(2)),
            there.any(-1).any(1),
        )


@hookimpl
def register_embedders(register: Register) -> None:
    register(Spectrogram)
