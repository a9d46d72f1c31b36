"""The sections of the kit: what each runs, in which of the two calls, and for how long at most."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.gpu.options import KitOptions

CALLS = (1, 2)
CALL_SECONDS = 225
"""Of one call, so that it ends within four minutes with 15 seconds for installing the wheels."""


@dataclass(frozen=True)
class Section:
    """A part of the kit, which runs in a process of its own and may fail alone.

    Args:
        name: in the results.
        call: in which it runs.
        seconds: at most.
        function: ``module:name`` under ``tests.gpu``; takes `KitOptions` and ``arguments``.
        arguments: by name.
        cpu_obstacle: why it cannot run on a CPU, if so.
    """

    name: str
    call: int
    seconds: int
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    cpu_obstacle: str = ""

    def load(self) -> Callable[..., dict]:
        """Import the function."""
        module_name, _, function_name = self.function.partition(":")
        module = importlib.import_module(f"tests.gpu.{module_name}")
        function: Callable[..., dict] = getattr(module, function_name)
        return function

    def run(self, options: KitOptions) -> dict:
        """Its figures; ``ok`` is whether what it checks holds."""
        return self.load()(options, **self.arguments)


NO_CHECKPOINTING = {"gradient_checkpointing": False}
NO_FLEX_BACKWARD = "FlexAttention has no backward pass on a CPU"

SECTIONS = (
    Section("gates", 1, 60, "gates:gates"),
    Section("dpo-8b", 1, 45, "training:dpo", {"shape": "8b"}),
    Section("trl-8b", 1, 45, "trl_dpo:dpo", {"shape": "8b"}),
    Section("dpo-8b-saved", 1, 40, "training:dpo", {"shape": "8b", **NO_CHECKPOINTING}),
    Section("trl-8b-saved", 1, 40, "trl_dpo:dpo", {"shape": "8b", **NO_CHECKPOINTING}),
    Section("recompiles", 1, 50, "recompiles:recompiles"),
    Section("ppo-8b", 2, 90, "training:ppo", {"shape": "8b"}),
    Section("decode-8b", 2, 60, "decoding:decoding", {"shape": "8b"}),
    Section("ceilings", 2, 25, "ceilings:ceilings"),
    Section(
        "dpo-8b-flex",
        2,
        50,
        "training:dpo",
        {"shape": "8b", "attention": "flex_attention"},
        cpu_obstacle=NO_FLEX_BACKWARD,
    ),
    Section("dpo-1.5b", 2, 30, "training:dpo", {"shape": "1.5b"}),
    Section("ppo-1.5b", 2, 45, "training:ppo", {"shape": "1.5b"}),
)
"""In the order in which they run, the most important of a call first; ``saved`` is without gradient checkpointing."""


def find_section(name: str) -> Section:
    """The section of a name.

    Raises:
        SystemExit: if there is none, with the names that there are.
    """
    for section in SECTIONS:
        if section.name == name:
            return section
    names = ", ".join(section.name for section in SECTIONS)
    raise SystemExit(f"no section is called {name!r}; there are {names}")
