"""The notebook in examples/ runs as a reader would run it, and shows widgets with tables beside."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "lighthouses.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_the_notebook_runs(tmp_path: Path) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs for cell in book.cells if cell.cell_type == "code")  # kept clean
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    shown = [out.data for out in outputs if out.output_type == "execute_result"]
    answers = [data for data in shown if "<table>" in data.get("text/html", "")]
    assert len(answers) == 2
    assert all(WIDGET in data for data in answers)
    assert shown[-1]["text/plain"] == "True"
