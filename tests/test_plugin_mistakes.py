"""Mistakes of people who write a plugin: a run and the check of its kind both end with the class and the remedy.

The first element of a row is a class of this module, which a run names by its path; then come what the run and
what the check say.
"""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import logsigmoid

from lit_align.cli.main import main
from lit_align.data.formats import Format
from lit_align.errors import PluginError
from lit_align.feedback import Feedback
from lit_align.objectives import PairwiseObjective
from lit_align.objectives.dpo import DPO
from lit_align.orca.embedders import Embedded
from lit_align.orca.modalities import InputSpec, collate
from lit_align.orca.testing import check_embedder
from lit_align.orca.types import BackboneSpec, TokenStats
from lit_align.plugin_failures import VARIABLE
from lit_align.plugin_signatures import check_signatures
from lit_align.rewards import Reward, Scores
from lit_align.testing import check_feedback, check_format, check_objective, check_reward
from lit_align.types import Group, Pair
from tests.orca.test_embedders import Plain
from tests.stages.runs import arguments, write_pairs


def margin(chosen, rejected):
    return chosen.policy - rejected.policy


class Mean(DPO):
    def __call__(self, chosen, rejected):
        return super().__call__(chosen, rejected).mean()


class Total(DPO):
    def __call__(self, chosen, rejected):
        return super().__call__(chosen, rejected).sum().item()


class Nothing(DPO):
    def __call__(self, chosen, rejected):
        super().__call__(chosen, rejected)


class Doubled(DPO):
    def __call__(self, chosen, rejected):
        return torch.cat([super().__call__(chosen, rejected)] * 2)


class OneSide(PairwiseObjective):
    def __call__(self, logps):
        return -logps.policy


class WithMore(PairwiseObjective):
    def __call__(self, chosen, rejected, beta):
        return -beta * margin(chosen, rejected)


class NoTarget(DPO):
    needs_target = True

    def __call__(self, chosen, rejected):
        return super().__call__(chosen, rejected)


class NoReward(PairwiseObjective):
    needs_reference = False

    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected))


class SecretReference(PairwiseObjective):
    needs_reference = False

    def implicit_reward(self, logps):
        return logps.policy

    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected) - margin_of_reference(chosen, rejected))


def margin_of_reference(chosen, rejected):
    return chosen.reference - rejected.reference


class NoGradient(DPO):
    def __call__(self, chosen, rejected):
        return super().__call__(chosen, rejected).detach()


class Misspelled(DPO):
    def __call__(self, chosen, rejected):
        return -logsigmoid(chosen.polcy - rejected.policy)


@dataclass(frozen=True)
class Refusing(DPO):
    def __post_init__(self):
        raise ValueError("beta must be negative here")


@dataclass(frozen=True)
class Raising(DPO):
    def __post_init__(self):
        raise KeyError("oops")


class NotANumber(DPO):
    def __call__(self, chosen, rejected):
        return super().__call__(chosen, rejected) * float("nan")


class Unrelated:
    def __call__(self, chosen, rejected):
        return margin(chosen, rejected)


OBJECTIVES = [
    (Mean, "Mean returned one number for 2 pairs; return a loss for each, without mean() or sum()", "for 8 items"),
    (Total, "Total returned ", "return a tensor with a loss for each of them"),
    (Nothing, "Nothing returned None for 2 pairs; return a tensor with a loss for each", "None for 8 items"),
    (Doubled, "Doubled returned losses of shape [4] for 2 pairs; return one for each of them", "shape [16] for 8"),
    (
        OneSide,
        "OneSide.__call__ takes (logps), and a PairwiseObjective is called with (chosen, rejected); write "
        "def __call__(self, chosen, rejected)",
        "OneSide.__call__ takes (logps), and a PairwiseObjective is called with (chosen, rejected)",
    ),
    (WithMore, "WithMore.__call__ takes (chosen, rejected, beta), and", "WithMore.__call__ takes (chosen, rejected, "),
    (NoTarget, "is called with (chosen, rejected, target)", "is called with (chosen, rejected, target)"),
    (
        NoReward,
        "the implicit reward of NoReward reads the reference, and its needs_reference is False; set needs_reference = "
        "True, or override implicit_reward",
        "the implicit reward of NoReward reads the reference, and its needs_reference is False",
    ),
    (
        SecretReference,
        "the loss of SecretReference reads the reference, and its needs_reference is False; set needs_reference = True",
        "the loss of SecretReference reads the reference, and its needs_reference is False",
    ),
    (
        NoGradient,
        "the loss of NoGradient has no gradient; compute it from the policy's log-probabilities",
        "the loss of NoGradient has no gradient",
    ),
    (
        Misspelled,
        "Misspelled failed at tests/test_plugin_mistakes.py:",
        "AttributeError: 'Logps' object has no attribute 'polcy'",
    ),
    (Refusing, "beta must be negative here", None),
    (Raising, "KeyError: 'oops'", None),
    (Unrelated, "tests.test_plugin_mistakes.Unrelated is no Objective; name a class that derives from it", None),
]  # fmt: skip
LATE = (Mean, Total, Nothing, Doubled, NoReward, SecretReference, NoGradient, Misspelled)
"""Known only once the objective is called."""


