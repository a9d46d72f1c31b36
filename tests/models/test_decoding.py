"""Tokens are chosen as by one forward pass for each token, without a cache: in any batch, by any model."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_align.models.decoding import dense_base as dense_module
from lit_align.models.decoding.batch import Choice, _CompletionLog, decode_batch
from lit_align.models.decoding.buffered_cache import BufferedCache
from lit_align.models.decoding.buffered_sequences import BufferedSequences
from lit_align.models.decoding.dense_base import dense_base
from lit_align.models.decoding.padding_mask import takes_prepared_mask
from lit_align.models.decoding.sequences import sequences_for
from lit_align.models.decoding.token_choice import choose_tokens
from lit_align.models.decoding.uncached_sequences import UncachedSequences
from lit_align.models.generate import _draw_uniforms, sample
from lit_align.models.load import Base, load_model
from tests.architectures import ARCHITECTURES, build
from tests.strategies import VOCABULARY
from tests.tiny import tokenizer

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
DYNAMIC = ("LFM2", "Mamba", "Qwen3-Next")
"""Architectures with recurrent states."""


def reference(model, prompt, uniforms, temperature, stop):
    """One completion by the definition: each token from a pass over all tokens before it."""
    ids, logps = [], []
    for uniform in uniforms:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1].float()
        scaled = logits / (temperature or 1.0)
        if temperature:
            cumulative = scaled.softmax(-1).double().cumsum(-1)
            token = int((cumulative <= uniform * cumulative[-1]).sum())
        else:
            token = int(logits.argmax())
        ids.append(token)
        logps.append(float(scaled.log_softmax(-1)[token]))
        if token in stop:
            break
    return ids, logps


def check(model, prompts, *, samples=2, tokens=6, temperature=1.0, stop=(), interval=1, budget=999):
    """Compare a batch with the reference; returns the completions."""
    uniforms = torch.stack(
        [_draw_uniforms(3, place, samples, tokens) for place in range(len(prompts))]
    )
    choice = Choice(temperature, frozenset(stop), interval)
    with torch.no_grad():
        rows = decode_batch(model, prompts, uniforms, choice, budget)
    for prompt, row, numbers in zip(prompts, rows, uniforms, strict=True):
        for completion, own_numbers in zip(row, numbers, strict=True):
            ids, logps = reference(model, prompt, own_numbers, temperature, stop)
            assert completion.ids == ids
            assert completion.logps == pytest.approx(logps, abs=2e-5)
            assert completion.ended == (ids[-1] in stop)
    return rows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_samples_what_its_plain_passes_say(name):
    """Two prompts of different lengths; looked at every three tokens."""
    stop = range(0, VOCABULARY, 7)
    check(build(name), PROMPTS[1:], tokens=5, temperature=0.8, stop=stop, interval=3)


@pytest.mark.parametrize("family", ["OpenAIGPT", "Rwkv"])
def test_a_model_without_a_cache_reads_all_tokens_again(family):
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    if family == "Rwkv":
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**sizes)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    assert isinstance(sequences_for(model, 9), UncachedSequences)
    check(model, PROMPTS, tokens=4, stop=range(0, VOCABULARY, 7))


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Mistral", "GPT-2", "Bloom"])
def test_prompts_of_one_length_need_no_mask(name):
    check(build(name), [[5, 6, 7], [8, 9, 10]], tokens=4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_batch_is_what_plain_passes_say(attention, data):
    model = build("Llama", attention)
    token = st.integers(0, VOCABULARY - 1)
    prompts = data.draw(
        st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=3), "prompts"
    )
    check(
        model,
        prompts,
        samples=data.draw(st.integers(1, 3), "samples"),
        tokens=data.draw(st.integers(1, 7), "tokens"),
        temperature=data.draw(st.sampled_from([0.0, 0.5, 1.0, 1.7]), "temperature"),
        stop=data.draw(st.sets(token, max_size=12), "stop"),
        interval=data.draw(st.sampled_from([1, 3, 16]), "steps between checks"),
        budget=data.draw(st.integers(1, 30), "token budget"),
    )


def test_which_architectures_are_decoded_in_buffers():
    """All without recurrent states and within their windows; the mask is prepared where the layers alone read it."""
    buffered, prepared = set(), set()
    for name in ARCHITECTURES:
        model = build(name)
        if isinstance(sequences_for(model, 5), BufferedSequences):
            buffered.add(name)
        if takes_prepared_mask(model):
            prepared.add(name)
        windowed = any(word in name for word in ("windowed", "Gemma"))
        assert isinstance(sequences_for(model, 6), BufferedSequences) == (
            name not in DYNAMIC and not windowed
        )
    assert buffered == set(ARCHITECTURES) - set(DYNAMIC)
    assert {"GPT-2", "OPT", "Bloom", "Mamba"}.isdisjoint(prepared)
    assert {"Llama", "Qwen3", "Gemma3", "Mistral", "Phi, biased head"} <= prepared
    assert "Gemma2" not in prepared  # it has eager attention, whose code is each model's own
    assert not takes_prepared_mask(build("Llama", "flex_attention"))


def test_a_window_that_a_model_takes_from_the_end_of_its_mask_is_read_right():
    """GPT-Neo's, which its configuration tells in no way that others do; with prompts of several lengths."""
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64}
    config = transformers.GPTNeoConfig(
        **sizes,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        vocab_size=264,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    check(transformers.GPTNeoForCausalLM(config).eval(), PROMPTS, samples=2, tokens=12, interval=4)


def test_buffers_grow_with_the_completions():
    """Past the 64 tokens for which there is room at first."""
    rows = check(build("Llama"), PROMPTS[1:], samples=1, tokens=75, interval=16)
    assert [len(completion.ids) for (completion,) in rows] == [75, 75]


def test_keys_are_written_once_and_read_where_they_are():
    """The second token of two rows goes behind the prompts; nothing that was written before moves."""
    cache = BufferedCache(num_layers=1, rows=4, width=3, limit=9, is_aligned=True)
    states = torch.randn(2, 2, 3, 4)
    cache.read_prompts(slice(0, 4))
    assert cache.update(states, states, 0)[0] is states  # attention within the prompts
    cache.finish_prompts(3)
    layer = cache.layers[0]
    address = layer.keys.data_ptr()
    token = torch.randn(4, 2, 1, 4)
    keys, values = cache.update(token, -token, 0)
    assert keys.shape == values.shape == (4, 2, 8, 4)
    assert keys.data_ptr() == address
    torch.testing.assert_close(keys[:, :, :3], states.repeat_interleave(2, 0))
    torch.testing.assert_close(keys[:, :, 3:4], token)
    torch.testing.assert_close(values[:, :, 3:4], -token)
    assert not keys[:, :, 4:].any()
    cache.keep_rows([0, 3])
    assert cache.get_seq_length() == 4
    keys, _ = cache.update(token[:2], token[:2], 0)
    torch.testing.assert_close(keys[1, :, 3:5], torch.cat([token[3], token[1]], 1))
    assert layer.keys.shape == (2, 2, 16, 4)


def test_a_cache_is_freed_with_its_last_reference():
    """Nobody waits for the garbage collector while a GPU is full."""
    cache = BufferedCache(num_layers=2, rows=1, width=3, limit=9, is_aligned=False)
    alive = weakref.ref(cache.layers[0])
    gc.disable()
    try:
        del cache
        assert alive() is None
    finally:
        gc.enable()


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=6),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_completions_are_cut_where_they_end(tokens, interval):
    """Whatever rows move and whatever is chosen after an end."""
    log = _CompletionLog(len(tokens), frozenset([0, 1]))
    for start in range(0, 6, interval):
        block = [tokens[completion][start : start + interval] for completion in log.active]
        log.add(torch.tensor([block, block], dtype=torch.float64))
        if log.some_ended:
            before = log.active
            order = log.drop_ended()
            assert log.active == [before[row] for row in order]
            assert all(
                source == place or source >= len(order) for place, source in enumerate(order)
            )
    for completion, own in zip(log.completions(), tokens, strict=True):
        ends = [place for place, token in enumerate(own) if token in (0, 1)]
        assert completion.ids == own[: ends[0] + 1 if ends else 6]
        assert completion.logps == completion.ids
        assert completion.ended == bool(ends)
    assert log.active == [] if log.all_ended else log.active


