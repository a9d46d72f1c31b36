"""Sampled responses are what the model says, whoever shares their batch."""

import pytest
import torch

from lit_align.data.packing import pack
from lit_align.errors import ModelError
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.generate import generate, sample, stream
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.stop_ids import stop_ids
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, Tree

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(Base(tiny))


@pytest.fixture
def model(tiny):
    return load_model(Base(tiny, "none", "float32"), torch.device("cpu"))


def test_greedy_is_what_transformers_generates(model, tokenizer):
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=8)
    model.generation_config.eos_token_id = [
        1,
        plain[0][0][3],
        plain[2][0][5],
    ]  # two responses end early
    for prompt, (found,) in zip(
        PROMPTS, generate(model, tokenizer, PROMPTS, max_new_tokens=8), strict=True
    ):
        ids = torch.tensor([prompt])
        peer = model.generate(
            ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids)
        )
        peer = peer[0, len(prompt) :].tolist()
        assert found == (peer[:-1] if peer[-1] in model.generation_config.eos_token_id else peer)
    assert len(generate(model, tokenizer, PROMPTS, max_new_tokens=8)[0][0]) < 8


def scored(model, prompt, ids, temperature=1.0):
    """Log-probabilities as training computes them: one row, no cache."""
    with torch.no_grad():
        logits = (
            model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            / temperature
        )
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


SMALL = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "eos_token_id": 1,
}


