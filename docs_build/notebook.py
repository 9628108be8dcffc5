"""The notebook, executed while the site is built, so that all it shows was computed by the present code.

It is kept as a Python program with cells (jupytext's percent format), which reads well in a diff and has no outputs
that could be out of date. A cell that draws says what is to be seen by `alt`, in the line that begins it.
"""

import base64
import tempfile
from collections.abc import Iterable
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SOURCE, PAGE = "notebook.py", "notebook.md"
KERNEL: dict[str, Any] = {
    "kernel_name": "python3",
    "startup_timeout": 300,
    "timeout": 900,
    "extra_arguments": ["--log-level=40"],  # it would warn that cells are sent to it, on this machine, unencrypted
}
"""How the cells are run, with the seconds that the start and each of them may take on a busy machine."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the page made of the notebook, and its pictures, in its place.

    Without `extra.execute_notebook` of mkdocs.yml the page has no outputs.
    """
    source = files.get_file_from_path(SOURCE)
    if source is None:
        raise PluginError(f"{SOURCE} is not in {config.docs_dir}")
    notebook = jupytext.reads(source.content_string, fmt="py:percent")
    if config.extra["execute_notebook"]:
        _execute(notebook)
    pictures: dict[str, bytes] = {}
    files.append(File.generated(config, PAGE, content=_markdown(notebook, pictures)))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    files.remove(source)
    return files


def _execute(notebook: Any) -> None:
    """Run all cells in a folder of their own.

    Raises:
        PluginError: a cell fails; the message ends with its error.
    """
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        try:
            NotebookClient(notebook, resources=resources, **KERNEL).execute()
        except CellExecutionError as error:
            raise PluginError(f"{SOURCE}: {error}") from None


def _markdown(notebook: Any, pictures: dict[str, bytes]) -> str:
    """Return the cells as Markdown, and add the pictures that they have drawn by their names."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in _joined(cell.get("outputs", ())):
            if "image/png" in output:
                name = f"notebook-{number}.png"
                pictures[name] = base64.b64decode(output["image/png"])
                parts.append(f"![{cell.metadata['alt']}]({name})")
            else:
                parts.append(f"```text\n{output['text/plain'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _joined(outputs: Iterable[Any]) -> list[dict[str, str]]:
    """Return outputs by type, with what is printed piece by piece in one; what went to standard error is left out."""
    joined: list[dict[str, str]] = []
    printed = False
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stdout":
                if printed:
                    joined[-1]["text/plain"] += output.text
                else:
                    joined.append({"text/plain": output.text})
                printed = True
        elif output.output_type in ("display_data", "execute_result"):
            joined.append(output.data)
            printed = False
    return joined
