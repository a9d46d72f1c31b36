"""Runs of one family from adapter to adapter to merged model, by the commands that users type."""

import contextlib
import io
import traceback

import torch

from lit_align.__main__ import main
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from tests import families
from tests.tiny import tokenizer

DPO = [
    "fit",
    "-c=configs/tiny/dpo.yaml",
    "--data.batch_size=2",
    "--data.validation=null",
]
PPO = [
    "fit",
    "-c=configs/tiny/ppo.yaml",
    "--trainer.max_steps=1",
    "--model.max_new_tokens=4",
]
TOLERANCE = 1e-3  # of a logit, in float32
FAST = ["--trainer.enable_progress_bar=false", "--model.lora.r=4", "--model.lora.alpha=8"]


def save(family, folder):
    """Write a random model of a family and a tokenizer."""
    model = families.build(family)
    words = tokenizer()
    model.config.eos_token_id = words.eos_token_id
    if family in families.CAUSAL:
        model.generation_config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def run(*arguments):
    """None if a command ends well; its sentence if it refuses; the error if it crashes."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
            main([str(argument) for argument in arguments])
    except SystemExit as end:
        if end.code:
            lines = [line for line in shown.getvalue().splitlines() if "lit-align: " in line]
            return "refused: " + (lines[-1].partition("lit-align: ")[2] if lines else "no sentence")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"[:500]
    return None


def journey(family, quantization, folder, *more):
    """What became of each step, until one fails: DPO, PPO from its adapter, its merged model, that model loaded."""
    model = folder / family
    if not model.exists():
        save(family, model)
    common = [*FAST, f"--model.base.path={model}", f"--model.base.quantization={quantization}"]
    runs = folder / f"{family}-{quantization}"
    first, second, merged = runs / "dpo", runs / "ppo", runs / "merged"
    next_stage = [f"--model.init_adapter={first / '0' / 'adapter'}", f"--run={second}"]
    steps = {
        "dpo": lambda: run(*DPO, *common, *more, f"--run={first}"),
        "ppo": lambda: run(*PPO, *common, *more, *next_stage),
        "merge": lambda: run("export", second / "0", merged, "--merge"),
        "reload": lambda: reload(
            Base(str(model), quantization), second / "0" / "adapter", str(merged)
        ),
    }
    outcomes = {}
    for name, step in steps.items():
        outcomes[name] = step() or "works"
        if outcomes[name] != "works":
            break
    return outcomes


@torch.no_grad()
def reload(base, adapter, merged):
    """None if the merged model, loaded again, answers as the trained policy does."""
    device = torch.device("cpu")
    lora = Lora(r=4, alpha=8)
    policy = AdapterSet(
        load_model(base, device), lora, init_adapter=adapter, gradient_checkpointing=False
    )
    ids = torch.arange(5, 25)[None]
    with policy.activate("policy", training=False) as model:
        expected = model(input_ids=ids).logits
    try:
        logits = load_model(Base(merged, "none"), device)(input_ids=ids).logits
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"[:200]
    largest = (logits - expected).abs().max().item()
    return None if largest < TOLERANCE else f"a logit differs by {largest:.2g}"


def classify(family, quantization, folder):
    """What became of training an encoder on images of digits."""
    model = folder / family
    if not model.exists():
        save(family, model)
    base = [f"--model.base.path={model}", f"--model.base.quantization={quantization}"]
    command = ["fit", "-c=configs/tiny/orca.yaml", *FAST, *base, f"--run={folder / quantization}"]
    return {"classify": run(*command) or "works"}
