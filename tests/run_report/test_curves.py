"""Curves as a PNG: one panel for each unit, only what was logged at two steps, whole steps."""

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.run_report.curves import plot_curves
from lit_align.run_report.panels import PANELS, filled_panels

STEPS = [0, 1, 2]
PREFERENCE = (
    "loss",
    "eval_loss",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "lr",
)


def logged(*names):
    return {name: (STEPS, [0.1, 0.2, 0.3]) for name in names}


def test_loss_margin_log_probabilities_and_learning_rate_are_apart():
    panels = {
        panel.title: [line.label for line in lines]
        for panel, lines in filled_panels(logged(*PREFERENCE))
    }
    assert panels == {
        "Loss": ["training", "validation"],
        "Margin of implicit rewards": ["margin"],
        "Accuracy": ["accuracy"],
        "Log-probability of responses": ["chosen", "rejected"],
        "Learning rate": ["lr"],
    }


def test_the_parts_of_a_reward_have_panels_and_others_do_not():
    names = ["objective/scores", "objective/kl", "rewards/Length", "rewards/RewardModelScore"]
    titles = [panel.title for panel, _ in filled_panels(logged(*names, "rewards/tokens_cut"))]
    assert titles == ["Reward", "KL to the reference", "Length", "RewardModelScore"]


@pytest.mark.parametrize(("names", "grid"), [(["loss"], (1, 1)), (PREFERENCE, (2, 3))])
def test_the_size_follows_the_panels(tmp_path, names, grid):
    assert plot_curves(logged(*names), tmp_path / "curves.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "curves.png").shape
    assert (height, width) == (grid[0] * 360, grid[1] * 624)


def test_one_point_is_not_drawn(tmp_path):
    curves = {"loss": ([0], [0.7]), "eval_loss": ([0], [0.6])}
    assert not plot_curves(curves, tmp_path / "curves.png")
    assert not plot_curves({}, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


@given(st.sets(st.sampled_from([name for panel in PANELS for name in panel.metrics])))
def test_each_metric_is_drawn_once(names):
    drawn = [line.curve for _, lines in filled_panels(logged(*sorted(names))) for line in lines]
    assert len(drawn) == len(names)


def test_every_panel_has_a_unit():
    assert all(panel.unit for panel in PANELS)
