"""Heads of annotators: where they are, what few votes do to them, and who gets which."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import lit_align
from lit_align.annotators import annotator_key
from lit_align.cli.main import main
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.personal_head import load_shifts
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.plackett_luce import PlackettLuce
from lit_align.objectives.regression import Regression
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.personal_reward_model import PersonalRewardModel, count_annotators
from lit_align.types import Group, Pair, Tree
from tests.stages.runs import folder_of, say, trace
from tests.stages.test_exact import gradient, step, trees
from tests.stages.test_preference_losses import labelled
from tests.stages.test_reward_model import plain_scores, reward_arguments, texts

WIDTH = 32
NAMES = ["ada", "bob", "ada", "", "ada", "cid", "bob"]


def signed(rows: list[Tree], names: list[str] = NAMES) -> list[Tree]:
    """The rows, each by an annotator."""
    signed_rows = []
    for number, tree in enumerate(rows):
        name = names[number % len(names)]
        signed_rows.append(tree._replace(group=tree.group._replace(annotator=name)))
    return signed_rows


def personal(tiny, rows, objective, monkeypatch, **settings) -> PersonalRewardModel:
    """A stage on these rows, with random weights."""
    base = Base(str(tiny), "none", "float32")
    module = PersonalRewardModel(objective, base=base, lora=Lora(r=4), **settings)
    module.annotators = count_annotators(rows)
    data = SimpleNamespace(token_budget=100, trees={"train": rows})
    monkeypatch.setattr(PersonalRewardModel, "datamodule", data)
    module.configure_model()
    draw = torch.Generator().manual_seed(0)
    for weight in module.adapters.trainable().values():
        torch.nn.init.normal_(weight, std=0.1, generator=draw)
    module.adapters.peft.train()
    return module


def inputs_of_head(module, tree: Tree) -> torch.Tensor:
    """Last hidden state of each response in a pass of its own, and a 1, ``[responses, width + 1]``."""
    hidden = []
    with torch.no_grad(), module.adapters.activate("reward", training=False) as model:
        for response in tree.responses:
            ids = torch.tensor([tree.prompt + response])
            hidden.append(model.base_model(input_ids=ids).last_hidden_state[0, -1])
    states = torch.stack(hidden).double()
    return torch.cat([states, states.new_ones(len(states), 1)], 1)


def shift_of(module, name: str) -> torch.Tensor:
    head = module.personal_head("reward")
    return head.shift[head.index(annotator_key(name))].detach().double()


def test_the_loss_is_that_of_each_ones_own_head_and_the_prior(tiny, monkeypatch):
    rows = signed(trees(7))
    module = personal(tiny, rows, BradleyTerry(), monkeypatch, shrinkage=0.25)
    wanted = 0.0
    for tree in rows:
        scores = plain_scores(module, tree)
        name = tree.group.annotator
        if name:
            scores = scores + inputs_of_head(module, tree) @ shift_of(module, name)[0]
        (pair,) = tree.group.pairs
        lead = (scores[pair.better] - scores[pair.worse]).item()
        wanted += pair.probability * math.log1p(math.exp(-lead))
        wanted += (1 - pair.probability) * math.log1p(math.exp(lead))
    for name in ("ada", "bob", "cid"):  # -log N(0, 1 / (0.25 * 33)) once for each person
        wanted += 0.25 * (WIDTH + 1) / 2 * shift_of(module, name).square().sum().item()
    measured, _ = gradient(module, step(rows, 10_000))
    assert measured == pytest.approx(wanted / 7, rel=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_micro_batches_change_neither_loss_nor_gradient(members, tiny, monkeypatch):
    rows = signed(labelled("pairs", 7))
    module = personal(tiny, rows, BradleyTerry(), monkeypatch, members=members)
    parts = step(rows, max(tree.tokens for tree in rows))
    assert len(parts.batches) >= 4
    (loss, grad), (loss_, grad_) = gradient(module, step(rows, 10_000)), gradient(module, parts)
    assert loss_ == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(grad_, grad, rtol=1e-3, atol=1e-5)


def test_of_ratings_a_head_is_the_ridge_regression_of_what_the_mean_head_leaves(tiny, monkeypatch):
    r"""The normal equations: (XᵀAX + λ(d + 1) I) δ = XᵀA(y - X w), with A the weights of ratings."""
    rows = signed(labelled("ratings", 7))
    objective = Regression(["helpfulness", "brevity"])
    module = personal(tiny, rows, objective, monkeypatch, shrinkage=0.02)
    module.fit_heads("reward")
    head = module.adapters.head("reward")
    mean = torch.cat([head.weight, head.bias[:, None]], 1).detach().double()
    for name in ("ada", "cid"):
        own = [tree for tree in rows if tree.group.annotator == name]
        inputs = torch.cat([inputs_of_head(module, tree) for tree in own])
        ratings = [rating for tree in own for rating in tree.group.ratings]
        for number, attribute in enumerate(objective.attributes):
            # the mean of squared errors over the ratings of a response
            weight = torch.tensor([2 / len(r) * (attribute in r) for r in ratings]).double()
            rated = torch.tensor([r.get(attribute, 0.0) for r in ratings]).double()
            gram = inputs.T @ (weight[:, None] * inputs)
            gram += 0.02 * (WIDTH + 1) * torch.eye(WIDTH + 1).double()
            left = inputs.T @ (weight * (rated - inputs @ mean[number]))
            wanted = torch.linalg.solve(gram, left)
            torch.testing.assert_close(shift_of(module, name)[number], wanted, rtol=1e-3, atol=1e-4)


def test_a_fitted_head_is_where_the_loss_has_no_slope(tiny, monkeypatch):
    rows = signed(trees(14))
    module = personal(tiny, rows, BradleyTerry(), monkeypatch, shrinkage=0.1)
    module.fit_heads("reward")
    module.adapters.peft.train()
    gradient_of_step(module, rows)
    head = module.personal_head("reward")
    assert head.shift.detach().abs().max() > 1e-2
    assert head.shift.grad.abs().max() < 1e-4
    assert head.weight.grad.abs().max() > 1e-2  # the mean head was not fitted


def gradient_of_step(module, rows: list[Tree]) -> None:
    """Leave the gradients of the summed loss."""
    for batch in step(rows, 10_000).batches:
        module.losses(batch, statistics=False)[0].backward()


@pytest.mark.parametrize("copies", [1, 4])
def test_the_same_votes_again_count_as_more_votes(copies, tiny, monkeypatch):
    """n copies of the votes under λ are the votes under λ / n: the prior's part shrinks as votes come in."""
    rows = signed(trees(3), ["ada"])
    module = personal(tiny, rows * copies, BradleyTerry(), monkeypatch, shrinkage=0.4 * copies)
    module.fit_heads("reward")
    alone = personal(tiny, rows, BradleyTerry(), monkeypatch, shrinkage=0.4)
    alone.fit_heads("reward")
    torch.testing.assert_close(
        shift_of(module, "ada"), shift_of(alone, "ada"), rtol=1e-3, atol=1e-5
    )


