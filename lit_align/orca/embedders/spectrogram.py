"""Short windows of a sound as tokens, by their power at each frequency."""

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Spectrogram(Embedder):
    """Short windows of a waveform, each by its log power spectrum (Hann window).

    Args:
        window: samples in a window.
        hop: samples from the start of one window to the next; the last window starts before the end of the input.
        floor: added to the power before the logarithm; the power of the data is 1.
    """

    input_kinds = frozenset({"series"})

    def __init__(self, window: int = 256, hop: int = 128, floor: float = 1e-4) -> None:
        super().__init__()
        if not 1 <= hop <= window or floor <= 0:
            raise ConfigError(
                f"hop is {hop}, window {window}, floor {floor}; hop is from 1 to window, floor above 0"
            )
        self.window, self.hop, self.floor = window, hop, floor

    def build(self, inputs: InputSpec, d_model: int) -> None:
        num_frequencies = self.window // 2 + 1
        self.project = nn.Linear(inputs.channels * num_frequencies, d_model)

    def n_tokens(self, inputs: InputSpec) -> int:
        return -(-inputs.shape[0] // self.hop)

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        windows, present = self._windows(x), self._windows(mask)
        hann = torch.hann_window(self.window).to(windows)
        spectrum = torch.fft.rfft(windows * hann)
        power = spectrum.abs().square() / self.window
        log_power = (power + self.floor).log()
        tokens = self.project(log_power.transpose(1, 2).flatten(2))
        return Embedded(tokens, present.any(-1).any(1))

    def _windows(self, x: Tensor) -> Tensor:
        """Overlapping windows of ``[n, channels, length]``, padded at the end: ``[n, channels, tokens, window]``."""
        to_next_hop = -x.shape[2] % self.hop
        padding = to_next_hop + self.window - self.hop
        padded = nn.functional.pad(x, (0, padding))
        return padded.unfold(2, self.window, self.hop)


@hookimpl
def register_embedders(register: Register) -> None:
    register(Spectrogram)
