"""Checks of what every part that a plugin can add must satisfy, from losses to commands; each is one call.

Each fails with a sentence that names the property that does not hold, and the numbers that break it.
"""

from lit_align.testing.commands import check_command
from lit_align.testing.datamodules import check_datamodule
from lit_align.testing.feedback import check_feedback
from lit_align.testing.formats import check_format
from lit_align.testing.judges import check_judge
from lit_align.testing.objective_checks import check_objective
from lit_align.testing.rewards import check_reward
from lit_align.testing.samplers import check_sampler
from lit_align.testing.stages import check_stage
from lit_align.testing.tasks import check_task
from lit_align.testing.tiny_model import write_tiny_model

__all__ = [
    "check_command",
    "check_datamodule",
    "check_feedback",
    "check_format",
    "check_judge",
    "check_objective",
    "check_reward",
    "check_sampler",
    "check_stage",
    "check_task",
    "write_tiny_model",
]
