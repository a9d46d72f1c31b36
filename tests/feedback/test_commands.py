"""Every feedback source with every kind of label: it works, or is refused in a sentence before it is asked."""

import json

import pytest
import torch

from lit_align.__main__ import main
from lit_align.errors import ConfigError, PluginError
from lit_align.feedback.base import Feedback, FeedbackResult, pair_probabilities
from lit_align.feedback.checked_results import check_suitable, checked_results
from lit_align.feedback.critique_revise import CritiqueRevise
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.judge import Judge
from lit_align.feedback.recorded import Recorded
from lit_align.feedback.self_play import SelfPlay
from lit_align.judges.openai_server import OpenAIServer
from lit_align.online.labels import label_groups
from lit_align.online.records import IDS_COLUMN
from lit_align.processes import Processes
from lit_align.rewards.length import Length
from lit_align.types import Group, LabelKind, Pair
from tests.judges.servers import serving

KINDS = ("pairs", "desirable", "ranking", "ratings", "demonstrations")
ROWS = [
    {"prompt": "Fair?", "responses": ["good words", "bad"], "pairs": [[0, 1]], "target": 0},
    {"prompt": "Foul?", "responses": ["bad old words", "good"], "pairs": [[1, 0]], "target": 1},
]
GROUPS = [
    Group("Fair?", ["good words", "bad"], (Pair(0, 1),), target=0, source="rows:1"),
    Group("Foul?", ["bad old words", "good"], (Pair(1, 0),), target=1, source="rows:2"),
]
ALONE = Processes(0, 1, torch.device("cpu"))
LABELLED = {
    "FromReward": (2, 2, 2, 2, 2),  # the shorter of two
    "Recorded": (2, 2, 2, 0, 2),  # comparisons imply no ratings
    "SelfPlay": (2, 2, 2, 2, 2),  # the reference answer
    "Judge": (2, 2, 2, 2, 2),  # the one that begins with good
    "CritiqueRevise": (2, 2, None, None, 2),  # None: refused
}


def answer(question: str) -> str:
    """As a judge prefers good; asked for anything else, it writes a new text."""
    if "The answer was:" in question:
        return "A new text."
    return "A" if question.index("good") < question.index("bad") else "B"


@pytest.fixture
def server():
    with serving(say=answer) as running:
        yield running


@pytest.fixture
def sources(server) -> dict[str, Feedback]:
    model = OpenAIServer(server.url, "m", cache=None)
    return {
        "FromReward": FromReward(Length(max_words=1)),
        "Recorded": Recorded(),
        "SelfPlay": SelfPlay(),
        "Judge": Judge(model),
        "CritiqueRevise": CritiqueRevise(model),
    }


@pytest.mark.parametrize("source", LABELLED)
def test_every_kind_of_label(source, sources):
    feedback = sources[source]
    for kind, expected in zip(KINDS, LABELLED[source], strict=True):
        if expected is None:
            with pytest.raises(
                ConfigError, match=f"CritiqueRevise gives .*, and {kind} are needed"
            ):
                check_suitable(feedback, kind)
            continue
        check_suitable(feedback, kind)
        results = checked_results(feedback, GROUPS, kind)
        assert sum(result.group is not None for result in results) == expected, kind
        sampled = [group._replace(extra={IDS_COLUMN: [[1], [2]]}) for group in GROUPS]
        results = label_groups(sampled, 2, feedback, LabelKind(kind), ALONE)
        assert sum(result.group is not None for result in results) == expected, kind


def test_a_revision_is_no_verdict_about_the_original(sources):
    [first, _] = checked_results(sources["CritiqueRevise"], GROUPS, "pairs")
    assert len(first.group.pairs) == 2
    assert pair_probabilities(GROUPS[0], first) == {}


@pytest.fixture
def options(server, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return [
        "--feedback=CritiqueRevise",
        "--feedback.model=OpenAIServer",
        f"--feedback.model.url={server.url}",
        "--feedback.model.model=m",
        f"--feedback.model.cache={tmp_path / 'answers'}",
        f"--data={rows}",
        f"--run={tmp_path / 'runs'}",
    ]


def test_judge_writes_revisions(options, tmp_path, capsys):
    main(["judge", *options, "--label_kind=demonstrations"])
    folder = tmp_path / "runs/0"
    labelled = [json.loads(line) for line in (folder / "labelled.jsonl").read_text().splitlines()]
    assert [row["responses"][0] for row in labelled] == ["A new text."] * 2
    assert json.loads((folder / "judge.json").read_text())["agreement"] is None
    assert "comparisons agree" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["judge", "--label_kind=ranking"], "and ranking are needed; use another feedback source"),
        (["evaluate", "reward-bench"], "has no verdict about given ones"),
        (["evaluate", "win-rate"], "has no verdict about given ones"),
    ],
)
def test_a_source_that_cannot_do_it_is_not_asked(command, sentence, options, server, capsys):
    words = [word for word in command if not word.startswith("--")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, *options, *command[len(words) :]])
    assert sentence in capsys.readouterr().err
    assert not server.calls


class Scripted(Feedback):
    """Returns what it is told to, or raises it."""

    def __init__(self, results):
        self.results = results

    def __repr__(self):
        return "Scripted()"

    def __call__(self, groups, label_kind):
        if isinstance(self.results, BaseException):
            raise self.results
        return self.results


def labelled(**fields) -> list[FeedbackResult]:
    return [FeedbackResult(group._replace(**fields)) for group in GROUPS]


@pytest.mark.parametrize(
    ("kind", "results", "sentence"),
    [
        ("pairs", ValueError("no luck"), r"Scripted\(\) failed: ValueError\('no luck'\)"),
        ("pairs", SystemExit(0), r"Scripted\(\) ended the run by SystemExit\(0\)"),
        ("pairs", None, "returned NoneType; it must return a list of FeedbackResult"),
        ("pairs", GROUPS, "returned a list of Group"),
        ("pairs", labelled()[:1], "returned 1 results for 2 groups"),
        ("pairs", labelled(pairs=()), "result for rows:1 has no comparison"),
        ("pairs", labelled(pairs=(Pair(0, 2),)), "a comparison of responses 0 and 2 of 2"),
        ("pairs", labelled(pairs=(Pair(0, 1, float("nan")),)), "probability nan"),
        ("desirable", labelled(desirable=(True,)), "has 1 binary labels for 2 responses"),
        ("ranking", labelled(), "has 0 places for 2 responses"),
        ("ratings", labelled(ratings=({"a": float("inf")}, {})), "a rating of inf for a"),
        ("demonstrations", labelled(responses=[]), "has no response"),
    ],
)
def test_what_a_source_returns_is_checked(kind, results, sentence):
    with pytest.raises(PluginError, match=sentence):
        checked_results(Scripted(results), GROUPS, kind)
