"""The training forward and backward pass of common layers with fewer operations and less kept: the same numbers.

What is fused, and what makes it exact:

* `projections`: a frozen linear layer and its LoRA adapter; layers with one input share a product for their A.
* `gated_mlp`: the gated feed-forward layer, whose activation is computed again in the backward pass.
* `rms_norm`: root mean square normalization with its gradient in closed form.
* `rotary`: the rotary position embedding, written into one buffer.

Each is the same sum of products as in PEFT or transformers, in another order: results differ by roundings.
`recognition` decides which layers are known, by their code; all others stay as they are, and so does a known layer in
a situation that its fused form does not cover, such as dropout on an adapter in train mode. `fuse` puts the fused forms
on the instances of one model, and `unfuse` takes them off.
"""

from lit_align.models.fused.model import Fusion, expected_fusion, fuse, unfuse

__all__ = ["Fusion", "expected_fusion", "fuse", "unfuse"]
