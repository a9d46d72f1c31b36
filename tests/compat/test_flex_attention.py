"""What torch says, and at which limit, when FlexAttention is no longer compiled."""

import inspect

from torch.nn.attention import flex_attention

from lit_align.compat.flex_attention import UNFUSED_WARNING, explain_unfused


def test_torch_still_warns_in_these_words():
    assert UNFUSED_WARNING in inspect.getsource(flex_attention)


def test_only_that_warning_is_explained():
    sentence = explain_unfused(UserWarning(f"{UNFUSED_WARNING}() - this will use an unfused one"))
    assert sentence is not None
    assert sentence.endswith("set model.base.attention to sdpa")
    assert explain_unfused(UserWarning("another")) is None
    assert explain_unfused(ValueError(UNFUSED_WARNING)) is None
