"""How many bytes of tensors are alive at once, counted operation by operation."""

import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts the storages of every tensor made while it is active: real ones, and ones on the meta device.

    Args:
        before: modules and tensors that were there already; they count from the start.

    Attributes:
        live: bytes that are alive now.
        peak: most bytes that were alive at once.
        start: bytes of what was there before.
    """

    def __init__(self, *before):
        super().__init__()
        self.live = self.peak = 0
        self._seen = {}
        for thing in before:
            tensors = (
                [*thing.parameters(), *thing.buffers()] if isinstance(thing, nn.Module) else [thing]
            )
            for tensor in tensors:
                self._add(tensor)
        self.start = self.live

    @property
    def above_start(self):
        return self.peak - self.start

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen:  # views share it
            self._seen[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.live -= self._seen.pop(key)