def name_of(cls) -> str:
    return f"{__name__}.{cls.__name__}"


@pytest.fixture
def refused(tiny, tmp_path, capsys, monkeypatch):
    """The sentence with which a run ends; no weights are loaded unless ``loads``."""

    def run(*options: str, loads: bool) -> str:
        if not loads:
            monkeypatch.setattr("lit_align.stages.language_model_stage.load_model", None)
        train = write_pairs(tmp_path / "pairs.jsonl", 8)
        with pytest.raises(SystemExit) as stopped:
            main(arguments(tiny, train, tmp_path / "runs", "--trainer.logger=csv", *options))
        assert stopped.value.code in (1, 2)
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        (sentence,) = [line for line in printed.splitlines() if line.startswith("lit-align: ")]
        return sentence

    return run


@pytest.mark.parametrize(
    ("cls", "of_run", "of_check"), OBJECTIVES, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_objective(cls, of_run, of_check, refused):
    sentence = refused(f"--model.objective={name_of(cls)}", loads=cls in LATE)
    assert of_run in sentence
    if of_check is not None:
        with pytest.raises(AssertionError) as failure:
            check_objective(cls())
        assert of_check in str(failure.value)
        assert "\n" not in str(failure.value)


def test_a_loss_that_is_not_a_number(refused):
    sentence = refused(
        f"--model.objective={name_of(NotANumber)}", "--model.max_bad_steps=2", loads=True
    )
    assert "were not finite in" in sentence
    with pytest.raises(AssertionError, match="a loss is not finite"):
        check_objective(NotANumber())


def test_the_traceback_is_shown_to_who_wants_it(refused, monkeypatch, tiny, tmp_path, capsys):
    monkeypatch.setenv(VARIABLE, "1")
    train = write_pairs(tmp_path / "pairs.jsonl", 8)
    with pytest.raises(SystemExit):
        main(arguments(tiny, train, tmp_path / "runs", f"--model.objective={name_of(Misspelled)}"))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


class Tensors(Reward):
    def __call__(self, groups):
        return torch.zeros(sum(len(group.responses) for group in groups))


class Lists(Reward):
    def __call__(self, groups):
        return [0.0 for group in groups for _ in group.responses]


class ForTRL(Reward):
    def __call__(self, prompts, completions):
        return [0.0 for _ in completions]


class ByGroup(Reward):
    def __call__(self, groups):
        return Scores(torch.zeros(len(groups)))


class Whole(Reward):
    def __call__(self, groups):
        return Scores(torch.zeros(sum(len(group.responses) for group in groups)).long())


class Broken(Reward):
    def __call__(self, groups):
        return Scores(groups[0].extra["answer"])


REWARDS = [
    (Tensors, "Tensors returned a Tensor; wrap it in Scores, as in return Scores(tensor)"),
    (Lists, "Lists returned a list; wrap it in Scores, as in return Scores(torch.tensor(numbers))"),
    (
        ForTRL,
        "ForTRL.__call__ takes (prompts, completions), and a Reward is called with (groups); write def __call__(self, "
        "groups); that is a reward of TRL: loop over the groups, and over the responses of each",
    ),
    (ByGroup, "responses; each has one"),
    (Whole, "Whole gave scores of torch.int64; give floating-point numbers"),
    (Broken, "tests/test_plugin_mistakes.py:"),
]


@pytest.mark.parametrize(
    ("cls", "words"), REWARDS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_reward(cls, words, refused):
    settings = ["--model=RL", "--data=Prompts", "--model.objective=PPO", "--model.advantage=RLOO"]
    settings += ["--model.lora.dropout=0", "--model.max_new_tokens=2", "--data.batch_size=2"]
    sentence = refused(*settings, f"--model.reward={name_of(cls)}", loads=cls is not ForTRL)
    assert words in sentence
    with pytest.raises(AssertionError) as failure:
        check_reward(cls())
    assert words in str(failure.value)


class Numbers(Feedback):
    def __call__(self, groups, label_kind):
        return [1 for _ in groups]


class NoKind(Feedback):
    def __call__(self, groups):
        return []


class TooFew(Feedback):
    def __call__(self, groups, label_kind):
        return []


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Numbers, "returned a list of int; it must return a list of FeedbackResult"),
        (NoKind, "NoKind.__call__ takes (groups), and a Feedback is called with (groups, label_kind); write def"),
        (TooFew, "returned 0 results for "),
    ],
)  # fmt: skip
def test_a_source_of_feedback(cls, words, tmp_path, capsys):
    data = write_pairs(tmp_path / "pairs.jsonl", 2)
    with pytest.raises(SystemExit):
        main(["judge", f"--feedback={name_of(cls)}", f"--data={data}", f"--run={tmp_path}/runs"])
    assert words in capsys.readouterr().err
    with pytest.raises(AssertionError) as failure:
        check_feedback(cls())
    assert words in str(failure.value)


