"""What became of chosen and rejected responses, against numbers by hand and the log-probabilities themselves."""

import json
import math

import pytest
import torch

from lit_align.callbacks.likelihood_displacement import Displacement, measure_displacement
from lit_align.cli.main import main
from lit_align.data.packing import pack
from lit_align.objectives.dpo import DPO
from lit_align.objectives.mix import Mix
from lit_align.objectives.orpo import ORPO
from lit_align.stages.preference import Preference
from tests import objective_registry
from tests.stages.runs import arguments, folder_of, write_pairs
from tests.stages.test_exact import stage
from tests.stages.test_preference_losses import labelled


def test_means_by_hand():
    """Two equally likely responses: one halves, the other vanishes, so a quarter is left of the two together."""
    half, before = math.log(0.5), torch.tensor([-3.0])
    moved = Displacement.from_logps(
        torch.stack([before, before + half]),
        torch.stack([before, before - 1000]),
        torch.tensor([0.25]),
    )
    assert moved == pytest.approx((1, half, -1000.0, 2 * half, 0.25))


@pytest.mark.parametrize(
    ("moved", "objective", "says"),
    [
        (
            Displacement(4, 1.0, -2.0, 0.9, 0.1),
            DPO(),
            ["more probable: their log-probability changed by +1.0", "rejected ones by -2.0 nats."],
        ),
        (
            Displacement(4, -9.0, -20.0, -9.0, 0.1),
            DPO(),
            [
                "less probable: their log-probability changed by -9.0",
                "went to responses that are in no pair",
                "DPO allows it",
                "11.0 nats",
            ],
        ),
        (
            Displacement(4, -9.0, 3.0, 2.0, 0.1),
            DPO(),
            ["Part of what they lost went to the rejected ones."],
        ),
        (
            Displacement(4, -9.0, 3.0, -1.0, 0.1),
            DPO(),
            ["went to the rejected ones, the rest to responses that are in no pair."],
        ),
        (Displacement(4, -9.0, -20.0, -9.0, -0.1), DPO(), ["DPO causes it"]),
        (
            Displacement(4, -9.0, -20.0, -9.0, 0.1),
            ORPO(),
            ["ORPO does not cause it", "lower learning rate"],
        ),
    ],
)
def test_the_explanation_says_what_happened_and_whether_the_loss_causes_it(moved, objective, says):
    story = " ".join(moved.explain(objective).split())
    assert all(one in story for one in says), story


@pytest.mark.parametrize("name", ["DPO", "ORPO", "SLiC", "WPO", "Mix", "APODown", "AOT"])
def test_it_is_measured_against_the_reference_whether_the_loss_has_one_or_not(name, tiny):
    module = stage(Preference, objective_registry.build(objective_registry.settings(name)), tiny)
    torch.manual_seed(0)
    for parameter in module.adapters.trainable().values():
        torch.nn.init.normal_(parameter.data, std=0.05)
    rows = labelled("pairs")
    moved = measure_displacement(module, rows)
    (batch,) = pack(rows, 10_000)
    dpo = stage(Preference, DPO(), tiny)  # its log-probabilities are tested elsewhere
    dpo._adapters, dpo._tree_forward = module.adapters, module.tree_forward
    with torch.no_grad(), module.adapters.activate("policy", training=False):
        logps = dpo.logps(batch, module.tree_forward(batch.trees))
    shift = logps.policy - logps.reference
    assert moved.pairs == len(batch.pairs.chosen) == 12
    assert moved.chosen == pytest.approx(shift[batch.pairs.chosen].mean().item(), abs=1e-4)
    assert moved.rejected == pytest.approx(shift[batch.pairs.rejected].mean().item(), abs=1e-4)
    assert (moved.slope < 0) == (
        name == "APODown"
    )  # it wants both down (D'Oosterlinck et al., 2024)


def test_a_run_says_it_while_it_happens_and_at_its_end(tiny, tmp_path, caplog):
    """A learning rate that is far too high."""
    main(
        arguments(
            tiny,
            write_pairs(tmp_path / "pairs.jsonl"),
            tmp_path / "run",
            "--model.optimizer.lr=0.1",
        )
    )
    told = json.loads((folder_of(tmp_path / "run") / "summary.json").read_text())["displacement"]
    assert told["pairs"] == 22
    assert told["story"] in caplog.text
    header = (folder_of(tmp_path / "run") / "metrics.csv").read_text().splitlines()[0]
    assert {"shift/chosen", "shift/rejected"} <= set(header.split(","))
    assert ("the log-probability of chosen responses has fallen by" in caplog.text) == (
        told["chosen"] < -1
    )
    assert told["chosen"] < -1


def test_a_mixture_may_say_that_it_does_not_cause_it():
    mix = objective_registry.build(objective_registry.settings("Mix"))
    assert isinstance(mix, Mix)
    assert "Mix does not cause it" in " ".join(
        Displacement(4, -1.0, -2.0, -1.0, 0.1).explain(mix).split()
    )
