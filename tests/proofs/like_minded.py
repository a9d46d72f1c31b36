"""Many people of two minds, with few votes each: a head for everyone, for each, or a few that they share.

``python -m tests.proofs.like_minded``, with some of the seeds after it for these alone, has 40 simulated people vote in
the language of `tests.proofs.rounds`, half of them with the one taste of `tests.proofs.personal` and half with the
other. Nobody says who is like whom. Reward models learn from all votes: with one head, with a head for each person, and
with differences from the mean head that people share (``components``), at several ``shrinkage``. Right are those that
prefer what the person prefers in held-out votes in which the tastes are all that tells the answers apart.

Three seeds, which are of the votes and of training. Figures go to ``like_minded.json`` beside this file.
"""

import logging
import random
import sys
import tempfile
import warnings
from pathlib import Path
from time import process_time
from typing import Any

from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.stages.personal_reward_model import PersonalRewardModel
from lit_align.stages.reward_model import RewardModel
from tests.proofs.experiments import measure_seeds
from tests.proofs.personal import (
    TASTES,
    are_disputed,
    draw_pairs,
    fit,
    measure,
    settings_of,
    votes_of,
    without_people,
)
from tests.tiny import words

FIGURES = Path(__file__).parent / "like_minded.json"
SEEDS = (1, 2, 3)
PEOPLE, HELD_OUT = 40, 40
VOTES = (4, 12)
"""Training votes of each person."""
SHRINKAGE = (0.01, 0.1, 1.0)
ARMS: dict[str, dict[str, Any]] = {
    **{f"a head each, shrinkage {value:g}": {"shrinkage": value} for value in SHRINKAGE},
    **{f"2 shared, shrinkage {value:g}": {"shrinkage": value, "components": 2} for value in SHRINKAGE},
    **{f"{count} shared, shrinkage 0.1": {"shrinkage": 0.1, "components": count} for count in (1, 4)},
}  # fmt: skip


def compare(base: Path, folder: Path, votes: int, seed: int) -> dict[str, Any]:
    """Accuracies of all reward models from so many votes of each person."""
    draw = random.Random(1000 * votes + seed)
    train, held_out = [], []
    for number in range(PEOPLE):
        taste = [*TASTES][number % len(TASTES)]
        train += votes_of(f"person {number}", taste, draw_pairs(draw, votes), draw)
        held_out += votes_of(f"person {number}", taste, draw_pairs(draw, HELD_OUT), draw)
    disputed = [row for row in held_out if are_disputed(row)]
    settings = settings_of(base, seed)
    pooled = fit(RewardModel(BradleyTerry(), **settings), train, folder / "pooled")
    reports = {}
    for name, options in ARMS.items():
        module = PersonalRewardModel(BradleyTerry(), **options, **settings)
        personal = fit(module, train, folder / name)
        reports[name] = without_people(measure(personal, pooled, disputed))
    return reports


def learn(seed: int) -> dict[str, Any]:
    """All of one seed."""
    began = process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = words(folder / "base")
        by_votes = {str(votes): compare(base, folder / str(votes), votes, seed) for votes in VOTES}
    return {"seed": seed, "votes": by_votes, "CPU seconds": round(process_time() - began, 1)}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    measure_seeds(FIGURES, [int(word) for word in sys.argv[1:]] or SEEDS, learn, lambda runs: None)
