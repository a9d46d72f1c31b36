"""A second process that loads our adapters gives our own numbers; what a server does wrong is one sentence."""

import pytest
import torch

from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.samplers import SampledModel, SamplingRequest
from lit_align.models.samplers.engine_checks import check_log_probabilities
from lit_align.models.samplers.in_process import InProcess
from lit_align.models.samplers.served import Served, request_seed
from lit_align.testing import check_sampler
from tests.engine import running

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]
REQUEST = SamplingRequest(PROMPTS, max_new_tokens=5, num_generations=3, seed=3, step=7)


def move(adapters, seed):
    """Another policy, as after an update."""
    random = torch.Generator().manual_seed(seed)
    for weight in adapters.trainable().values():
        weight.data.normal_(0, 0.1, generator=random)


@pytest.fixture(scope="module")
def base(tiny):
    return Base(tiny, "none", "float32")


@pytest.fixture(scope="module")
def policy(base):
    adapters = AdapterSet(load_model(base, torch.device("cpu")), Lora(r=4))
    return SampledModel.of_role(adapters, load_tokenizer(base))


@pytest.fixture(scope="module")
def server(tiny):
    with running(tiny) as server:
        yield server


@pytest.fixture
def served(server):
    """Quick to give up."""
    server.plan(
        noise=0.0, raw=False, rounding=0.0, peak=0.0, key="", max_lora_rank=16, root=server.base
    )
    sampler = Served([server.url], timeout=60.0, retries=1)
    yield sampler
    sampler._engine.close()


def assert_same(found, wanted):
    for theirs, ours in zip(found, wanted, strict=True):
        assert [one.ids for one in theirs] == [one.ids for one in ours]
        assert [one.ended for one in theirs] == [one.ended for one in ours]
        for one, own in zip(theirs, ours, strict=True):
            assert one.logps == pytest.approx(own.logps, abs=1e-5)


def test_ids_and_log_probabilities_are_those_of_this_process_after_each_update(
    served, policy, server
):
    drawn = []
    for seed in (1, 2):
        move(policy.adapters, seed)
        for temperature in (1.0, 0.7, 0.0):
            request = SamplingRequest(PROMPTS, 5, temperature, num_generations=3, seed=3, step=seed)
            found = served.sample(policy, request)
            assert_same(found, InProcess().sample(policy, request))
        drawn.append(found)
        [name] = server.adapters
        assert f"-policy-step{seed}-" in name
    assert drawn[0] != drawn[1]
    reference = SampledModel.of_role(policy.adapters, policy.tokenizer, "reference")
    assert_same(served.sample(reference, REQUEST), InProcess().sample(reference, REQUEST))
    assert check_sampler(served, policy, PROMPTS) is None


def test_several_servers_share_the_prompts(served, policy, server, tiny):
    with running(tiny) as other:
        sampler = Served([server.url, other.url], timeout=60.0)
        assert_same(sampler.sample(policy, REQUEST), InProcess().sample(policy, REQUEST))
        seeds = {int(call.split()[1]) for call in other.calls}
        assert seeds == {request_seed(3, place) for place in (1, 3)}
        sampler._engine.close()


def test_the_policy_may_move_while_it_is_sampled(served, policy):
    move(policy.adapters, 3)
    wanted = InProcess().sample(policy, REQUEST)
    finish = served.start(policy, REQUEST)
    move(policy.adapters, 4)
    assert_same(finish(), wanted)
    assert_same(served.sample(policy, REQUEST), InProcess().sample(policy, REQUEST))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("stale", r"sent an answer of 'lit-align-older', when 'lit-align-\S+' was asked"),
        ("half", "did not complete a prompt .an answer that is no complete JSON."),
        ("slow", "did not complete a prompt .no complete answer in 0.5 s."),
        ("fewer", "sent 2 of 3 completions of a prompt"),
        ("cut", "sent a completion cut off after 1 of 5 tokens"),
        ("other prompt", "sent completions of another prompt than was sent"),
        ("no numbers", "sent half an answer"),
        (503, "did not complete a prompt .status 503: as planned."),
        (400, "refuses a prompt: status 400: as planned"),
    ],
)
def test_a_faulty_server_is_one_sentence(fault, sentence, server, policy):
    sampler = Served([server.url], timeout=0.5 if fault == "slow" else 5.0, retries=1)
    wanted = InProcess().sample(policy, REQUEST)
    server.plan(*([fault] * 16))
    with pytest.raises(ModelError, match=sentence) as caught:
        sampler.sample(policy, REQUEST)
    assert "\n" not in str(caught.value)
    server.plan()
    sampler._engine.close()
    again = Served([server.url], timeout=60.0)
    assert_same(again.sample(policy, REQUEST), wanted)  # nothing is lost
    again._engine.close()


def test_a_fault_that_passes_is_not_noticed(served, policy, server):
    served.sample(policy, REQUEST)
    server.plan("half", 503, "fewer")
    patient = Served([server.url], timeout=60.0, retries=3)
    assert_same(patient.sample(policy, REQUEST), InProcess().sample(policy, REQUEST))
    server.plan()
    patient._engine.close()


def test_a_dead_server_is_one_sentence(tiny, base, policy):
    with running(tiny) as server:
        sampler = Served([server.url], retries=0)
        sampler.sample(policy, REQUEST)
        server.kill()
        with pytest.raises(
            ModelError, match=r"did not \w+ an? \w+ .no connection: .*see that"
        ) as caught:
            sampler.sample(SampledModel.of_role(policy.adapters, policy.tokenizer), REQUEST)
        assert "learned" not in str(caught.value)  # there may be no training
        fresh = Served([server.url], retries=0)
        with pytest.raises(ModelError, match=r"did not list its models .*; see that it answers$"):
            fresh.check(base, None, policy.tokenizer)


