"""``lit-align inspect``: what became of every row, which tokens are trained on, and the memory that the run needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lit_align.cli.memory_report import make_inventory, plan_memory, print_memory
from lit_align.cli.time_report import TimeOptions, print_times
from lit_align.data.datamodules import TextDataModule
from lit_align.data.ledger import Ledger
from lit_align.data.loader import StepLoader
from lit_align.rl.pretraining_mix import ptx_datamodule
from lit_align.rl.stage import RL
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.types import Tree

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NUM_EXAMPLES = 3


def run(
    stage: LanguageModelStage,
    data: TextDataModule,
    card: float,
    times: TimeOptions | None = None,
    shards: int = 1,
) -> None:
    """Tokenise, print the ledger and three examples with the scored tokens marked; load no weights, train nothing.

    What ``fit`` would refuse about the data is refused here too.

    Args:
        stage: what would be trained.
        data: its data.
        card: memory in GiB of the GPU to fit on, which need not be in this machine.
        times: what the time of a step is predicted for; None predicts none.
        shards: processes that the base is divided among.
    """
    from rich.console import Console

    console = Console()
    stage.check_data(data)
    if times is not None:
        times.check(stage, data)
    stage.check_init_adapter()
    train = _read_split(console, stage, data, "train")
    if isinstance(stage, RL):
        stage.check_prompt_lengths(train)
    _print_examples(console, stage, train)
    demonstrations: Sequence[Tree] = ()
    if isinstance(stage, RL) and stage.ptx is not None:
        demonstrations = _read_split(console, stage, ptx_datamodule(stage.ptx, data), "ptx")
        _print_examples(console, stage, demonstrations)
    if data.paths["validation"]:
        validation = _read_split(console, stage, data, "validation")
        if isinstance(stage, RL):
            stage.check_prompt_lengths(validation)
    plan = replace(plan_memory(stage, data, train, demonstrations), shards=shards)
    inventory = make_inventory(plan)
    print_memory(console, stage, plan, inventory, card)
    if times is not None and times.is_asked:
        print_times(console, stage, data, train, plan, inventory, times)


def _read_split(
    console: Console, stage: LanguageModelStage, data: TextDataModule, split: str
) -> Sequence[Tree]:
    """Tokenise one split, print its ledger, and check that its steps can be made."""

    def show(ledger: Ledger) -> None:
        data.add_ledger(split, ledger)
        console.print(ledger.table(), highlight=False, markup=False)

    trees = data.read_trees(split, data.label_kind, stage, show)
    StepLoader(trees, batch_size=data.batch_size, token_budget=data.token_budget)
    return trees


def _print_examples(console: Console, stage: LanguageModelStage, trees: Sequence[Tree]) -> None:
    console.print(
        "\nExamples; tokens between \u27e6 and \u27e7 are trained on, the others are context:"
    )
    for tree in trees[:NUM_EXAMPLES]:
        _print_example(console, stage, tree)


def _print_example(console: Console, stage: LanguageModelStage, tree: Tree) -> None:
    from rich.text import Text

    decode = stage.tokenizer.decode
    console.rule(tree.group.source)
    console.print(Text(str(decode(tree.prompt)), style="dim"))
    for index, ids in enumerate(tree.responses):
        line = Text(f"({index}) ", style="bold")
        _append_tokens(line, decode, ids, tree.scored[index])
        console.print(line)
        for branch in tree.parts_of(index)[1:]:
            line = Text(f"({index}) ", style="bold")
            line.append(str(decode(branch.prompt)), style="dim")
            _append_tokens(line, decode, branch.ids, branch.scored)
            console.print(line)
    for pair in tree.group.pairs:
        probability = "" if pair.probability == 1 else f" with probability {pair.probability:g}"
        console.print(f"({pair.better}) is better than ({pair.worse}){probability}")


def _append_tokens(
    line: Text, decode: Callable[[list[int]], Any], ids: list[int], scored: list[bool]
) -> None:
    """Append the tokens of a response, with those that are trained on marked."""
    for is_scored, tokens in groupby(zip(scored, ids, strict=True), key=itemgetter(0)):
        text = str(decode([token for _, token in tokens]))
        if is_scored:
            line.append(f"\u27e6{text}\u27e7", style="bold green")
        else:
            line.append(text, style="dim")
