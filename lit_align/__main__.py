"""``python -m lit_align``: what the command is, before anything heavy is imported."""

import sys

HELP = """\
lit-align: align language models with feedback, on one GPU, from one YAML and one command.

  lit-align fit -c FILE        train what the YAML says (-c twice to overlay, --key value to override)
  lit-align validate -c FILE   figures on the validation data
  lit-align test -c FILE       the same, under the name test
  lit-align predict -c FILE    answer the validation prompts, as JSONL in the run folder
  lit-align inspect -c FILE    what became of every row, and what is learned from it; trains nothing
  lit-align inspect --rounds RUN   what an on-line run sampled, and how it was labelled
  lit-align export RUN FOLDER  what a run has trained, as an adapter or (--merge) as a whole model
  lit-align judge --feedback NAME --data FILE    labels from a judge, a reward or a server, as JSONL in the run folder
  lit-align evaluate reward-bench --reward NAME --data FILE   how often a judge prefers the better response
  lit-align evaluate win-rate --a RUN --b RUN --feedback NAME --data FILE   how often one model beats another
  lit-align chat --run FOLDER  talk to what was trained; --compare ADAPTER beside another (chat --help)
  lit-align label --tasks FILE a web page where people compare answers (label --help)
  lit-align plugins [ROOM]     what is installed: objectives, formats, rewards, advantages, feedback

  lit-align fit --help                     every setting of the trainer
  lit-align fit --model.help Preference    ... of a stage
  lit-align fit --data.help Comparisons    ... of data
  lit-align fit --model Preference --model.objective.help DPO    ... of an objective

Start with: lit-align fit -c configs/tiny/dpo.yaml
"""


OWN = {
    "chat": "lit_align.cli.chat",
    "export": "lit_align.cli.export",
    "label": "lit_align.labelling.command",
    "plugins": "lit_align.cli.plugins",
    "inspect": "lit_align.cli.inspect_rounds",
}
"""Commands that need no trainer, and the modules that run them; inspect only of the rounds of a run."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``lit-align``; help and version answer at once, and what is installed is listed without Lightning.

    Raises:
        SystemExit: with a sentence that says what is wrong and how to go on.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
    elif arguments[0] == "--version":
        from lit_align import __version__

        print(f"lit-align {__version__}")
    elif arguments[0] in OWN and (arguments[0] != "inspect" or arguments[1:2] == ["--rounds"]):
        from importlib import import_module

        from lit_align.errors import LitAlignError, ModelError

        try:
            import_module(OWN[arguments[0]]).run(arguments[1:])
        except LitAlignError as error:
            print(f"lit-align: {error}", file=sys.stderr)
            sys.exit(1 if isinstance(error, ModelError) else 2)
    else:
        from lit_align.cli.main import main as run

        run(arguments)


if __name__ == "__main__":
    main()