def test_strong_shrinkage_leaves_everyone_the_mean_head(tiny, monkeypatch):
    rows = signed(trees(7))
    module = personal(tiny, rows, BradleyTerry(), monkeypatch, shrinkage=1e9)
    module.fit_heads("reward")
    assert module.personal_head("reward").shift.abs().max() < 1e-8


# ---------------------------------------------------------------- the command, and what it leaves


def write_votes(path: Path, rows: int = 20) -> Path:
    """Ada likes long answers, Bob short ones, and some rows are nobody's."""
    lines = []
    for number in range(rows):
        answers = [say(number, 1 + number % 2), say(number + 1, 6)]
        name = (["ada", "bob"] * 3 + [None])[number % 7]
        longer_wins = name == "ada"
        row = {
            "prompt": f"{number} {say(number, 3)}?",
            "chosen": answers[longer_wins],
            "rejected": answers[not longer_wins],
            "worker": name,
        }
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), "utf-8")
    return path


def personal_arguments(tiny, train, run, *more) -> list[str]:
    renamed = {"--model=RewardModel": "--model=PersonalRewardModel"}
    plain = reward_arguments(tiny, train, run, "--data.columns={annotator: worker}", *more)
    return [renamed.get(word, word) for word in plain]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("personal")
    votes = write_votes(folder / "votes.jsonl")
    more = ["--trainer.max_epochs=2", "--model.shrinkage=0.05", "--model.members=2"]
    main(personal_arguments(tiny, votes, folder / "run", *more))
    return folder_of(folder / "run")


