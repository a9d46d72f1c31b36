"""``lit-align completion SHELL``: a script by which bash or zsh completes commands, tasks and configs."""

from __future__ import annotations

import argparse

from lit_align.cli.packaged_configs import COMMANDS, config_names
from lit_align.cli.tasks import OTHER_TASKS, TASKS
from lit_align.plugins import CORE_COMMANDS, EXTENSION_COMMANDS

SHELLS = ("bash", "zsh")

SCRIPT = """\
_lit_align() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} names="" file
  if [[ $current == "=" ]]; then current=""; fi
  if [[ $before == "=" ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  case " {with_configs} " in
    *" ${{COMP_WORDS[1]}} "*)
      case $before in
        -c|--config) names="{configs}" ;;
        --task) names="{tasks}" ;;
      esac ;;
  esac
  if (( COMP_CWORD == 1 )); then names="{commands}"; fi
  if (( COMP_CWORD == 2 )); then
    case ${{COMP_WORDS[1]}} in
      init) names="{all_tasks}" ;;
      completion) names="{shells}" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$names" -- "$current"))
  if [[ $before == -c || $before == --config ]]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$current")
  fi
}}
complete -o default -F _lit_align lit-align
"""
"""Where it has no word, ``-o default`` completes names of files. The shells of macOS have no ``compopt``."""

ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def run(arguments: list[str]) -> None:
    """Print the script."""
    parser = argparse.ArgumentParser(
        "lit-align completion",
        allow_abbrev=False,
        description="Print a script that completes commands, tasks, configs and files. Add to ~/.bashrc, or with zsh "
        'in place of bash to ~/.zshrc: eval "$(lit-align completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(arguments).shell
    print((ZSH if shell == "zsh" else "") + completion_script(), end="")


def completion_script() -> str:
    """The script, with the words that are known without importing plugins."""
    trained = [task.name for task in TASKS]
    words = {
        "with_configs": COMMANDS,
        "configs": config_names(),
        "tasks": trained,
        "all_tasks": [*trained, *(task.name for task in OTHER_TASKS)],
        "commands": [*CORE_COMMANDS, *EXTENSION_COMMANDS],
        "shells": SHELLS,
    }
    return SCRIPT.format(**{name: " ".join(values) for name, values in words.items()})
