"""What fits on which GPU: the settings that `lit-align init` chooses, for the sizes and cards people have.

``python -m tests.proofs.hardware`` asks the memory planner, in a minute, and writes ``hardware.json`` beside this file;
the page on memory shows it as a table. Predicted, not measured.
"""

import json
from pathlib import Path

from lit_align.cli.init.base_config import usual_config
from lit_align.cli.init.settings import start_settings
from lit_align.cli.init.sizes import choose_sizes
from lit_align.cli.tasks import TASKS, find_task
from lit_align.errors import ConfigError

FIGURES = Path(__file__).with_suffix(".json")
SIZES = (0.5, 1.5, 4.0, 8.0, 14.0, 32.0)
CARDS = (8, 12, 16, 24, 48, 80)
TASK_NAMES = ("sft", "dpo", "ppo")


def chosen(task_name: str, billions: float, card: float) -> dict | None:
    """The settings for a size and a card in GiB; None if nothing fits."""
    settings = start_settings(find_task(task_name, TASKS), "base")
    try:
        sizes = choose_sizes(settings, usual_config(billions), card, None)
    except ConfigError:
        return None
    return {
        "quantization": sizes.quantization,
        "r": sizes.r,
        "gradient_checkpointing": sizes.gradient_checkpointing,
        "token_budget": sizes.token_budget,
        "max_length": sizes.max_length,
    }


def main() -> None:
    """Ask for every combination, and write the answers."""
    rows = []
    for task in TASK_NAMES:
        for billions in SIZES:
            for card in CARDS:
                row = {"task": task, "billions": billions, "card": card}
                rows.append({**row, "chosen": chosen(task, billions, card)})
    FIGURES.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
