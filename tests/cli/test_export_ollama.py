"""What is written for Ollama: the GGUF file computes what was trained, and the Modelfile has template and stops."""

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import lit_align
from lit_align.__main__ import main as command
from lit_align.chat.turn_pieces import turn_pieces
from lit_align.cli.main import main
from lit_align.errors import ModelError
from lit_align.models.export import TEXTS
from lit_align.models.gguf_file import gguf_obstacle, split_name, write_gguf
from lit_align.models.modelfile import go_template, modelfile
from tests import tiny as tiny_model
from tests.stages.runs import arguments, folder_of, write_pairs

ZEPHYR = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + tiny_model.CHATML
)
LAST_TURN_DIFFERS = (
    "{% for m in messages %}[{{ m['role'] }}]{% if loop.last and m['role'] == 'assistant' %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ bos_token }}"
    "{% for m in messages %}<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
MERGED_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% if loop.index0 < 2 and messages[0]['role'] == "
    "'system' %}{{ messages[0]['content'] }} {% endif %}{{ m['content'] }} [/INST]{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)


@torch.no_grad()
def logits(model, tokenizer):
    rows = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text).input_ids])
        rows.append(model(input_ids=ids).logits[0].float())
    return torch.cat(rows)


def read_gguf(folder, name="model.gguf"):
    return AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Llama whose tokenizer has merges."""
    return tiny_model.save_with_merges(tmp_path_factory.mktemp("merges"))


def test_the_gguf_file_computes_what_was_trained(base, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    main(
        arguments(
            base, pairs, tmp_path / "run", "--trainer.max_steps=3", "--model.optimizer.lr=0.05"
        )
    )
    run, out = folder_of(tmp_path / "run"), tmp_path / "out"
    command(["export", str(run), str(out), "--ollama"])
    printed = capsys.readouterr().out
    assert f"ollama create NAME -f {out / 'Modelfile'}" in printed
    assert "has not been run" in printed
    stage = lit_align.load(run)
    trained = logits(stage.adapters.model, stage.tokenizer)
    torch.testing.assert_close(
        logits(read_gguf(out), stage.tokenizer), trained, rtol=1e-4, atol=1e-4
    )
    with stage.adapters.activate("reference", training=False) as base:
        assert (logits(base, stage.tokenizer) - trained).abs().max() > 0.1
    (tmp_path / "alone").mkdir()
    shutil.copy(out / "model.gguf", tmp_path / "alone")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "alone", gguf_file="model.gguf")
    for text in (*TEXTS, "<|im_start|>user\nHi<|im_end|>\n"):
        assert tokenizer(text).input_ids == stage.tokenizer(text).input_ids
    assert tokenizer.chat_template == stage.tokenizer.chat_template
    assert tokenizer.eos_token == stage.tokenizer.eos_token


@pytest.mark.parametrize(("dtype", "tied"), [(torch.float32, False), (torch.bfloat16, True)])
def test_grouped_queries_and_heads_of_another_size(tmp_path, dtype, tied):
    tokenizer = tiny_model.tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, rope_theta=5e4, rms_norm_eps=1e-4,
        tie_word_embeddings=tied, initializer_range=0.2, eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=512,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # and not the frequencies of the positions
        parameter.data = parameter.data.to(dtype)
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    difference = logits(read_gguf(tmp_path), tokenizer) - logits(model, tokenizer)
    assert difference.abs().max() < 1e-4


def test_what_is_not_written_as_gguf_is_said(tiny):
    tokenizer = tiny_model.tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    assert "this one is qwen3" in gguf_obstacle(Qwen3ForCausalLM(config), tokenizer)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = AutoModelForCausalLM.from_pretrained(tiny)
    obstacle = gguf_obstacle(model, PreTrainedTokenizerFast(tokenizer_object=words))
    assert "splits text in a way that has no name here" in obstacle
    assert split_name(tokenizer) == "gpt-2"


def with_template(template):
    tokenizer = tiny_model.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_chatml_in_gos_language():
    tokenizer = with_template(tiny_model.CHATML)
    text, reason = modelfile("model.gguf", tokenizer, ["<|im_end|>"])
    assert reason is None
    user = r'{{ "<|im_start|>user\n" }}{{ .Content }}{{ "<|im_end|>\n" }}'
    expected = (
        'FROM ./model.gguf\nTEMPLATE """{{ range .Messages }}{{ if eq .Role "user" }}'
        + user
        + '{{ else if eq .Role "assistant" }}'
        + user.replace("user", "assistant")
        + '{{ else if eq .Role "system" }}'
        + user.replace("user", "system")
        + r'{{ end }}{{ end }}{{ "<|im_start|>assistant\n" }}"""'
        + '\nPARAMETER stop "<|im_end|>"\n'
    )
    assert text == expected


@pytest.mark.parametrize("template", [tiny_model.CHATML, ZEPHYR, GEMMA])
def test_pieces_render_as_the_template_does(template):
    tokenizer = with_template(template)
    pieces = turn_pieces(tokenizer)
    turns = [
        {"role": "system", "content": 'Say "yes".'},
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    for start in (0, 1) if "system" in pieces.around else (1,):
        wanted = tokenizer.apply_chat_template(
            turns[start:], tokenize=False, add_generation_prompt=True
        )
        assert pieces.render(turns[start:]) == wanted


def test_a_default_system_turn_is_only_there_without_one():
    written = go_template(turn_pieces(with_template(ZEPHYR)))
    assert written.startswith(
        r'{{ if not .System }}{{ "<|im_start|>system\nYou help.<|im_end|>\n" }}{{ end }}{{ range'
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (LAST_TURN_DIFFERS, "rendered differently once the conversation goes on"),
        (MERGED_SYSTEM, "a system turn changes the turn of the user"),
        ("{{ messages[0]['content'] | upper }}", "rendered differently|not written once"),
    ],
)
def test_a_template_that_is_a_program_is_not_translated(template, reason):
    tokenizer = with_template(template)
    with pytest.raises(ModelError, match=reason):
        turn_pieces(tokenizer)
    text, sentence = modelfile("model.gguf", tokenizer, [])
    assert 'TEMPLATE "' not in text
    assert sentence is not None
    assert "# No TEMPLATE: the chat template cannot be written without Jinja" in text
