"""Import Lightning without the parts of other libraries that it names and few commands use."""

from __future__ import annotations

import sys

from lit_align.compat.light_dynamo import delay_dynamo
from lit_align.compat.light_scipy import delay_scipy
from lit_align.compat.light_torchmetrics import put_torchmetrics


def import_lightning() -> None:
    """Import Lightning, which names torch's compiler and two classes of torchmetrics: half of the time to import it.

    Does nothing where Lightning is imported already.
    """
    if "lightning" in sys.modules:
        return
    import torch  # noqa: F401  # which imports no compiler

    delay_dynamo()
    delay_scipy()
    put_torchmetrics()
    import lightning.pytorch  # noqa: F401
