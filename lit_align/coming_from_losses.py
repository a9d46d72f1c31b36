"""What each kind of loss of TRL is here, by the stage that has it; every one is compared with TRL's own code."""

from __future__ import annotations

from typing import Any

ZOO = " of lit-align-zoo"

LOSSES = {
    "sigmoid": "DPO",
    "hinge": "SLiC with relative: true and weight: 0",
    "ipo": "IPO with length_average: true",
    "exo_pair": f"EXO{ZOO}",
    "nca_pair": f"NCA{ZOO}",
    "robust": f"RobustDPO{ZOO}",
    "bco_pair": "BCO on the data module BinaryLabels",
    "sppo_hard": f"SPPO{ZOO}",
    "aot": f"AOT{ZOO}",
    "aot_unpaired": f"AOTUnpaired{ZOO}",
    "apo_zero": f"APOZero{ZOO}",
    "apo_down": f"APODown{ZOO}",
    "discopop": f"DiscoPOP{ZOO}",
    "sft": "CrossEntropy, alone in the stage SFT or beside another one in Mix",
    "sigmoid_norm": f"LengthNormalizedDPO{ZOO}",
    "kto": "KTO on the data module BinaryLabels",
    "apo_zero_unpaired": f"APOZeroUnpaired{ZOO}",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "nll": "CrossEntropy",
    "dft": "DFT",
}
"""Kinds of the trainers of pairs, binary labels and demonstrations, and the objective that each is."""

POLICY_LOSSES = {
    "grpo": "model.loss_aggregation: sequence",
    "dapo": "model.loss_aggregation: token",
    "bnpo": "model.loss_aggregation: token",
    "dr_grpo": "model.loss_aggregation: constant",
    "cispo": "model.objective: CISPO",
    "sapo": f"model.objective: SAPO{ZOO}",
    "vespo": f"model.objective: VESPO{ZOO}",
    "luspo": "model.objective.ratio: sequence with model.loss_aggregation: constant",
}
"""Kinds of GRPOTrainer."""


def loss_here(kind_of_loss: Any, is_policy: bool) -> str | None:
    """What a value of TRL's ``loss_type`` is here; None if it is not known.

    Args:
        kind_of_loss: its name, or a list of names whose losses are added up.
        is_policy: whether the stage is RL.

    Example:
        >>> loss_here("ipo", False), loss_here("grpo", True), loss_here("logistic", False)
        ('model.objective: IPO with length_average: true', 'model.loss_aggregation: sequence', None)
        >>> loss_here(["sigmoid", "sft"], False)
        'model.objective: Mix of DPO and CrossEntropy'
    """
    if isinstance(kind_of_loss, list):
        names = [LOSSES.get(str(name), "").partition(" ")[0].rstrip(",") for name in kind_of_loss]
        return f"model.objective: Mix of {' and '.join(names)}" if all(names) else None
    name = str(kind_of_loss)
    if is_policy or name not in LOSSES:
        return POLICY_LOSSES.get(name)
    return f"model.objective: {LOSSES[name]}"