def test_whoever_is_new_gets_the_pooled_scores_to_the_last_bit(trained):
    groups = texts(20)
    pooled = RewardModelScore(str(trained / "adapter"))(groups).total
    with pytest.warns(UserWarning, match="'eve' has no head in"):
        reward = RewardModelScore(str(trained / "adapter"), annotator="eve")
    assert torch.equal(reward(groups).total, pooled)
    ada = RewardModelScore(str(trained / "adapter"), annotator="ada")(groups).total
    assert not torch.allclose(ada, pooled, atol=1e-2)
    key = annotator_key("ada")
    assert torch.equal(RewardModelScore(str(trained / "adapter"), annotator=key)(groups).total, ada)


def test_each_row_is_scored_by_its_own_annotators_head(trained):
    groups = [
        group._replace(annotator=["ada", "bob", ""][i % 3]) for i, group in enumerate(texts(9))
    ]
    adapter = str(trained / "adapter")
    scores = RewardModelScore(adapter, by_annotator=True, uncertainty_penalty=0.0)(groups)
    for name in ("ada", "bob", ""):
        own = [group for group in groups if group.annotator == name]
        settings = {"annotator": name} if name else {}
        alone = RewardModelScore(adapter, uncertainty_penalty=0.0, **settings)(own).total
        is_own = torch.tensor([g.annotator == name for g in groups for _ in g.responses])
        torch.testing.assert_close(scores.total[is_own], alone, rtol=1e-4, atol=1e-4)
    pooled = RewardModelScore(adapter, uncertainty_penalty=0.0)(groups).total
    torch.testing.assert_close(scores.parts["trained/pooled"], pooled, rtol=1e-4, atol=1e-4)


def test_the_folder_holds_hashes_and_no_names(trained):
    for file in (trained / "adapter").rglob("*"):
        if file.is_file():
            assert not re.search(rb"\b(ada|bob)\b", file.read_bytes()), file
    shifts, annotators = load_shifts(trained / "adapter/reward0")
    assert annotators.keys == tuple(sorted(map(annotator_key, ("ada", "bob"))))
    assert annotators.votes == (9, 9)
    assert shifts.shape == (2, 1, WIDTH + 1)
    assert load_file(trained / "adapter/reward0/head.safetensors").keys() == {
        "weight",
        "bias",
        "combine",
        "mean",
        "scale",
    }


def test_the_checkpoint_has_the_heads(trained):
    module = lit_align.load(trained)
    for member in ("reward0", "reward1"):
        shifts, annotators = load_shifts(trained / "adapter" / member)
        assert module.personal_head(member).annotators == annotators
        assert torch.equal(module.personal_head(member).shift, shifts)


def test_a_resumed_run_is_the_uninterrupted_one(tiny, tmp_path):
    votes = write_votes(tmp_path / "votes.jsonl")
    main(personal_arguments(tiny, votes, tmp_path / "whole", "--trainer.max_epochs=2"))
    main(personal_arguments(tiny, votes, tmp_path / "parts", "--trainer.max_epochs=1"))
    checkpoint = folder_of(tmp_path / "parts") / "checkpoints/last.ckpt"
    more = ["--trainer.max_epochs=2", f"--ckpt_path={checkpoint}"]
    main(personal_arguments(tiny, votes, tmp_path / "parts", *more))
    assert trace(tmp_path / "whole").items() >= trace(tmp_path / "parts").items()
    whole, parts = (folder_of(tmp_path / name) / "adapter" for name in ("whole", "parts"))
    for file in ("adapter_model", "head", "annotator_heads"):
        first, second = (load_file(at / f"{file}.safetensors") for at in (whole, parts))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_annotators_the_run_is_refused_before_weights_load(tiny, tmp_path, capsys):
    votes = write_votes(tmp_path / "votes.jsonl")
    args = personal_arguments(tiny, votes, tmp_path / "run")
    with pytest.raises(SystemExit):
        main([word for word in args if "worker" not in word])
    assert "no row of data.train says whose labels it has" in capsys.readouterr().err


def test_a_row_of_another_annotator_is_set_aside(tiny, tmp_path):
    votes = write_votes(tmp_path / "votes.jsonl")
    more = ["--data.only_annotator=ada", "--data.columns={annotator: worker}"]
    main(reward_arguments(tiny, votes, tmp_path / "only", *more))
    ledger = json.loads((folder_of(tmp_path / "only") / "ledger.json").read_text())["train"]
    assert (ledger["fates"]["kept"], ledger["fates"]["set aside"]) == (9, 11)
    reasons = json.dumps(ledger)
    assert "of another annotator" in reasons
    assert "it does not say whose it is" in reasons


