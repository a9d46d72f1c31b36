"""Every sampler gives what was requested; those of this process the numbers of the model itself."""

import threading

import pytest
import torch

from lit_align.errors import ModelError
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.samplers import SampledModel, SamplingRequest
from lit_align.models.samplers.continuous import Continuous
from lit_align.models.samplers.in_process import InProcess
from lit_align.testing import check_sampler

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


@pytest.fixture(scope="module")
def policy(tiny):
    """A policy that has moved from its base."""
    base = Base(tiny, "none", "float32")
    adapters = AdapterSet(load_model(base, torch.device("cpu")), Lora(r=4))
    random = torch.Generator().manual_seed(1)
    for weight in adapters.trainable().values():
        weight.data.normal_(0, 0.1, generator=random)
    return SampledModel.of_role(adapters, load_tokenizer(base))


def test_in_process_is_what_it_was(policy):
    request = SamplingRequest(PROMPTS, max_new_tokens=6, num_generations=2, seed=3)
    with policy.activate() as model:
        plain = sample(
            model, policy.tokenizer, PROMPTS, max_new_tokens=6, num_generations=2, seed=3
        )
    assert InProcess().sample(policy, request) == plain
    assert InProcess().start(policy, request)() == plain
    assert check_sampler(InProcess(), policy, PROMPTS) is None


@pytest.mark.parametrize("role", ["policy", "reference"])
def test_continuous_batching_computes_with_the_active_adapter(policy, role):
    model = SampledModel.of_role(policy.adapters, policy.tokenizer, role)
    request = SamplingRequest(PROMPTS, max_new_tokens=6, temperature=0.0)
    threads = set(threading.enumerate())
    rows = Continuous().sample(model, request)
    left = {thread.name for thread in set(threading.enumerate()) - threads}
    assert not {name for name in left if not name.startswith("tqdm")}  # no manager goes on
    for [ours], [theirs] in zip(InProcess().sample(model, request), rows, strict=True):
        assert (ours.ids, ours.ended) == (theirs.ids, theirs.ended)
        assert theirs.logps == pytest.approx(ours.logps, abs=1e-5)
    assert policy.adapters.peft.training is False


def test_continuous_batching_samples_at_the_temperature(policy):
    request = SamplingRequest(PROMPTS, max_new_tokens=5, temperature=0.7, num_generations=3)
    rows = Continuous().sample(policy, request)
    assert [len(row) for row in rows] == [3] * 4
    for prompt, row in zip(PROMPTS, rows, strict=True):
        for completion in row:
            with torch.no_grad(), policy.activate() as model:
                logits = model(torch.tensor([[*prompt, *completion.ids]])).logits[0]
            logps = (logits[len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
            own = logps.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
            assert completion.logps == pytest.approx(own.tolist(), abs=1e-5)


def test_what_continuous_batching_cannot_do_is_said(policy, tiny):
    with pytest.raises(ModelError, match="attention is flex_attention, which cannot read"):
        Continuous().check(Base(tiny, attention="flex_attention"), None, policy.tokenizer)
    Continuous().check(Base(tiny), None, policy.tokenizer)
    with pytest.raises(ModelError, match="prompt 0 is empty"):
        Continuous().sample(policy, SamplingRequest([[]], max_new_tokens=2))
