"""Executed notebooks without what differs from run to run, so that equal results are equal files."""

from __future__ import annotations

import re

from nbformat import NotebookNode

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Keep sources, tags and outputs; drop timings, standard error (progress) and the machine's versions. In place.

    Cells are numbered: ids by position, execution counts by order of the code cells that ran. The words of a picture (see
    :func:`adi_lite.experiments.plots.show`) are copied to its cell's metadata: MyST-NB reads no others.
    """
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    ran = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            ran += bool(cell.execution_count)
            cell.execution_count = ran if cell.execution_count else None
            cell.outputs = [_output(o, ran) for o in cell.outputs if o.get("name") != "stderr"]
            if words := " ".join(filter(None, map(_alt, cell.outputs))):
                cell.metadata["mystnb"] = NotebookNode(image=NotebookNode(alt=words))
    return notebook


def take_parameters(notebook: NotebookNode, **parameters: str) -> NotebookNode:
    """Write parameters into the cell tagged ``parameters``, in place of the cell that papermill injected. In place.

    What the page shows can then be copied and run as it is.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    for name, value in parameters.items():
        line = re.compile(rf'^{name} = "[^"\n]*"', re.MULTILINE)
        if len(cells) != 1 or not line.search(cells[0].source):
            raise ValueError(f'needs one cell tagged "parameters" with a line {name} = "..."')
        cells[0].source = line.sub(f'{name} = "{value}"', cells[0].source)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    return notebook


def stderr_of(notebook: NotebookNode) -> str:
    """Everything that the cells wrote to standard error."""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return "".join(o.text for o in outputs if o.get("name") == "stderr")


def _alt(output: NotebookNode) -> str:
    """What is said of an output's picture for readers who cannot see it."""
    return output.get("metadata", {}).get("image/png", {}).get("alt", "")


def _output(output: NotebookNode, count: int) -> NotebookNode:
    if "execution_count" in output:
        output.execution_count = count
    if "text" in output:
        output.text = ADDRESS.sub("0x0", output.text)
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = ADDRESS.sub("0x0", content)
    return output
