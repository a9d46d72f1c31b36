"""Checks of what every objective, format, reward, sampler, task and source of feedback must satisfy; each is one call.

Each fails with a sentence that names the property that does not hold, and the numbers that break it.
"""

from lit_align.testing.feedback import check_feedback
from lit_align.testing.formats import check_format
from lit_align.testing.objective_checks import check_objective
from lit_align.testing.rewards import check_reward
from lit_align.testing.samplers import check_sampler
from lit_align.testing.tasks import check_task

__all__ = [
    "check_feedback",
    "check_format",
    "check_objective",
    "check_reward",
    "check_sampler",
    "check_task",
]
