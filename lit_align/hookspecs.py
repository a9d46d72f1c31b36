"""The hooks of lit_align: one for each kind of thing that a plugin can add.

Hooks are only ever added, and arguments are only ever added to a hook: pluggy calls each implementation with the
arguments it names, so a plugin written today keeps working.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

hookspec = pluggy.HookspecMarker("lit_align")
hookimpl = pluggy.HookimplMarker("lit_align")

Register = Callable[[type], None]
"""The argument of most hooks: call it with each class that the plugin provides."""

RegisterCommand = Callable[[str, Callable[[list[str]], object], str], None]
"""The argument of ``register_commands``: call it with a name, a function and one line of help."""


@hookspec
def register_objectives(register: Register) -> None:
    """Losses over log-probabilities."""


@hookspec
def register_formats(register: Register) -> None:
    """How one raw row becomes a prompt, its responses and their labels."""


@hookspec
def register_rewards(register: Register) -> None:
    """Scores for the responses to a prompt."""


@hookspec
def register_advantages(register: Register) -> None:
    """Per-token advantages from the rewards of sampled responses."""


@hookspec
def register_feedback(register: Register) -> None:
    """Sources of labels: judges, rewards, people."""


@hookspec
def register_samplers(register: Register) -> None:
    """What draws completions from a model: in this process, or an engine elsewhere."""


@hookspec
def register_judges(register: Register) -> None:
    """Models that answer a judge's questions: in this process, or behind a server."""


@hookspec
def register_tasks(register: Register) -> None:
    """Tasks of ``lit-align evaluate suite``: what is asked of a model, and how its answers are graded."""


@hookspec
def register_commands(register: RegisterCommand) -> None:
    """Commands of ``lit-align``: a name such as ``label`` or ``evaluate cross-modal``, a function, one line of help.

    The function gets the arguments after the name. It should import what it needs when it is called, because the hook
    runs whenever plugins are listed.
    """


@hookspec
def register_stages(register: Register) -> None:
    """Stages, callbacks and other classes that a YAML may name.

    Called only when settings are parsed or a checkpoint is loaded, so it may import Lightning.
    """


@hookspec
def register_datamodules(register: Register) -> None:
    """What turns files into the steps of a stage: Lightning data modules.

    Called only when settings are parsed or a checkpoint is loaded, so it may import Lightning.
    """
