"""Runs of one family from adapter to adapter to merged model, by the commands that users type."""

import contextlib
import io
import json
import traceback

from lit_align.__main__ import main
from lit_align.models.load import Base, load_model
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
FAST = ["--trainer.enable_progress_bar=false", "--model.lora.r=4", "--model.lora.alpha=8"]


def save(family, folder):
    """Write a random model of a family and a tokenizer."""
    model = families.build(family)
    words = tokenizer()
    model.config.eos_token_id = model.generation_config.eos_token_id = words.eos_token_id
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
    base = [f"--model.base.path={model}", f"--model.base.quantization={quantization}"]
    common = [*FAST, *base, *more]
    runs = folder / f"{family}-{quantization}"
    steps = {
        "dpo": lambda: run(*DPO, *common, f"--run={runs / 'dpo'}"),
        "ppo": lambda: run(
            *PPO,
            *common,
            f"--model.init_adapter={runs / 'dpo' / '0' / 'adapter'}",
            f"--run={runs / 'ppo'}",
        ),
        "merge": lambda: run("export", runs / "ppo" / "0", runs / "merged", "--merge"),
        "reload": lambda: reload(runs / "merged"),
    }
    outcomes = {}
    for name, step in steps.items():
        outcomes[name] = step() or "works"
        if outcomes[name] != "works":
            break
    return outcomes


def reload(folder):
    """None if the merged model answers as the trained one did, within the bound of the export."""
    record = json.loads((folder / "merge.json").read_text("utf-8"))
    load_model(Base(str(folder), "none", "float32"))
    return None if record["largest"] <= record["bound"] else "another model"
