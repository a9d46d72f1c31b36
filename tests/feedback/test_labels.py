"""What a label must not be made of: ties, noise, doubt, what was never compared, what was cut, what was refused."""

import json

import pytest
import torch

from lit_align.errors import ModelError, SetAside
from lit_align.feedback.agreement import label_groups, measure_agreement, summarize_results
from lit_align.feedback.base import (
    TIE,
    label_from_probabilities,
    label_from_scores,
    pair_probabilities,
)
from lit_align.feedback.critique_revise import CritiqueRevise
from lit_align.feedback.discriminator import Discriminator
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.judge import Judge
from lit_align.feedback.recorded import Recorded
from lit_align.judges.base import JudgeModel, Reply
from lit_align.judges.local_model import LocalModel
from lit_align.judges.openai_server import OpenAIServer
from lit_align.models.load import Base
from lit_align.rewards import Reward, Scores
from lit_align.types import Group, Pair
from tests.judges.servers import SHORT, serving

THREE = Group("Name a bird.", ["owl", "bat", "crow"])


class Sure(JudgeModel):
    """As sure of A as it is told, except where it cannot read."""

    def __init__(self, *chances, blind="\0"):
        self.chances, self.blind = chances, blind

    def choose_option(self, questions, options):
        found = []
        for question, p in zip(questions, self.chances * len(questions), strict=False):
            seen = self.blind not in question
            found.append(
                Reply((p, 1 - p) if seen else None, "", {"cost": 0.0}, "" if seen else "too long")
            )
        return found

    def generate(self, questions, max_tokens):
        return [
            Reply(None, "An owl is a bird of", {"cost": 0.0}, truncated=True) for _ in questions
        ]


class Noisy(Reward):
    """All responses are worth the same, up to the last bit."""

    def __call__(self, groups):
        return Scores(
            torch.tensor([1.0 + 1e-6 * i for group in groups for i in range(len(group.responses))])
        )


# ---------------------------------------------------------------------- from comparisons and scores


@pytest.mark.parametrize(
    ("label_kind", "field", "wanted"),
    [
        ("ranking", "ranking", (1, 2)),
        ("ratings", "ratings", ({"score": 0.75}, {"score": 0.25})),
        ("desirable", "desirable", (True, False)),
    ],
)
def test_what_was_compared_with_nothing_has_no_label(label_kind, field, wanted):
    made = label_from_probabilities(THREE, {(0, 2): 0.75}, label_kind)
    assert (made.responses, getattr(made, field)) == (["owl", "crow"], wanted)
    [opinion] = Judge(Sure(0.9, 0.1, blind="> bat"))([THREE], "ranking")
    assert (opinion.group.responses, opinion.group.ranking) == (["owl", "crow"], (1, 2))


