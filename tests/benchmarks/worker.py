"""One run in a process of its own: ``python -m tests.benchmarks.worker JOB.json`` writes its figures beside the job."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main(file: str) -> None:
    """Do what the job says: train with one of the two systems, or count what a step does."""
    job = json.loads(Path(file).read_text())
    torch.set_num_threads(job["threads"])
    warnings.filterwarnings("ignore")
    rows = json.loads(Path(job["rows"]).read_text())[: job["pairs"] * job["steps"]]
    job["adapter"] = load_file(job["adapter"])
    weights: dict[str, torch.Tensor] = {}
    if job["system"] == "trl":
        from lit_align.models.load import load_model

        from . import our_side, trl_side

        model = load_model(our_side.base(job), torch.device(job["device"]))
        figures, weights = trl_side.run(model, job, rows)
    elif job["system"] == "ours":
        from . import our_side

        figures, weights = our_side.run(job, rows)
    else:
        from . import flops

        counted, expected = flops.of_ours(job, rows)
        figures = {"trl": flops.of_trl(job, rows), "counted": counted, "expected": expected}
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        f"{file}.safetensors",
    )
    Path(f"{file}.result").write_text(json.dumps({**figures, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main(sys.argv[1])
