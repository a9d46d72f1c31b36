"""Sampled tokens a CPU-second, against transformers' ``generate`` with the same model, adapter and prompts.

``python -m tests.benchmarks.sampling`` takes about six minutes on one core and writes ``sampling.json`` to the proofs.
Eight prompts of about 100 tokens have four responses of 48 tokens each; none ends before. SmolLM2-135M is read whole,
in float32 and in 4 bits, with a LoRA adapter of rank 16 whose B is not zero. The two take turns in one process. Before
anything is timed, both decode greedily and must write the same tokens, and the log-probabilities that we return with
sampled tokens must be those of a pass over the whole text.
"""

import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model,
    set_peft_model_state_dict,
)

from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_model, load_tokenizer

from . import inputs

PROOF = Path(__file__).parents[1] / "proofs/sampling.json"
PROMPTS, GENERATIONS, LENGTH, ROUNDS = 8, 4, 48, 5
TOLERANCE = 1e-3


class Sampling:
    """Both ways to sample, with one model.

    Args:
        quantization: of its weights.
    """

    def __init__(self, quantization: str) -> None:
        base = Base(inputs.SMOL, quantization, "float32")
        self.tokenizer = load_tokenizer(base)
        lora = Lora(r=16, alpha=32, dropout=0.0)
        self.adapters = AdapterSet(load_model(base), lora, gradient_checkpointing=False)
        weights = inputs.spread_weights(self.adapters)
        set_peft_model_state_dict(self.adapters.peft, weights, adapter_name="policy")
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        self.peer = get_peft_model(load_model(base), config).eval()
        set_peft_model_state_dict(self.peer, weights)
        # lengths differ, so that there is something to pad
        rows = inputs.text(110, 1, PROMPTS)
        self.prompts = [row["prompt_ids"][index:] for index, row in enumerate(rows)]
        # a token that the model hardly writes, so that nothing ends before the limit
        self.tokenizer.eos_token = "<file_sep>"

    @torch.no_grad()
    def ours(self, temperature: float, generations: int) -> list[list[Any]]:
        """Completions, ``[prompt][generation]``."""
        with self.adapters.activate("policy") as model:
            return sample(
                model,
                self.tokenizer,
                self.prompts,
                max_new_tokens=LENGTH,
                temperature=temperature,
                num_generations=generations,
                seed=1,
                batch_size=PROMPTS * GENERATIONS,
            )

    @torch.no_grad()
    def theirs(self, temperature: float, generations: int) -> torch.Tensor:
        """Ids of all responses, ``[responses, tokens]``."""
        batch = self.tokenizer.pad(
            {"input_ids": self.prompts}, padding_side="left", return_tensors="pt"
        )
        settings = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        written = self.peer.generate(
            **batch,
            **(settings if temperature else {"do_sample": False}),
            num_return_sequences=generations,
            max_new_tokens=LENGTH,
            eos_token_id=None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return written[:, batch["input_ids"].shape[1] :]

    @torch.no_grad()
    def gate(self) -> dict[str, float]:
        """How far the two are apart; raises where that is too far."""
        greedy = [completion.ids for [completion] in self.ours(0.0, 1)]
        same = sum(
            mine == other for mine, other in zip(greedy, self.theirs(0.0, 1).tolist(), strict=True)
        )
        gap = 0.0
        for prompt, [completion] in zip(self.prompts, self.ours(1.0, 1), strict=True):
            ids = torch.tensor([[*prompt, *completion.ids]])
            logps = self.peer(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            whole = logps.gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
            gap = max(gap, (whole - torch.tensor(completion.logps)).abs().max().item())
        figures = {"greedy responses that are the same": same, "log-probabilities differ by": gap}
        if same < PROMPTS or gap > TOLERANCE:
            raise SystemExit(f"the two do not compute the same: {figures}")
        return figures


def compare(quantization: str) -> dict[str, Any]:
    """CPU seconds of both, by turns."""
    both = Sampling(quantization)
    figures: dict[str, Any] = {"gate": both.gate()}
    seconds: dict[str, list[float]] = {"ours": [], "transformers": []}
    for _ in range(ROUNDS):
        for name, run in (("transformers", both.theirs), ("ours", both.ours)):
            start = time.process_time()
            run(1.0, GENERATIONS)
            seconds[name].append(time.process_time() - start)
        print(
            quantization,
            {name: round(values[-1], 2) for name, values in seconds.items()},
            flush=True,
        )
    tokens = PROMPTS * GENERATIONS * LENGTH
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures["CPU seconds"] = seconds
    figures["tokens a CPU-second"] = {name: tokens / median for name, median in medians.items()}
    figures["ratio"] = medians["transformers"] / medians["ours"]
    return figures


def main() -> None:
    """Compare in float32 and in 4 bits, and write the figures."""
    torch.set_num_threads(1)
    figures: dict[str, Any] = {name: compare(name) for name in ("none", "nf4")}
    figures["machine"] = {
        "processor": platform.processor() or platform.machine(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }
    PROOF.write_text(json.dumps(figures, indent=1) + "\n")
    for name in ("none", "nf4"):
        print(f"{name}: {figures[name]['ratio']:.2f} times transformers' tokens a CPU-second")


if __name__ == "__main__":
    main()
