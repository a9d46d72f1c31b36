"""TRL's own loss code, called unbound on log-probabilities that are given; nothing of it is written down again here."""

from collections import defaultdict
from functools import partial
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


def grpo_reads(**settings) -> SimpleNamespace:
    """What ``GRPOTrainer._compute_loss`` reads from its trainer, which it may also change."""
    arguments = {
        "delta": None,
        "use_bias_correction_kl": False,
        "steps_per_generation": 1,
        **settings.pop("arguments", {}),
    }
    accelerator = SimpleNamespace(
        gather=lambda x: x,
        reduce=lambda x, reduction: x,
        pad_across_processes=lambda x, dim, pad_index: x,
        num_processes=1,
        sync_gradients=True,
    )
    usual = {
        "model": torch.nn.Identity(),
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list)},
    }
    return SimpleNamespace(**{**usual, "args": SimpleNamespace(**arguments), **settings})


def grpo_loss(
    reads: SimpleNamespace,
    inputs: dict[str, Tensor],
    logps: Tensor,
    entropies: Tensor,
    trainer: type | None = None,
) -> Tensor:
    """``_compute_loss`` of ``GRPOTrainer``, or of one derived from it, where the policy has these log-probabilities."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    reads._get_per_token_logps_and_entropies = lambda *_, **__: (logps, entropies, None)
    reads.get_high_entropy_mask = partial(GRPOTrainer.get_high_entropy_mask, reads)
    reads.get_gamma_weights = GRPOTrainer.get_gamma_weights
    mask = inputs["completion_mask"]
    prompt = torch.zeros(len(mask), 1, dtype=torch.long)
    tokens = {"prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": mask}
    inputs = {"num_items_in_batch": mask.sum(), **tokens, **inputs}
    return (trainer or GRPOTrainer)._compute_loss(reads, reads.model, inputs)
