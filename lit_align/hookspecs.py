"""The doors a plugin may open: one hook for each kind of thing lit_align can be taught.

Hooks are only ever added, and arguments are only ever added to a hook: pluggy calls
each implementation with the arguments it names, so a plugin written today keeps working.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lit_align.advantages import Advantage
    from lit_align.data.formats import Format
    from lit_align.feedback import Feedback
    from lit_align.objectives import Objective
    from lit_align.orca.embedders import Embedder
    from lit_align.rewards import Reward

hookspec = pluggy.HookspecMarker("lit_align")
hookimpl = pluggy.HookimplMarker("lit_align")

Register = Callable[[type], None]
"""What a hook is given: call it with each class that the plugin brings."""


@hookspec
def register_objectives(register: Callable[[type[Objective]], None]) -> None:
    """Losses over log-probabilities: what a step of training makes smaller."""


@hookspec
def register_formats(register: Callable[[type[Format]], None]) -> None:
    """How one raw record becomes a prompt, its responses and their labels."""


@hookspec
def register_rewards(register: Callable[[type[Reward]], None]) -> None:
    """Scores for the responses to a prompt."""


@hookspec
def register_advantages(register: Callable[[type[Advantage]], None]) -> None:
    """From rewards of sampled responses to how much better each token did than expected."""


@hookspec
def register_feedback(register: Callable[[type[Feedback]], None]) -> None:
    """Who says which response is better."""


@hookspec
def register_embedders(register: Callable[[type[Embedder]], None]) -> None:
    """How data of another modality become tokens of a body."""
