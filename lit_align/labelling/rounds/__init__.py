"""``lit-align campaign``: rounds of answers, labels, a reward model and a policy, each from the newest of the last."""
