"""Lightning without the compiler: it recognises compiled modules all the same, and no placeholder is left."""

import subprocess
import sys

SCRIPT = """
import sys
from lit_align.compat.light_imports import disable_compiling, import_lightning

import_lightning()
assert "torch._dynamo" not in sys.modules and "scipy.signal" not in sys.modules

import torch
from lightning.fabric.wrappers import OptimizedModule

plain = torch.nn.Linear(2, 2)
assert not isinstance(plain, OptimizedModule)
assert "torch._dynamo" not in sys.modules

calls = []

@disable_compiling
def seen(value):
    calls.append(torch.compiler.is_compiling())
    return value + 1

assert seen(1) == 2
compiled = torch.compile(plain)
assert isinstance(compiled, OptimizedModule) and not isinstance(plain, OptimizedModule)
assert isinstance(compiled, torch._dynamo.OptimizedModule)
assert torch.compile(lambda x: seen(x), backend="eager")(torch.zeros(1)).item() == 1
assert calls == [False, False]

import scipy.signal
assert len(scipy.signal.windows.hamming(3)) == 3 and scipy.signal.butter
import torchmetrics
metric = torchmetrics.MeanMetric()
metric.update(torch.tensor(2.0))
assert metric.compute() == 2
import_lightning()
"""


def test_lightning_without_the_compiler():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
