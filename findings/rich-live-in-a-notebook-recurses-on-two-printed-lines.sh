#!/bin/sh
# rich 15.0.0, ipykernel 7.4.0, nbclient 0.11.0.
# While a live display of rich is shown, such as the RichProgressBar of Lightning, it stands in for sys.stdout. In a
# Jupyter kernel what it prints goes through display(), and ipykernel flushes sys.stdout before each display().
# Expected: print("a\nb") within the live display shows two lines.
# Seen: RecursionError. The stand-in holds "b", not ended yet, while it prints "a"; display() flushes it, it prints what
# it holds without forgetting it, and that is displayed, which flushes it again.
# Source: rich/file_proxy.py, flush prints its buffer before it empties it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check rich==15.0.0 ipykernel==7.4.0 nbclient==0.11.0 nbformat==5.11.1
env/bin/python - <<'PY'
import nbclient
import nbformat

cell = nbformat.v4.new_code_cell(
    "from rich.live import Live\n"
    "outcome = 'two lines'\n"
    "try:\n"
    "    with Live('working'):\n"
    "        print('a\\nb')\n"
    "except RecursionError:\n"
    "    outcome = 'RecursionError'\n"
)
shown = nbformat.v4.new_code_cell("outcome")
notebook = nbformat.v4.new_notebook(cells=[cell, shown])
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
outcome = notebook.cells[1].outputs[-1]["data"]["text/plain"]
print(outcome)
assert outcome == "'RecursionError'"
PY