def test_another_base_tokenizer_or_rank_is_refused(server, base, policy, served):
    tokenizer = policy.tokenizer
    server.plan(root="org/other-model", name="other")
    with pytest.raises(ModelError, match=r"serves 'org/other-model', and the base of this run is"):
        served.check(base, None, tokenizer)
    server.plan(root=server.base, name=server.base)
    grown = load_tokenizer(base)
    grown.add_tokens(["more"])
    with pytest.raises(ModelError, match=r"spells token \d+, the last of \d+, in another way"):
        served.check(base, None, grown)
    grown.add_tokens(["owls"])
    with pytest.raises(ModelError, match="as other tokens than the tokenizer of this run"):
        served.check(base, None, grown)
    with pytest.raises(ModelError, match="is 1024, and vLLM loads"):
        served.check(base, Lora(r=1024), tokenizer)
    served.check(base, Lora(), tokenizer)
    server.plan(max_lora_rank=2)
    move(policy.adapters, 5)
    with pytest.raises(ModelError, match=r"LoRA rank 4 is greater .* raise its --max-lora-rank"):
        served.sample(policy, REQUEST)
    server.plan(max_lora_rank=16)
    with pytest.raises(ModelError, match="are over the 200 positions of the server"):
        served.sample(policy, SamplingRequest([[5] * 195], max_new_tokens=6))


def test_a_wrong_address_or_key_is_named_with_its_remedy(server, base, policy, monkeypatch):
    sampler = Served([server.root], retries=0)
    with pytest.raises(ModelError, match=f"at {server.root}/models .*which ends in /v1"):
        sampler.check(base, None, policy.tokenizer)
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    for paths in ("/v1", "/tokenize"):
        server.plan(key="sk-right", key_paths=paths)
        with pytest.raises(ModelError, match=r"\(status 401\); set .* variable MY_KEY") as caught:
            Served([server.url], retries=0, key="MY_KEY").check(base, None, policy.tokenizer)
        assert "sk-" not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "sk-right")
    server.plan(key_paths="/")
    Served([server.url], retries=0, key="MY_KEY").check(base, None, policy.tokenizer)
    server.plan(key="")


@pytest.mark.parametrize("temperature", [0.5, 1.5])
@pytest.mark.parametrize(("rounding", "peak"), [(0.0, 0.0), (1e-4, 0.0), (1e-4, 80.0)])
def test_log_probabilities_at_another_temperature_are_refused(
    rounding, peak, temperature, policy, server
):
    server.plan(raw=True, rounding=rounding, peak=peak)
    sampler = Served([server.url], timeout=60.0, retries=1)
    sampler.check(Base(server.base, "none", "float32"), None, policy.tokenizer)
    [engine] = sampler._engine.servers
    with pytest.raises(ModelError, match="start it with --logprobs-mode processed_logprobs"):
        check_log_probabilities(engine, temperature)
    server.plan(raw=False)
    check_log_probabilities(engine, temperature)
    server.plan(rounding=0.0, peak=0.0)


def test_a_run_asks_for_log_probabilities_at_its_temperature(served, policy, server):
    server.plan(raw=True)
    request = SamplingRequest(PROMPTS, 3, temperature=0.5)
    with pytest.raises(ModelError, match="start it with --logprobs-mode processed_logprobs"):
        served.sample(policy, request)
    server.plan(raw=False)
    served.sample(policy, request)


def test_settings_that_cannot_be_meant():
    for settings, sentence in (
        ({"urls": []}, "urls of Served is empty"),
        ({"urls": ["http://me:pass@host/v1"]}, "holds a user name or password"),
        ({"urls": ["http://host/v1"], "server_folder": "/data"}, "and folder null; set folder"),
        ({"urls": ["http://host/v1"], "concurrency": 0}, "concurrency must be at least 1, got 0"),
    ):
        with pytest.raises((ConfigError, ValueError), match=sentence):
            Served(**settings)


def test_adapters_are_left_neither_in_the_server_nor_on_disk(server, policy, tmp_path):
    sampler = Served([server.url], folder=str(tmp_path))
    for seed in (6, 7):
        move(policy.adapters, seed)
        sampler.sample(policy, REQUEST)
        [folder] = tmp_path.iterdir()
        assert folder.name in server.adapters
    sampler._engine.close()
    assert folder.name not in server.adapters
    assert not any(tmp_path.iterdir())


def test_an_adapter_that_not_all_servers_loaded_is_left_in_none(server, policy, tmp_path, tiny):
    with running(tiny) as other:
        sampler = Served([server.url, other.url], folder=str(tmp_path), timeout=60.0, retries=0)
        other.plan(max_lora_rank=2)
        for seed in (8, 9):
            move(policy.adapters, seed)
            with pytest.raises(ModelError, match="raise its --max-lora-rank"):
                sampler.sample(policy, REQUEST)
        [name] = server.adapters  # that of the first attempt is unloaded by the second
        other.plan(max_lora_rank=16)
        move(policy.adapters, 10)
        sampler.sample(policy, REQUEST)
        [folder] = tmp_path.iterdir()
        assert server.adapters == other.adapters == [folder.name] != [name]
        other.plan(max_lora_rank=2)
        move(policy.adapters, 11)
        with pytest.raises(ModelError, match="raise its --max-lora-rank"):
            sampler.sample(policy, REQUEST)
        sampler._engine.close()
        assert server.adapters == other.adapters == []
        assert not any(tmp_path.iterdir())