def recurrent():
    """A model whose convolutions keep a state that cannot be copied to several samples."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    config = Lfm2Config(
        **SMALL,
        layer_types=["conv", "full_attention"],
    )
    return Lfm2ForCausalLM(config).eval()


def placed():
    """A model that learned what each position means, so that padding on the left must not move them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=32, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("kind", ["attention", "recurrent", "placed"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_sampled_logps_are_those_of_the_training_pass(model, tokenizer, kind, temperature):
    model = {"attention": lambda: model, "recurrent": recurrent, "placed": placed}[kind]()
    model.generation_config.eos_token_id = list(range(1, 30))  # responses end at different times
    rows = sample(
        model, tokenizer, PROMPTS, max_new_tokens=8, temperature=temperature, num_generations=3
    )
    assert [len(row) for row in rows] == [3] * 4
    assert len({len(one.ids) for row in rows for one in row}) > 2
    for prompt, row in zip(PROMPTS, rows, strict=True):
        for one in row:
            wanted = scored(model, prompt, one.ids, temperature)
            torch.testing.assert_close(torch.tensor(one.logps), wanted, atol=1e-4, rtol=0)
            assert one.ended == (1 <= one.ids[-1] < 30)
            assert not any(1 <= token < 30 for token in one.ids[:-1])
            assert one.ended or len(one.ids) == 8


def test_a_response_does_not_depend_on_what_shares_its_batch(model, tokenizer):
    model.generation_config.eos_token_id = list(range(1, 30))
    options = {"max_new_tokens": 8, "temperature": 1.0, "num_generations": 3}
    together = generate(model, tokenizer, PROMPTS, **options)
    assert generate(model, tokenizer, PROMPTS, **options, batch_size=1) == together
    assert generate(model, tokenizer, PROMPTS, **options, batch_size=6) == together
    assert generate(model, tokenizer, PROMPTS, **options, seed=1) != together
    assert len({tuple(ids) for ids in together[0]}) == 3


def test_a_response_depends_on_the_place_of_its_prompt_alone(model, tokenizer):
    options = {"max_new_tokens": 8, "temperature": 1.0, "num_generations": 2, "seed": 5}
    together = generate(model, tokenizer, PROMPTS, **options)
    assert generate(model, tokenizer, PROMPTS[2:], **options, prompt_indices=[2, 3]) == together[2:]
    assert generate(model, tokenizer, PROMPTS[:1], **options, prompt_indices=[3]) != together[:1]
    same = generate(model, tokenizer, [[5, 6, 7]] * 40, **options)  # asked again, another answer
    assert len({tuple(ids) for row in same for ids in row}) == 80


@pytest.mark.parametrize("kind", ["attention", "recurrent", "placed"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_streamed_response_is_the_sampled_one(model, tokenizer, kind, temperature):
    model = {"attention": lambda: model, "recurrent": recurrent, "placed": placed}[kind]()
    model.generation_config.eos_token_id = list(range(1, 30))
    options = {"max_new_tokens": 8, "temperature": temperature, "seed": 2}
    for prompt in PROMPTS:
        assert [*stream(model, tokenizer, prompt, **options)] == generate(
            model, tokenizer, [prompt], **options
        )[0][0]


def test_between_two_tokens_another_may_speak(model, tokenizer):
    alone = [[*stream(model, tokenizer, prompt, max_new_tokens=8)] for prompt in PROMPTS[:2]]
    model.train()
    said = []
    for tokens in zip(
        *(stream(model, tokenizer, prompt, max_new_tokens=8) for prompt in PROMPTS[:2]), strict=True
    ):
        assert torch.is_grad_enabled()
        assert model.training
        said.append(tokens)
    assert [list(one) for one in zip(*said, strict=True)] == alone


def test_tokens_come_as_often_as_they_are_likely(model, tokenizer):
    n, temperature = 4000, 0.7
    rows = sample(
        model, tokenizer, [[5, 6, 7]], max_new_tokens=1, temperature=temperature, num_generations=n
    )
    found = torch.bincount(torch.tensor([one.ids[0] for one in rows[0]]), minlength=128) / n
    with torch.no_grad():
        p = (model(torch.tensor([[5, 6, 7]])).logits[0, -1] / temperature).softmax(-1)
    assert ((found - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1 / n).all()


def test_one_pass_over_each_prompt_and_finished_rows_leave(model, tokenizer):
    seen = []
    model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[0])
    )
    model.generation_config.eos_token_id = list(range(1, 30))
    rows = sample(model, tokenizer, PROMPTS, max_new_tokens=8, num_generations=3)
    lengths = [len(one.ids) for row in rows for one in row]
    assert seen == [4] + [
        sum(length > step for length in lengths) for step in range(1, max(lengths))
    ]


def test_who_plays_is_who_answers_and_the_mode_stays(tiny, tokenizer):
    adapters = AdapterSet(
        load_model(Base(tiny, "none", "float32"), torch.device("cpu")), Lora(r=4, alpha=8)
    ).train()
    plain = generate(
        load_model(Base(tiny, "none", "float32")), tokenizer, PROMPTS, max_new_tokens=8
    )
    for parameter in adapters.trainable().values():
        parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    assert generate(adapters.model, tokenizer, PROMPTS, max_new_tokens=8) != plain
    with adapters.activate("reference"):
        assert generate(adapters.model, tokenizer, PROMPTS, max_new_tokens=8) == plain
        assert all(module.training for module in adapters.model.modules())
    assert adapters.active == "policy"


def test_every_token_that_ends_a_turn_ends_a_response(model, tokenizer, tiny):
    assert stop_ids(model, tokenizer) == [1]
    model.generation_config.eos_token_id = [1, 7]
    assert stop_ids(model, tokenizer) == [1, 7]
    assert stop_ids(model, load_tokenizer(Base(tiny), "chatml")) == [1, 3, 7]
    template = "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"  # EOS is not how its turns end
    other = load_tokenizer(Base(tiny))
    other.chat_template = template
    assert stop_ids(model, other) == [1, 2, 7]


def test_nothing_to_continue(model, tokenizer):
    assert generate(model, tokenizer, [], max_new_tokens=4) == []
    with pytest.raises(ModelError, match="prompt 1 is empty"):
        generate(model, tokenizer, [[5], []], max_new_tokens=4)


def test_a_real_model_samples_what_its_training_pass_reads(smollm2):
    """Three prompts, two samples of 32 tokens each, in float32: through packed trees the gap is at most 1e-4 nats."""
    base = Base(smollm2, "none", "float32")
    model, tokenizer = load_model(base, torch.device("cpu")), load_tokenizer(base)
    asked = ("Name a bird.", "Why does rain fall, and where?", "2 + 2 =")
    prompts = [tokenizer.encode(text) for text in asked]
    for temperature in (1.0, 0.7):
        rows = sample(
            model, tokenizer, prompts, max_new_tokens=32, num_generations=2, temperature=temperature
        )
        trees = [
            Tree(
                prompt,
                [one.ids for one in row],
                [[True] * len(one.ids) for one in row],
                Group(text, ["", ""]),
            )
            for prompt, row, text in zip(prompts, rows, asked, strict=True)
        ]
        (batch,) = pack(trees, budget=1000)
        with torch.no_grad():
            read = TreeForward(model)(batch.trees, temperature=temperature).logps
        drawn = {
            id(tree): [p for one in row for p in one.logps]
            for tree, row in zip(trees, rows, strict=True)
        }
        drawn = torch.tensor([p for tree in batch.source for p in drawn[id(tree)]])
        assert (read - drawn).abs().max() <= 1e-4


def sliding():
    """A model whose layers keep the keys of the newest tokens alone, in one layer, and of all in the other."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        **SMALL,
        layer_types=["sliding_attention", "full_attention"],
        use_sliding_window=True,
        sliding_window=4,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["attention", "recurrent", "placed", "sliding"])
def test_prompts_that_are_read_in_parts_get_the_same_responses(model, tokenizer, kind):
    """Six columns a prompt: with a budget of 13 tokens, two prompts at once."""
    model = {
        "attention": lambda: model,
        "recurrent": recurrent,
        "placed": placed,
        "sliding": sliding,
    }[kind]()
    model.generation_config.eos_token_id = list(range(1, 30))
    options, seen = {"max_new_tokens": 8, "num_generations": 3}, []
    whole = sample(model, tokenizer, PROMPTS, **options)
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].shape))
    )
    parts = sample(model, tokenizer, PROMPTS, **options, token_budget=13)
    assert [[one.ids for one in row] for row in parts] == [
        [one.ids for one in row] for row in whole
    ]
    for one, other in zip(sum(parts, []), sum(whole, []), strict=True):  # noqa: RUF017 - few
        assert one.logps == pytest.approx(other.logps, abs=1e-4)
    # states that cannot be copied cannot be put together either
    assert [shape for shape in seen if shape[1] > 1] == (
        [(12, 6)] if kind == "recurrent" else [(2, 6), (2, 6)]
    )


def test_what_leaves_no_room_for_a_response_is_refused(tokenizer):
    """32 positions that were learned one by one: the 33rd would be read from behind the table."""
    model = placed()
    assert len(sample(model, tokenizer, [[5] * 24], max_new_tokens=8)[0][0].ids) <= 8
    says = "a prompt of 25 tokens and max_new_tokens 8 need 33 positions, and the model has 32; lower max_new_tokens"
    with pytest.raises(ModelError, match=says):
        sample(model, tokenizer, [[5], [5] * 25], max_new_tokens=8)


def test_any_seed_will_do(model, tokenizer):
    """On-policy learning mixes the iteration into it: a date as the seed comes to more than 64 bits."""
    found = [
        generate(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=1.0, seed=s)
        for s in (2 * 10**13, -1)
    ]
    assert found[0] != found[1]