def test_the_choice_is_that_of_the_cumulative_distribution_in_float64():
    logits = torch.randn(50, 3000, generator=torch.Generator().manual_seed(0)) * 4
    uniforms = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for temperature in (0.3, 1.0):
        scaled = logits / temperature
        cumulative = scaled.softmax(-1).double().cumsum(-1)
        expected = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(-1)
        token, logp = choose_tokens(logits.clone(), temperature, uniforms)
        assert token.equal(expected)
        torch.testing.assert_close(logp, scaled.log_softmax(-1).gather(1, token[:, None])[:, 0])


def test_the_same_seed_gives_the_completions_of_earlier_releases():
    """Ids and log-probabilities that were recorded before keys and values were kept in buffers."""
    recorded = json.loads((Path(__file__).parent / "recorded_samples.json").read_text())
    for name, expected in recorded.items():
        model = build(name)
        model.generation_config.eos_token_id = list(range(0, VOCABULARY, 5))
        for temperature, rows in expected.items():
            found = sample(
                model,
                tokenizer(),
                PROMPTS,
                max_new_tokens=12,
                num_generations=3,
                temperature=float(temperature),
                seed=7,
            )
            for row, expected_row in zip(found, rows, strict=True):
                for completion, (ids, logps) in zip(row, expected_row, strict=True):
                    assert completion.ids == ids
                    assert completion.logps == pytest.approx(logps, abs=1e-5)


@pytest.fixture(scope="module")
def four_bit(tiny):
    return load_model(Base(tiny, "nf4", "float32"), CPU)


def test_dequantized_weights_give_the_same_bits(four_bit):
    ids = torch.tensor([[5, 6, 7, 8]])
    before, modules = four_bit(ids).logits, dict(four_bit.named_modules())
    with dense_base(four_bit):
        layer = four_bit.model.layers[0].mlp.up_proj
        assert type(layer) is torch.nn.Linear
        assert not layer.weight.requires_grad
        assert four_bit(ids).logits.equal(before)
    after = dict(four_bit.named_modules())
    assert list(after) == list(modules)
    assert all(after[name] is module for name, module in modules.items())


def test_4_bit_layers_stay_where_memory_is_short_or_they_are_watched(four_bit, monkeypatch):
    layer = four_bit.model.layers[0].mlp.up_proj
    with layer.register_forward_hook(lambda *_: None), dense_base(four_bit):
        assert four_bit.model.layers[0].mlp.up_proj is layer
        assert type(four_bit.model.layers[1].mlp.up_proj) is torch.nn.Linear
    monkeypatch.setattr(dense_module, "free_memory", lambda: 1000)
    with dense_base(four_bit):
        assert four_bit.model.layers[1].mlp.up_proj.weight.dtype == torch.uint8
