"""Does learning from what another engine samples reach the same optimum? A policy whose answers can be listed.

``python -m tests.proofs.samplers`` learns through a server in a second process, whose logits have noise of 0 to 1 nats,
with and without importance weights, from the newest policy and from the one a step before. It measures the nats from π*
to the policy, and with the KL penalty in the loss also to where the derivation says that learning without weights ends.
Figures go to ``samplers.json`` beside this file; arguments choose arms by the beginning of their names.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import process_time

from lit_align.advantages.gae import GAE
from lit_align.advantages.rloo import RLOO
from lit_align.models.samplers.served import Served
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.objectives.ppo import PPO
from lit_align.rl.kl_control import KLControl
from tests import tiny
from tests.engine import running, token_noise
from tests.rl.listable import TREE, biased_optimum, distance, listable, optimum

RESULTS = Path(__file__).with_suffix(".json")
CAP = 10.0  # so high that it cuts nothing: what is shown are the weights
ITERATIONS, LR = 150, 0.01

ARMS = {
    "PPO, KL in the reward": (PPO(), GAE(lam=1.0, whiten=False), KLControl(0.5), 2),
    "RLOO, KL in the reward": (PolicyGradient(), RLOO(), KLControl(0.5), 2),
    "RLOO, KL in the loss": (
        *(PolicyGradient(), RLOO()),
        *(KLControl(0.2, where="loss", estimator="k2"), 1),
    ),
}
"""Objective, advantage, KL penalty and tokens of an answer."""

CONDITIONS = [
    # noise in nats, staleness, weights
    (0.0, 0, True),
    (0.1, 0, True),
    (0.1, 1, True),
    (0.1, 0, False),
    (0.5, 0, True),
    (0.5, 1, True),
    (0.5, 0, False),
    (1.0, 0, True),
    (1.0, 0, False),
]


def learn(words: Path, arm: str, noise: float, staleness: int, weighted: bool) -> dict:
    """One run; its figures."""
    objective, advantage, kl, tokens = ARMS[arm]
    start = process_time()
    with running(words, noise=noise) as server:
        module = listable(
            words, objective, advantage, kl, max_new_tokens=tokens, staleness=staleness,
            sampler=Served([server.url]), importance_sampling_cap=CAP if weighted else None,
        )  # fmt: skip
        wanted = optimum(module)
        before = distance(wanted, module)
        module.learn([TREE], ITERATIONS, LR)
    figures = {"before": before, "to the optimum": distance(wanted, module)}
    if kl.where == "loss":
        biased = biased_optimum(module, token_noise(noise, 8).double())
        figures["to the biased optimum"] = distance(biased, module)
        figures["between the optima"] = (wanted.exp() * (wanted - biased)).sum().item()
    return {**figures, "cpu_seconds": process_time() - start}


def main() -> None:
    """Run the arms and write their figures one by one."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        words = tiny.words(Path(folder))
        for arm in ARMS:
            for noise, staleness, weighted in CONDITIONS:
                name = f"{arm}; noise {noise:g}, staleness {staleness}, {'' if weighted else 'no '}weights"
                if len(sys.argv) > 1 and not name.startswith(tuple(sys.argv[1:])):
                    continue
                found[name] = learn(words, arm, noise, staleness, weighted)
                RESULTS.write_text(json.dumps(found, indent=2) + "\n")
                print(name, found[name], flush=True)


if __name__ == "__main__":
    main()
