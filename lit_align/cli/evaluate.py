"""``lit-align evaluate``: how good a judge or a model is, on the screen and in a run folder."""

from __future__ import annotations

from collections.abc import Callable

from lit_align.cli import frontier, personal, reward_bench, suite, tournament, win_rate
from lit_align.cli.command import Settings, parse_settings
from lit_align.cli.setting_homes import suggestion
from lit_align.errors import ConfigError
from lit_align.plugins import load_plugins

EVALUATIONS: dict[str, tuple[Settings, Callable[..., object], Callable[..., object]]] = {
    "frontier": (frontier.SETTINGS, frontier.refuse, frontier.run),
    "personal": (personal.SETTINGS, personal.refuse, personal.run),
    "reward-bench": (reward_bench.SETTINGS, reward_bench.refuse, reward_bench.run),
    "suite": (suite.SETTINGS, suite.refuse, suite.run),
    "tournament": (tournament.SETTINGS, tournament.refuse, tournament.run),
    "win-rate": (win_rate.SETTINGS, win_rate.refuse, win_rate.run),
}
"""Settings, check of the settings, and function of each evaluation of the core."""


def run(arguments: list[str]) -> None:
    """Run the evaluation that is named first; plugins may add evaluations.

    Args:
        arguments: of the command line, after ``evaluate``.

    Raises:
        ConfigError: if the settings are not valid.
    """
    commands = load_plugins().commands
    plugin_evaluations = {}
    for name, command in commands.items():
        prefix, _, evaluation = name.partition(" ")
        if prefix == "evaluate" and evaluation:
            plugin_evaluations[evaluation] = command.function
    names = [*EVALUATIONS, *plugin_evaluations]
    name = " ".join(arguments[:1])
    if name in ("-h", "--help"):
        print(f"lit-align evaluate {' | '.join(names)}; each of them has --help")
    elif name in plugin_evaluations:
        plugin_evaluations[name](arguments[1:])
    elif name in EVALUATIONS:
        settings, refuse, evaluate = EVALUATIONS[name]
        values, folder = parse_settings(
            f"lit-align evaluate {name}", settings, arguments[1:], refuse
        )
        evaluate(values, folder)
    else:
        raise ConfigError(f"there is no evaluation {name!r}{suggestion('', names)}")