def test_without_someone_is_as_if_their_rows_never_were(tiny, tmp_path, capsys):
    votes = write_votes(tmp_path / "votes.jsonl")
    rest = tmp_path / "rest.jsonl"
    lines = [line for line in votes.read_text().splitlines(True) if '"ada"' not in line]
    rest.write_text("".join(lines))
    main(personal_arguments(tiny, votes, tmp_path / "without", "--data.without_annotators=[ada]"))
    main(personal_arguments(tiny, rest, tmp_path / "never"))
    evaluation = f"Next: lit-align evaluate personal --personal {folder_of(tmp_path / 'never')}"
    assert evaluation in "".join(capsys.readouterr().out.split("\n"))
    first, second = (folder_of(tmp_path / name) / "adapter" for name in ("without", "never"))
    for file in ("adapter_model", "head", "annotator_heads"):
        one, other = (load_file(at / f"{file}.safetensors") for at in (first, second))
        assert all(torch.equal(one[name], other[name]) for name in one)


OPINIONS = {
    "pairs": (BradleyTerry(), {"pairs": (Pair(0, 1),)}, {"pairs": (Pair(1, 0),)}),
    "rankings": (PlackettLuce(), {"ranking": (1, 2, 3)}, {"ranking": (3, 2, 1)}),
    "ratings": (
        Regression(["brevity"]),
        {"ratings": ({"brevity": 9.0}, {"brevity": -9.0}, {"brevity": 9.0})},
        {"ratings": ({"brevity": -9.0}, {"brevity": 9.0}, {"brevity": -9.0})},
    ),
}


@pytest.mark.parametrize("kind", OPINIONS)
def test_two_components_for_two_people_are_their_own_heads(kind, tiny, monkeypatch):
    """They contradict each other on the same responses, and one of them more often, so that each is a camp."""
    objective, *opinions = OPINIONS[kind]
    rows = []
    for name, opinion in zip("abb", [*opinions, opinions[1]], strict=True):
        group = Group("", [""] * 3, annotator=name)._replace(**opinion)
        rows += [tree._replace(group=group) for tree in trees(4, responses=3)]
    both = []
    for components in (None, 2):
        settings = {"shrinkage": 2e-3, "components": components}
        module = personal(tiny, rows, objective, monkeypatch, **settings)
        module.fit_heads("reward")
        both.append(torch.stack([shift_of(module, name) for name in "ab"]))
    assert torch.dist(*both[0]) > 0.1
    torch.testing.assert_close(both[1], both[0], rtol=1e-2, atol=1e-2)


def test_one_head_for_everyone_has_no_annotators(tiny, tmp_path):
    votes = write_votes(tmp_path / "votes.jsonl")
    main(reward_arguments(tiny, votes, tmp_path / "run"))
    adapter = str(folder_of(tmp_path / "run") / "adapter")
    with pytest.raises(lit_align.errors.ModelError, match="has one head for everyone"):
        RewardModelScore(adapter, annotator="ada")
    assert Group("", [""]).annotator == ""


def test_two_components_are_two_heads_that_many_people_share(tiny, monkeypatch):
    """Six people of two minds, who vote the other way round on the same pairs."""
    rows = trees(4)
    opposite = [tree._replace(group=tree.group._replace(pairs=(Pair(1, 0),))) for tree in rows]
    certain = [tree._replace(group=tree.group._replace(pairs=(Pair(0, 1),))) for tree in rows]
    signed_rows = []
    for number, name in enumerate("abcdef"):
        signed_rows += signed(certain if number % 2 else opposite, [name])
    settings = {"shrinkage": 0.002, "components": 2}
    module = personal(tiny, signed_rows, BradleyTerry(), monkeypatch, **settings)
    module.fit_heads("reward")
    shifts = {name: shift_of(module, name) for name in "abcdef"}
    for name in "cde":
        same = "a" if name in "ce" else "b"
        torch.testing.assert_close(shifts[name], shifts[same], rtol=1e-3, atol=1e-4)
    assert torch.dist(shifts["a"], shifts["b"]) > 0.1
    alone = personal(tiny, signed_rows, BradleyTerry(), monkeypatch, shrinkage=0.002)
    alone.fit_heads("reward")
    # three people's votes are shrunk less than one's
    assert shifts["a"].norm() > shift_of(alone, "a").norm()
