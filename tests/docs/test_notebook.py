"""The notebook for a free GPU, executed as it is with a tiny model on a CPU."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "lit_align/docs/dpo_on_a_free_gpu.ipynb"


def test_every_cell_runs(tiny, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat; pip install -e '.[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient; pip install -e '.[docs]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel; pip install -e '.[docs]'")
    monkeypatch.setenv("LIT_ALIGN_TINY_MODEL", str(tiny))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "[0.69" in printed  # log 2
    assert (tmp_path / "exported/adapter_model.safetensors").exists()
