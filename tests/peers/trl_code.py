"""TRL's own loss code, called unbound on log-probabilities that are given; nothing of it is written down again here."""

from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

PAIRS, LONGEST = 6, 9


class Drawn(NamedTuple):
    """Log-probabilities of tokens, ``[2 * pairs, longest]``: the chosen responses, then the rejected ones."""

    policy: Tensor
    reference: Tensor
    collision: Tensor
    mask: Tensor
    elsewhere: tuple[Tensor, Tensor]


def drawn(seed: int, even: bool = False) -> Drawn:
    """Ragged responses in double precision; ``even`` makes the chosen ones equally long."""
    draw = torch.Generator().manual_seed(seed)
    length = torch.randint(1, LONGEST + 1, (2 * PAIRS,), generator=draw)
    if even:
        length[:PAIRS] = 7
    mask = (torch.arange(LONGEST) < length[:, None]).long()
    policy, reference, collision = (
        -4 * torch.rand(2 * PAIRS, LONGEST, generator=draw, dtype=torch.float64) * mask
        for _ in range(3)
    )
    elsewhere = tuple(
        -20 * torch.rand(2 * PAIRS, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    return Drawn(policy.requires_grad_(), reference, collision, mask, elsewhere)


class Recorded:
    """A causal LM whose log-probabilities of the tokens are given; KTO asks for those of other prompts first."""

    def __init__(self, *answers: Tensor, collision: Tensor | None = None):
        self.answers, self.collision = list(answers), collision

    def __call__(self, **inputs):
        logps = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        nothing = torch.zeros_like(logps)
        seen = {"entropy": nothing, "mean_logits": nothing, "is_top1": nothing.bool()}
        return SimpleNamespace(log_probs=logps, log_sum_sq_probs=self.collision, **seen)


def _reads(**settings) -> SimpleNamespace:
    """What TRL's methods read from their trainer."""
    model = torch.nn.Identity()
    model.is_gradient_checkpointing = False
    arguments = SimpleNamespace(
        gradient_checkpointing_kwargs=None, discopop_tau=settings.pop("discopop_tau", 0.05)
    )
    return SimpleNamespace(
        **{
            "model": model,
            "accelerator": SimpleNamespace(
                device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
            ),
            "args": arguments,
            "aux_loss_enabled": False,
            "ld_alpha": None,
            "f_divergence_type": "reverse_kl",
            "use_weighting": False,
            "label_smoothing": 0.0,
            "is_encoder_decoder": False,
            "padding_value": 0,
            "pad_token_id": 0,
            "_metrics": {"train": defaultdict(list)},
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **settings,
        }
    )


def dpo(given: Drawn, loss_type: str | list[str] = "sigmoid", **settings) -> Tensor:
    """``DPOTrainer._compute_loss``."""
    from trl.trainer.dpo_trainer import DPOTrainer

    kinds = [loss_type] if isinstance(loss_type, str) else loss_type
    weights = settings.pop("loss_weights", [1.0] * len(kinds))
    reads = _reads(
        loss_types=kinds,
        loss_weights=weights,
        precompute_ref_logps=False,
        ref_model=Recorded(given.reference),
        **settings,
    )
    before = torch.zeros(len(given.mask), 1, dtype=torch.long)  # the first token is never predicted
    completion = torch.cat([before, given.mask], dim=1)
    inputs = {
        "input_ids": completion,
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
    }
    return DPOTrainer._compute_loss(
        reads, Recorded(given.policy, collision=given.collision), inputs, False
    )


def kto(given: Drawn, loss_type: str = "kto", **settings) -> Tensor:
    """``KTOTrainer._compute_loss``: the first half of the responses desirable, the second half not."""
    from trl.trainer.kto_trainer import KTOTrainer

    before = torch.zeros(len(given.mask), 1, dtype=torch.long)
    completion = torch.cat([before, given.mask], dim=1)
    inputs = {
        "input_ids": completion,
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "label": (torch.arange(len(completion)) < PAIRS).tolist(),
        **{
            f"KL_{name}": torch.ones(len(completion), 2, dtype=torch.long)
            for name in ("input_ids", "attention_mask")
        },
        "KL_completion_mask": torch.ones(len(completion), 2, dtype=torch.long),
    }
    inputs["label"] = torch.tensor(inputs["label"])
    policy, reference = (other[:, None] for other in given.elsewhere)
    reads = _reads(
        calculate_KL=loss_type == "kto",
        loss_type=loss_type,
        precompute_ref_logps=False,
        ref_model=Recorded(*([reference] if loss_type == "kto" else []), given.reference),
        **settings,
    )
    reads._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(reads, model, batch)
    return KTOTrainer._compute_loss(
        reads, Recorded(*([policy] if loss_type == "kto" else []), given.policy), inputs, False
    )


class Binary:
    """A causal LM of two words that says word 0 with the given log-probabilities, shifted as TRL expects."""

    def __init__(self, logps: Tensor):
        self.logps = logps

    def __call__(self, ids, **inputs):
        logits = torch.stack(
            [self.logps, (-torch.expm1(self.logps.clamp(max=-1e-9))).log()], dim=-1
        )
        return SimpleNamespace(logits=torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1))


def reference_free(given: Drawn, which: str, **settings) -> Tensor:
    """``get_batch_loss_metrics`` of ``ORPOTrainer`` or ``CPOTrainer``."""
    if which == "orpo":
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer as Trainer
    else:
        from trl.experimental.cpo.cpo_trainer import CPOTrainer as Trainer

    reads = _reads(
        concatenated_inputs=Trainer.concatenated_inputs,
        get_batch_logps=Trainer.get_batch_logps,
        **settings,
    )
    for method in (
        "concatenated_forward",
        *(("odds_ratio_loss",) if which == "orpo" else ("cpo_loss",)),
    ):
        setattr(reads, method, getattr(Trainer, method).__get__(reads))
    there = torch.cat([torch.ones(len(given.mask), 1, dtype=torch.long), given.mask], dim=1)
    batch = {}
    for side, rows in (("chosen", there[:PAIRS]), ("rejected", there[PAIRS:])):
        batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"] = torch.zeros_like(rows), rows
        batch[f"{side}_labels"] = torch.where(rows == 1, 0, -100)
    return Trainer.get_batch_loss_metrics(reads, Binary(given.policy), batch)[0]
