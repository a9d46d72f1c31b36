#!/bin/sh
# Wheels that a GPU machine without a package registry lacks, into the folder $1, or .cache/wheels: Python 3.12, x86-64.
# The versions are those of constraints.txt. bitsandbytes keeps its libraries for CUDA 13.0 and CPU alone: 4 MB of 43.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-"$root/.venv/bin/python"}
folder=${1:-"$root/.cache/wheels"}
mkdir -p "$folder"
platforms="--platform manylinux2014_x86_64 --platform manylinux1_x86_64"
for glibc in 39 35 34 31 28 27 24 17; do
  platforms="$platforms --platform manylinux_2_${glibc}_x86_64"
done
# shellcheck disable=SC2086
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
  --constraint "$root/constraints.txt" --dest "$folder" \
  bitsandbytes datasets dill docstring_parser gguf httpcore2 httpx2 huggingface_hub jsonargparse multiprocess peft \
  tokenizers transformers trl truststore typeshed_client
"$python" - "$folder" <<'PY'
import sys
import zipfile
from pathlib import Path

KEPT = ("libbitsandbytes_cuda130.so", "libbitsandbytes_cpu.so")


def is_dropped(name: str) -> bool:
    """Whether a library is for another version of CUDA."""
    return name.endswith(".so") and not name.endswith(KEPT)


(wheel,) = Path(sys.argv[1]).glob("bitsandbytes-*.whl")
smaller = wheel.with_suffix(".tmp")
with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as target:
    for entry in source.infolist():
        if is_dropped(entry.filename):
            continue
        content = source.read(entry)
        if entry.filename.endswith("/RECORD"):
            lines = content.decode().splitlines(keepends=True)
            content = "".join(line for line in lines if not is_dropped(line.split(",")[0])).encode()
        target.writestr(entry, content)
smaller.replace(wheel)
PY
du -ch "$folder"/*.whl | tail -1
