"""Which families of models train here? ``python -m tests.proofs.architectures [family ...]``.

A random two-layer model of each family takes two steps of DPO, then an iteration of PPO from that adapter; the result
is merged and loaded again, once with weights in 4 bits and once without. Encoders classify digits. Each step works or
is refused in a sentence. Outcomes go to ``architectures.json`` beside this file.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

from lit_align.models.inventory import Inventory
from lit_align.models.load import Base, compute_dtype
from lit_align.models.lora import Lora
from tests import families, family_runs

RESULTS = Path(__file__).with_suffix(".json")


def adapted_layers(family):
    """Short names of the layers that all-linear adapts."""
    import torch

    is_causal = family in families.CAUSAL
    found = Inventory.from_config(
        families.config(family),
        Lora(),
        nf4=False,
        dtype=compute_dtype(Base(family), torch.device("cpu")),
        causal=is_causal,
    )
    adapted = [layer for layer in found.layers if layer.name in found.adapted]
    return {
        "linear": len([layer for layer in adapted if layer.kind == "linear"]),
        "experts": len([layer for layer in adapted if layer.kind == "experts"]),
        "left_out": sorted(
            {layer.path.rpartition(".")[2] for layer in found.layers if is_left_out(layer)}
        ),
    }


def is_left_out(layer):
    """Whether all-linear says that it adapts such layers, and cannot."""
    return layer.kind in ("linear", "router") and bool(layer.obstacle or layer.kind == "router")


def main(names):
    """Try the families, all of them without names, and write the outcomes."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    outcomes = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for family in names or families.FAMILIES:
        runs = {}
        attempt = family_runs.classify if family in families.ENCODERS else family_runs.journey
        with tempfile.TemporaryDirectory() as folder:
            for quantization in ("none", "nf4"):
                runs[quantization] = attempt(family, quantization, Path(folder))
        outcomes[family] = {"adapted": adapted_layers(family), "runs": runs}
        print(family, json.dumps(runs), flush=True)
        ordered = {name: outcomes[name] for name in families.FAMILIES if name in outcomes}
        RESULTS.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
