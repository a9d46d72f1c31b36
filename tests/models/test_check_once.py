"""The check of how a model reads trees runs once for the same code and settings, and again for others."""

import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_align.errors import ModelError
from lit_align.models import check_once as module
from lit_align.models.check_once import check_key, check_once
from lit_align.models.tree_forward import TreeForward


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path))
    return tmp_path / "tree_checks"


def load(tiny, **settings):
    return AutoModelForCausalLM.from_pretrained(tiny, **settings).eval()


def passes(model):
    """How often a model runs while its tree reading is checked."""
    calls = []
    handle = model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    forward = TreeForward(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_once(forward)
    handle.remove()
    messages = [
        str(warning.message) for warning in caught if "row of its own" in str(warning.message)
    ]
    return len(calls), forward.layout, messages


def test_the_second_start_runs_nothing(tiny, cache):
    first, layout, _ = passes(load(tiny))
    assert first > 0
    assert layout == "trees"
    assert passes(load(tiny)) == (0, "trees", [])
    assert len(list(cache.iterdir())) == 1


def test_an_obstacle_is_remembered_with_its_warning(tiny, monkeypatch):
    monkeypatch.setattr("lit_align.models.tree_forward.packing_obstacle", lambda _: "it cannot")
    first, layout, messages = passes(load(tiny))
    assert first > 0
    assert layout == "rows"
    assert "(it cannot)" in messages[0]
    assert passes(load(tiny)) == (0, "rows", messages)


def test_what_changes_the_check_changes_the_key(tiny):
    keys = {check_key(load(tiny))}
    assert check_key(load(tiny)) in keys
    keys.add(check_key(load(tiny, dtype=torch.bfloat16)))
    keys.add(check_key(load(tiny, attn_implementation="eager")))
    keys.add(check_key(load(tiny, rms_norm_eps=0.5)))
    patched = load(tiny)
    layer = patched.get_decoder().layers[0]
    layer.forward = lambda *args, **kwargs: type(layer).forward(layer, *args, **kwargs)
    keys.add(check_key(patched))
    assert len(keys) == 5


def test_another_version_checks_again(tiny, monkeypatch):
    passes(load(tiny))
    monkeypatch.setattr(module, "installed_version", lambda package: f"another {package}")
    assert passes(load(tiny))[0] > 0


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"head": null', "null"])
def test_a_broken_file_checks_again(tiny, cache, content):
    passes(load(tiny))
    (file,) = cache.iterdir()
    file.write_text(content)
    assert passes(load(tiny))[0] > 0
    assert passes(load(tiny))[0] == 0


def test_a_refusal_is_not_remembered(tiny, cache, monkeypatch):
    monkeypatch.setattr("lit_align.models.tree_check.TOLERANCE", {torch.float32: -1.0})
    for _ in range(2):
        with pytest.raises(ModelError, match="wrong log-probabilities"):
            check_once(TreeForward(load(tiny)))
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_costs_a_check(tiny, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(blocked))
    assert passes(load(tiny))[0] > 0
    assert passes(load(tiny))[0] > 0
