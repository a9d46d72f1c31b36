"""Lightning, torchmetrics and bitsandbytes without the compiler and plots: nothing is lost when they are needed."""

import subprocess
import sys

import pytest

WITHOUT_THE_COMPILER = """
import sys
import torch
from torch.utils.checkpoint import checkpoint
from lit_align.compat.lazy_package import is_imported
from lit_align.compat.light_dynamo import disable_compiling
from lit_align.compat.light_imports import import_lightning

import_lightning()
assert not is_imported("torch._dynamo") and "scipy.signal" not in sys.modules

from lightning.fabric.wrappers import OptimizedModule

plain = torch.nn.Linear(2, 2)
assert not isinstance(plain, OptimizedModule)
calls = []

@disable_compiling
def seen(value):
    calls.append(torch.compiler.is_compiling())
    return value + 1

@torch.compiler.disable(recursive=False)
def seen_alone(value):
    calls.append(torch.compiler.is_compiling())
    return value + 2

@torch._dynamo.allow_in_graph
def marked(value):
    return value + 4

@torch._dynamo.assume_constant_result
def constant():
    return 8

assert seen(1) == 2 and seen_alone(1) == 3
optimizer = torch.optim.AdamW(plain.parameters())
checkpoint(plain, torch.ones(2), use_reentrant=False).sum().backward()
before = plain.bias.detach().clone()
optimizer.step()
assert (plain.bias != before).all()
assert not is_imported("torch._dynamo")

graphs = []

def backend(graph, inputs):
    graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
    return graph.forward

def both(value):
    return seen_alone(seen(value)) * 2

assert torch.compile(both, backend="eager")(torch.zeros(1)).item() == 6
assert is_imported("torch._dynamo") and calls == [False] * 4
assert torch.compile(lambda x: marked(x) + constant(), backend=backend)(torch.zeros(1)).item() == 12
assert marked in graphs[0]  # as it was marked before the compiler was there
compiled = torch.compile(plain)
assert isinstance(compiled, OptimizedModule) and not isinstance(plain, OptimizedModule)
assert isinstance(compiled, torch._dynamo.OptimizedModule)
import_lightning()
"""

TORCHMETRICS = """
import sys
import torch
from lit_align.compat.lazy_package import is_imported
from lit_align.compat.light_imports import import_lightning

import_lightning()
assert not {"matplotlib", "transformers", "torchmetrics.functional"} & set(sys.modules)
from lightning.pytorch.core.module import Metric as of_lightning
from torchmetrics.aggregation import MeanMetric
from torchmetrics import MetricCollection

mean = MeanMetric()
mean.update(torch.tensor(2.0))
assert isinstance(mean, of_lightning) and not is_imported("torchmetrics")

import torchmetrics
assert torchmetrics.MeanMetric is MeanMetric and torchmetrics.Metric is of_lightning
assert torchmetrics.MetricCollection is MetricCollection and is_imported("torchmetrics")
assert torchmetrics.functional.accuracy(torch.tensor([1]), torch.tensor([1]), task="binary") == 1
import matplotlib
matplotlib.use("Agg")
figure, axes = mean.plot()
assert type(figure) is matplotlib.figure.Figure and isinstance(axes, matplotlib.axes.Axes)
import scipy.signal
assert len(scipy.signal.hamming(3)) == 3 and scipy.signal.butter
"""

SCIPY = """
from lit_align.compat.lazy_package import is_imported
from lit_align.compat.light_imports import import_lightning

import_lightning()
from scipy.optimize import linear_sum_assignment
assert not is_imported("scipy.optimize")
assert linear_sum_assignment([[1, 0], [0, 1]])[1].tolist() == [1, 0]
assert is_imported("scipy.optimize")
from scipy.optimize import minimize_scalar
assert abs(minimize_scalar(lambda x: (x - 2) ** 2).x - 2) < 1e-6
"""

MODULES = """
from lit_align.compat.lazy_package import is_imported
from lit_align.compat.light_imports import import_lightning

import_lightning()
import torch
import torch._dynamo.eval_frame as frames  # the first that is asked of either package is a module of it
assert torch._dynamo.OptimizedModule is frames.OptimizedModule and is_imported("torch._dynamo")
assert isinstance(torch.compile(torch.nn.Linear(2, 2), backend="eager"), frames.OptimizedModule)
import torch._dynamo.utils as utils
assert torch._dynamo.convert_frame.counters is utils.counters
assert frames.__spec__.origin == frames.__file__
from scipy.optimize._linesearch import LineSearchWarning
from scipy.optimize import _optimize
assert _optimize.LineSearchWarning is LineSearchWarning
"""

FAILURE = """
import sys
from importlib.machinery import ModuleSpec
from lit_align.compat.lazy_package import LazyPackage, is_imported

class Broken:
    def exec_module(self, module):
        assert not is_imported("broken")  # while it runs
        raise ImportError("a part is missing")

package = sys.modules["broken"] = LazyPackage(ModuleSpec("broken", Broken(), is_package=True), {})
try:
    package.anything
except ImportError as error:
    assert str(error) == "a part is missing"
assert "broken" not in sys.modules
"""

BITSANDBYTES = """
import sys
import torch
from lit_align.compat.light_bitsandbytes import import_bitsandbytes

compile = torch.compile
import_bitsandbytes()
assert "torch._inductor.compile_fx" not in sys.modules and torch.compile is compile
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

_, state = quantize_4bit(torch.ones(64, 64), blocksize=64, quant_type="nf4")
weight = state.code.repeat(256).reshape(64, 64)  # each of the sixteen values of NF4
packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
assert torch.equal(dequantize_4bit(packed, state), weight)
import_bitsandbytes()
"""

WINGS = """
import contextlib, io, sys
from lit_align.__main__ import main

with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["fit", "-c", "tiny/dpo", "--print_config"])
imported = [name for name in sys.modules if name.startswith("lit_align.")]
cross_modal = [name for name in imported if name.startswith("lit_align.orca")]
labelling = [name for name in imported if name.startswith("lit_align.labelling")]
print(len(imported), len(cross_modal), len(labelling))
assert len(cross_modal) <= 30 and len(labelling) <= 7, (cross_modal, labelling)
assert not {"ot", "fastapi", "uvicorn", "crowdkit"} & sys.modules.keys()
"""


@pytest.mark.parametrize(
    "script", [WITHOUT_THE_COMPILER, WINGS, TORCHMETRICS, SCIPY, MODULES, FAILURE, BITSANDBYTES]
)
def test_what_is_imported_late_is_all_there(script):
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
