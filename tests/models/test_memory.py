"""What is predicted is what a step takes."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.models.load import Base, load_config, load_model
from lit_align.models.memory import GIB, out_of_memory_message, predict_memory
from lit_align.models.roles import Lora, Roles

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Peak(TorchDispatchMode):
    """Counts the bytes of every tensor that lives while it is active."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set()

    def add(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.live -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return made


class ChunkedHead(torch.autograd.Function):
    """Log-probabilities of targets, chunk by chunk, with the gradient made on the way."""

    @staticmethod
    def forward(ctx, hidden, weight, target):
        rows = max(64, min(1024, 2**24 // len(weight)))
        gradient, logps = torch.empty_like(hidden), torch.empty(len(hidden))
        for start in range(0, len(hidden), rows):
            s = slice(start, start + rows)
            logits = (hidden[s] @ weight.T).float()
            at, total = torch.arange(len(logits)), logits.logsumexp(-1)
            logps[s] = logits[at, target[s]] - total
            slope = logits.sub_(total[:, None]).exp().neg_()
            slope[at, target[s]] += 1
            gradient[s] = slope.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    def backward(ctx, grad):
        return (grad[:, None] * ctx.saved_tensors[0]).to(ctx.saved_tensors[0].dtype), None, None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized") / "llama"
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=4096,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("quantization", "dtype", "checkpointing", "scored"),
    [
        ("none", "float32", True, 16),  # the layers' peak
        ("none", "float32", True, 200),  # the head's
        ("nf4", "float32", False, 16),
        ("nf4", "float32", True, 16),
        ("nf4", "bfloat16", False, 16),
        ("nf4", "bfloat16", True, 200),
    ],
)
def test_prediction_within_15_percent_of_what_a_step_takes(path, quantization, dtype, checkpointing, scored):
    tokens, base, lora = 256, Base(path, quantization, dtype), Lora(r=16)
    roles = Roles(load_model(base, CPU), lora, checkpointing=checkpointing).train()
    optimizer = torch.optim.AdamW(roles.trainable().values(), foreach=False)
    ids, mask = torch.randint(0, 4096, (1, tokens)), torch.ones(1, 1, tokens, tokens, dtype=torch.bool).tril()
    with Peak() as seen:
        for tensor in (*roles.parameters(), *roles.buffers(), ids, mask):
            seen.add(tensor)
        for module in roles.modules():
            if state := getattr(getattr(module, "weight", None), "quant_state", None):
                seen.add(state.absmax), seen.add(state.state2.absmax)
        static = seen.live
        for _ in range(2):  # the first step makes the moments
            hidden = roles.model.model(ids, attention_mask=mask, use_cache=False)[0]
            hidden, target = hidden[0, -scored - 1 : -1], ids[0, -scored:]
            logps = ChunkedHead.apply(hidden, roles.model.lm_head.weight, target)
            (-logps.mean()).backward()
            del hidden, logps
            optimizer.step()
            optimizer.zero_grad()
    found = predict_memory(load_config(base), base, lora, tokens, scored, checkpointing=checkpointing, device=CPU)
    assert found.total == pytest.approx(seen.peak, rel=0.15)
    assert found.weights + found.adapters == pytest.approx(static, rel=0.15)
    assert found.total - found.weights - found.adapters == pytest.approx(seen.peak - static, rel=0.15)


def llama_8b():
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )


def test_the_static_parts_of_an_8b_model():
    """6.98e9 weights in 4.127 bits, 1.05e9 in 16, and 41.9e6 of adapters (r 16) at 4 + 12 bytes."""
    found = predict_memory(llama_8b(), Base("x", dtype="bfloat16"), Lora(), 1024, 1024, device=GPU)
    layer = 4096 * (4096 * 2 + 1024 * 2 + 14336 * 3)
    assert found.weights == 32 * layer * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + (2 * 128256 * 4096 + 65 * 4096) * 2
    adapters = 32 * 16 * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert (found.adapters, found.optimiser) == (4 * adapters, 12 * adapters)
    assert found.total < 24 * GIB
    assert predict_memory(llama_8b(), Base("x", dtype="bfloat16"), Lora(targets=["q_proj"]), 9, 9).adapters == (
        4 * 32 * 16 * 8192
    )


def test_out_of_memory_names_three_settings_that_help():
    config, base = llama_8b(), Base("x", "none", "bfloat16")
    found = out_of_memory_message(config, base, Lora(), 8192, 4096, checkpointing=False, device=GPU)
    now = predict_memory(config, base, Lora(), 8192, 4096, checkpointing=False, device=GPU)
    less = predict_memory(config, base, Lora(), 8192, 4096, device=GPU)
    assert found.startswith(f"out of memory with 8192 tokens, predicted {now.total / GIB:.2f} GiB (weights 14.96, ")
    assert "data.token_budget: 4096 (" in found
    assert "base.quantization: nf4 (" in found
    assert found.endswith(f" or checkpointing: true ({less.total / GIB:.2f} GiB)")
    found = out_of_memory_message(config, Base("x"), Lora(), 8192, 4096, device=GPU)
    for setting in ("data.token_budget: 4096 (", "data.max_length: 4096 (", "lora.r: 8 ("):
        assert setting in found
    sizes = [float(part.split(" GiB")[0]) for part in found.split("(")[2:]]
    assert len(sizes) == 3
    assert max(sizes) < float(found.split("predicted ")[1].split(" GiB")[0])
    assert math.isclose(sizes[0], sizes[1])


def test_settings_are_read_without_weights(path, smollm2):
    assert load_config(Base(path)).hidden_size == 128
    assert load_config(Base(smollm2)).num_hidden_layers == 30