@dataclass(frozen=True)
class Sound(Format):
    label_kinds: ClassVar = frozenset({"pairs"})

    def recognises(self, row):
        return "chosen" in row

    def __call__(self, row):
        return Group(row["prompt"], [row["chosen"], row["rejected"]], (Pair(0, 1),))


class Dictionary(Sound):
    def __call__(self, row):
        return {"prompt": row["prompt"]}


class OutOfRange(Sound):
    def __call__(self, row):
        return super().__call__(row)._replace(pairs=(Pair(0, 2),))


class UnknownKind(Sound):
    label_kinds: ClassVar = frozenset({"pair"})


class TwoRows(Sound):
    def __call__(self, row, index):
        return super().__call__(row)


class Wrong(Sound):
    def __call__(self, row):
        return row["promt"]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Dictionary, "Dictionary returned a dict; return a Group with prompt, responses and labels"),
        (OutOfRange, "OutOfRange compares responses 0 and 2 of 2; count them from 0"),
        (UnknownKind, "UnknownKind.label_kinds is ['pair']; it must be some of ['demonstrations', 'des"),
        (TwoRows, "TwoRows.__call__ takes (row, index), and a Format is called with (row); write def __call__(self"),
        (Wrong, "KeyError: 'promt'"),
    ],
)  # fmt: skip
def test_a_format(cls, words, refused):
    assert words in refused(f"--data.format={name_of(cls)}", loads=False)
    with pytest.raises(AssertionError) as failure:
        check_format(cls(), {"prompt": "a", "chosen": "b", "rejected": "c"})
    assert words in str(failure.value)


class BareTokens(Plain):
    def embed(self, x, mask):
        return super().embed(x, mask).tokens


class Wide(Plain):
    def build(self, inputs, d_model):
        super().build(inputs, d_model + 1)


class NumberMask(Plain):
    def embed(self, x, mask):
        tokens, token_mask, _ = super().embed(x, mask)
        return Embedded(tokens, token_mask.float())


class NoMask(Plain):
    def embed(self, x):
        return Embedded(x, x)


INPUTS = [torch.randn(2, 9), torch.randn(2, 5)]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (BareTokens, "BareTokens.embed returned a Tensor; return Embedded(tokens, mask)"),
        (Wide, "Wide.embed returned tokens of shape [2, 9, 25] for 2 inputs and a d_model of 24; they are [inputs, t"),
        (NumberMask, "NumberMask.embed returned a mask of torch.float32; it is boolean"),
        (NoMask, "NoMask.embed takes (x), and a Embedder is called with (x, mask); write def embed(self, x, mask)"),
    ],
)  # fmt: skip
def test_an_embedder(cls, words):
    with pytest.raises(AssertionError) as failure:
        check_embedder(cls(), "series", INPUTS)
    assert words in str(failure.value)
    embedder = cls()
    stats = TokenStats(torch.zeros(24), torch.ones(24))
    embedder.attach(InputSpec.from_inputs("series", INPUTS), BackboneSpec(24, 99, stats))

    def run():
        check_signatures(embedder)
        embedder(*collate(INPUTS))

    with pytest.raises(PluginError) as stopped:
        run()
    assert words in str(stopped.value)


def test_parts_within_parts_are_looked_through():
    from lit_align.rewards.weighted import Weighted

    with pytest.raises(PluginError, match="that is a reward of TRL"):
        check_signatures(Weighted([ForTRL()], [1.0]))
