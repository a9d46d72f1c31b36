"""The kit itself, on a CPU: its sections run, its gates can fail, and its table says what was measured."""

import inspect
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_align.models.load import Base, load_config, load_model
from lit_align.models.tree_forward import TreeForward
from tests.gpu.__main__ import main, run_section
from tests.gpu.decoding import Decoder
from tests.gpu.gates import gates, whole_weight_gates
from tests.gpu.options import GIB, KitOptions
from tests.gpu.random_weights import load_random, random_model
from tests.gpu.results import record, table
from tests.gpu.sections import CALLS, SECTIONS, find_section
from tests.gpu.shapes import llama_config, save_without_weights
from tests.gpu.targets import TARGETS, rows

TINY = KitOptions(tiny=True)


def test_each_section_that_the_kit_names_exists():
    assert {section.call for section in SECTIONS} == set(CALLS)
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    for section in SECTIONS:
        inspect.signature(section.load()).bind(TINY, **section.arguments)
    with pytest.raises(SystemExit, match="no section is called 'dpo'; there are gates, dpo-8b,"):
        find_section("dpo")


def test_a_row_runs_in_a_process_of_its_own_and_what_needs_cuda_says_so(tmp_path, capsys):
    out = tmp_path / "kit.json"
    assert main(["run", "--tiny", "--only", "dpo-8b", "dpo-8b-flex", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["machine"]["card"] == "CPU"
    figures = result["sections"]["dpo-8b"]
    assert figures["ok"]
    assert figures["attention"] == "sdpa"
    assert figures["pairs_per_second"] == pytest.approx(2 / figures["seconds_per_step"])
    assert figures["tree_tokens_per_step"] == 2 * (12 + 2 * 6)
    assert figures["predicted_bytes"]["update"] > 0
    skipped = result["sections"]["dpo-8b-flex"]
    assert skipped == {"skipped": "FlexAttention has no backward pass on a CPU"}
    printed = capsys.readouterr().out
    assert "dpo-8b-flex    skipped: FlexAttention has no backward pass on a CPU\n" in printed
    assert printed.count("not measured\n") == len(TARGETS)
    with pytest.raises(SystemExit, match="is of --tiny models on a CPU"):
        record([out], tmp_path)


def test_phases_of_ppo_and_decoded_tokens_are_measured():
    figures = find_section("ppo-1.5b").run(TINY)
    phases = {"sampling", "score", "update"}
    assert figures["seconds"].keys() == figures["predicted_bytes"].keys() == phases
    assert min(figures["seconds"].values()) > 0
    runs = find_section("decode-8b").run(TINY)["runs"]
    assert runs.keys() == {"sample", "sample, no adapter", "generate"}


def test_the_gates_hold():
    result = gates(TINY)
    assert result["ok"]
    assert result["failed"] == []
    assert len(result["gates"]) == 7


class SiblingsVisible(TreeForward):
    """All responses of a row are one, so that each attends to those before it."""

    def hidden(self, trees):
        return super().hidden(trees._replace(response=trees.response.clamp(max=0)))


class TreesVisible(TreeForward):
    """All trees of a row are one."""

    def hidden(self, trees):
        return super().hidden(trees._replace(tree=torch.zeros_like(trees.tree)))


@pytest.mark.parametrize("wrong_forward", [SiblingsVisible, TreesVisible])
def test_a_wrong_mask_fails_the_gates_of_every_attention_and_precision(wrong_forward):
    outcomes = whole_weight_gates(TINY, wrong_forward)
    assert [outcome["ok"] for outcome in outcomes.values()] == [False] * 4


def test_random_weights_are_laid_out_as_loaded_ones(tmp_path):
    folder = save_without_weights("tiny", tmp_path)
    base = Base(str(folder), quantization="nf4", dtype="bfloat16")
    made = load_random(base, torch.device("cpu"))
    AutoModelForCausalLM.from_config(load_config(base)).save_pretrained(folder)
    loaded = load_model(base, torch.device("cpu"))
    assert layout(made) == layout(loaded)
    assert (made.name_or_path, made.loaded_as) == (loaded.name_or_path, loaded.loaded_as)
    frequencies = made.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, loaded.model.rotary_emb.inv_freq)


def test_tied_embeddings_are_made_once():
    config = llama_config("tiny")
    config.tie_word_embeddings = True
    model = random_model(config, torch.device("cpu"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(parameter.is_meta for parameter in model.parameters())


def layout(model) -> dict:
    """Class of each module; type, shape and scales of each parameter."""
    entries = {name: type(module) for name, module in model.named_modules()}
    for name, weight in model.named_parameters():
        entry = [weight.dtype, weight.shape, weight.requires_grad]
        state = getattr(weight, "quant_state", None)
        if state is not None:
            entry += [state.quant_type, state.blocksize, state.absmax.dtype, state.absmax.shape]
        entries[name] = entry
    return entries


def test_what_a_token_has_to_read():
    numbers = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)  # of the linear layers
    scales = numbers // 64 + 2 * 7 * 4  # a byte for each block, and for each layer one float32
    norms, head = 5 * 64 * 2, 512 * 64 * 2
    adapters = 2 * 16 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)) * 4
    cache = 4 * (8 + 5 / 2) * (2 * 2 * 2 * 16) * 2  # rows, mean length, keys and values
    expected = numbers / 2 + scales + norms + head + adapters + cache
    assert Decoder(TINY, "8b").bytes_per_token() == expected


