"""Training within a Jupyter kernel ends: what is printed beside its bar does not end it."""

import nbclient
import nbformat
import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

CELL = """
from lit_align.compat.lightning import steps_bar
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

class Talking(BoringModel):
    def training_step(self, batch, index):
        print("first\\nsecond")
        return super().training_step(batch, index)

bar = steps_bar()
Trainer(
    accelerator="cpu", max_steps=2, callbacks=[bar], logger=False, enable_checkpointing=False,
    enable_model_summary=False, limit_val_batches=0,
).fit(Talking())
type(bar).__name__
"""


def test_a_notebook_has_a_bar_beside_which_lines_can_be_printed():
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (result,) = (
        output for output in notebook.cells[0].outputs if output.output_type == "execute_result"
    )
    assert result["data"]["text/plain"] == repr(TQDMProgressBar.__name__)
