#!/bin/sh
# torch 2.13.0 (CPU), g++ 12.2 (which torch.compile needs).
# FlexAttention under torch.compile, with a mask that keeps packed documents apart by looking their numbers up in a
# tensor, over rows of several lengths.
# Expected: each length works, as it does for a causal mask, which looks nothing up.
# Seen: the first length works. At the second one torch.compile begins to make lengths variable, and the C++ that it
# writes then does not compile (a name runs together with the number after it); the error is some hundred lines of a
# compiler. With dynamic=False each length works, at a compilation each.
# Source: torch/_inductor/codegen/cpp_flex_attention_template.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
TORCHINDUCTOR_CACHE_DIR="$folder/cache" env/bin/python - <<'PY'
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention


def deviation(compiled, length, is_packed):
    """How far from plain attention, or the name of the error."""
    document = torch.arange(length) // 50

    def packed(batch, head, query, key):
        return (query >= key) & (document[query] == document[key])

    def causal(batch, head, query, key):
        return query >= key

    mask = create_block_mask(packed if is_packed else causal, None, None, length, length, device="cpu")
    states = torch.randn(1, 2, length, 16)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if is_packed:
        allowed &= document[:, None] == document
    try:
        with torch.no_grad():
            result = compiled(states, states, states, block_mask=mask)
    except torch._inductor.exc.InductorError as error:
        (first, *_) = [line for line in str(error).splitlines() if " error: " in line]
        return type(error).__name__ + ":" + first.partition(" error:")[2]
    return (result - scaled_dot_product_attention(states, states, states, attn_mask=allowed)).abs().max().item()


def over_lengths(is_packed, **options):
    """The deviations at three lengths, of a function that is compiled anew."""
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, **options)
    return [deviation(compiled, length, is_packed) for length in (256, 384, 512)]


causal, packed, fixed = over_lengths(False), over_lengths(True), over_lengths(True, dynamic=False)
print("causal:", causal, "\ndocuments:", packed, "\ndocuments, dynamic=False:", fixed)
assert max(causal) < 1e-5
assert max(fixed) < 1e-5
assert packed[0] < 1e-5
assert all("InductorError" in str(each) for each in packed[1:])
PY