@pytest.mark.parametrize(
    "label_kind", ["pairs", "desirable", "ranking", "ratings", "demonstrations"]
)
def test_coin_tosses_say_nothing_of_any_kind(label_kind):
    with pytest.raises(SetAside, match=TIE):
        label_from_probabilities(THREE, {(0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.5}, label_kind)


def test_three_equal_scores_are_a_tie_although_their_mean_is_rounded():
    assert sum([0.1] * 3) / 3 != 0.1
    with pytest.raises(SetAside, match=TIE):
        label_from_scores(THREE, [0.1] * 3, "desirable")
    assert label_from_scores(THREE, [0.1] * 3, "desirable", threshold=0.0).desirable == (True,) * 3


@pytest.mark.parametrize("label_kind", ["pairs", "desirable", "ranking"])
def test_the_same_words_are_no_better_than_themselves(label_kind):
    [opinion] = FromReward(Noisy())([Group("Bird?", ["owl", "owl", "owl"])], label_kind)
    assert (opinion.group, opinion.reason) == (None, TIE)
    [opinion] = FromReward(Noisy())([Group("Bird?", ["owl", "owl", "bat"])], "ranking")
    assert opinion.group.ranking == (2, 2, 1)


def test_a_verdict_in_doubt_is_a_tie_wherever_it_is_counted():
    """A judge that is 0.6 sure, where 0.75 is asked for: neither a label, nor a win, nor agreement."""
    said = Group("Bird?", ["owl", "bat"], (Pair(0, 1),))
    by = Sure(0.6, 0.4)
    assert pair_probabilities(said, Judge(by)([said], "pairs")[0]) == {(0, 1): pytest.approx(0.6)}
    [opinion] = Judge(by, tie_margin=0.25)([said], "pairs")
    assert (opinion.reason, pair_probabilities(said, opinion)) == (TIE, {(0, 1): 0.5})
    assert measure_agreement([said], [opinion])["ties"] == 1


def test_kappa_is_that_of_another_library():
    """Both ways round, as the figure is defined: 0 and 2 are the sides, 1 is a tie."""
    from sklearn.metrics import cohen_kappa_score

    groups = [Group(f"{k}?", ["good", "bad"], (Pair(k % 2, 1 - k % 2),)) for k in range(30)]
    said = [
        group._replace(pairs=(Pair(0, 1, 0.5 if k % 5 == 0 else 0.8),))
        for k, group in enumerate(groups)
    ]
    found = measure_agreement(groups, label_groups(Recorded(), said, "pairs", 8))
    says = [1 if k % 5 == 0 else (2 if k % 2 == 0 else 0) for k in range(30)]
    both = [*says, *(2 - one for one in says)]
    assert found["kappa"] == pytest.approx(cohen_kappa_score(both, [2] * 30 + [0] * 30), abs=1e-6)


# ---------------------------------------------------------------------- from what is written


def test_a_revision_that_was_cut_is_not_held_up():
    [opinion] = CritiqueRevise(Sure(0.5))([Group("Bird?", ["A bat."])], "demonstrations")
    assert opinion.group is None
    assert summarize_results([opinion])["unread"] == {"a revision that max_tokens cut": 1}


def test_a_model_in_memory_says_whether_it_was_cut(tiny):
    by = LocalModel(Base(str(tiny), "none", "float32"))
    [few] = by.generate(["Bird?"], 3)
    assert few.truncated
    [many, none] = by.generate(["Bird?", "Bird? " * 100], 400)
    assert many.text.startswith(few.text)
    assert (none.text, none.reason) == ("", "a question longer than the judge reads")


def test_a_model_that_thinks_aloud_is_asked_for_its_verdict(tiny, tmp_path):
    """Its template opens the answer with an empty thought where thinking is switched off."""
    template = tmp_path / "thinks.jinja"
    template.write_text(
        "{{ messages[0].content }}!{% if enable_thinking is defined and not enable_thinking %}<no thought>{% endif %}"
    )
    by = LocalModel(Base(str(tiny), "none", "float32"), chat_template=str(template))
    assert by._judge.tokenizer.decode(by._prompt_ids("Bird?")) == "Bird?!<no thought>"


def served(server, tmp_path, **more) -> OpenAIServer:
    return OpenAIServer(
        server.url,
        "m",
        **{"timeout": SHORT, "cache": str(tmp_path / "a.sqlite"), "concurrency": 1, **more},
    )


def test_a_question_that_alone_is_refused_costs_only_its_label(tmp_path):
    """As one that is too long for the server; what is wrong with all of them still stops it at once."""
    said = [Group(f"Question {k}?", ["good", "bad"]) for k in range(4)]
    for code in (400, 413, 422):
        with serving({"Question 1?": [code] * 9}) as server:
            judge = Judge(served(server, tmp_path, cache=None), swap=False)
            opinions = judge(said, "pairs")
            assert [one.group is None for one in opinions] == [False, True, False, False]
            assert opinions[1].reason == f"no answer (status {code}: as planned)"
            assert sum(server.calls.values()) == 4  # it is not asked again
    with (
        serving({"Question": [400] * 99}) as server,
        pytest.raises(ModelError, match="refuses: Error code: 400"),
    ):
        Judge(served(server, tmp_path), swap=False)(said, "pairs")


def test_an_answer_that_was_cut_is_known_as_such_also_from_the_file(tmp_path):
    with serving() as server:
        server.finish = "length"
        for paid in (1, 1):
            [reply] = served(server, tmp_path).generate(["Bird?"], 3)
            assert (reply.truncated, sum(server.calls.values())) == (True, paid)


# ---------------------------------------------------------------------- a reward model between rounds


def test_a_discriminator_with_an_odd_number_is_refused():
    with pytest.raises(
        ValueError,
        match="label_budget must be at least 1, got 0",
    ):
        Discriminator(Noisy(), Recorded(), label_budget=0)


def test_records_of_doubt_can_be_written_down():
    [opinion] = Judge(Sure(0.6), tie_margin=0.25)([Group("Bird?", ["owl", "bat"])], "pairs")
    assert [json.loads(json.dumps(record))["doubt"] for record in opinion.records] == [0.25, 0.25]