def sections_of_a_gpu(pairs_per_second: float, peak: float) -> dict:
    """Figures as two calls write them, with those of TRL fixed."""
    memory = {"peak_bytes": {"update": peak * GIB}, "prediction_error": 0.04}
    theirs = {"update": 10 * GIB}
    return {
        "gates": {"ok": True, "failed": []},
        "dpo-8b": {"pairs_per_second": 1.0, **memory},
        "dpo-8b-saved": {"pairs_per_second": pairs_per_second, **memory},
        "trl-8b": {"pairs_per_second": 1.0, "peak_bytes": theirs},
        "trl-8b-saved": {"ok": False, "reason": "exit status 1"},
        "ppo-8b": {
            "peak_bytes": {"sampling": 9 * GIB, "update": 13 * GIB},
            "prediction_error": 0.06,
        },
    }


def test_each_row_says_whether_its_target_is_met():
    verdicts = {row.name: row[1:] for row in rows(sections_of_a_gpu(1.5, 6.0))}
    assert verdicts["equality gates that fail"] == ("0", "at most 0", "met")
    speed = "DPO 8B, pairs a second, of TRL's best"
    assert verdicts[speed] == ("1.50x", "at least 1.50x", "met")
    memory = "DPO 8B, peak memory, of TRL's"
    assert verdicts[memory] == ("0.60x", "at most 0.60x", "met")
    assert verdicts["DPO 8B, predicted peak off by"] == ("4.0%", "at most 5.0%", "met")
    assert verdicts["PPO 8B, predicted peaks off by"] == ("6.0%", "at most 5.0%", "missed")
    assert verdicts["PPO 8B, peak memory"] == ("13.0 GiB", "at most 12.0 GiB", "missed")
    assert verdicts["FlexAttention, compilations given up"][2] == "not measured"
    worse = {row.name: row.verdict for row in rows(sections_of_a_gpu(1.49, 6.1))}
    assert (worse[speed], worse[memory]) == ("missed", "missed")


def test_the_results_of_a_card_become_a_table(tmp_path):
    assert table(tmp_path).startswith("Speed and memory on a GPU are not measured yet")
    sections = sections_of_a_gpu(2.0, 5.0)
    machine = {"card": "NVIDIA X100 80GB", "date": "2026-01-02", "tiny": False, "packages": {}}
    files = [tmp_path / "kit-1.part", tmp_path / "kit-2.part"]
    for file, name in zip(files, ("dpo-8b", "trl-8b"), strict=True):
        part = {"machine": machine, "sections": {name: sections[name]}}
        file.write_text(json.dumps(part))
    path = record(files, tmp_path)
    assert path.name == "NVIDIA-X100-80GB-2026-01-02.json"
    head, _, *lines = table(tmp_path).splitlines()
    assert head == "| NVIDIA X100 80GB, 2026-01-02 | measured | target | |"
    assert "| DPO 8B, peak memory, of TRL's | 0.50x | at most 0.60x | met |" in lines
    assert len(lines) == len(TARGETS)
    other = {"machine": {**machine, "card": "Y"}, "sections": {}}
    files[1].write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r"has card Y, and .* has NVIDIA X100 80GB"):
        record(files, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_section_on_the_gpu(section, tmp_path):
    _, figures = run_section(section, KitOptions(tiny=False), 600, tmp_path / "kit.json")
    assert figures["ok"], figures
