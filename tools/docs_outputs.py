"""Runs the commands and the Python of a page or a notebook, in order, and writes what they print below them.

A block `text` that follows a block `sh` or `python` holds its output. Pictures that the page shows from
`images/PAGE/` are copied from the folder in which the page ran. `pip` is not run.

Run: python tools/docs_outputs.py docs/first-objects.md docs/notebooks/*.ipynb
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
PICTURE_COLOURS, PICTURE_WIDTH = 64, 900


def run_page(text: str, write: Callable[[str], str]) -> str:
    """Runs the blocks of a page in the current folder.

    Args:
        text: the page, in Markdown.
        write: function applied to the output of a block before it is written into the page.

    Returns:
        The page with the outputs.
    """
    names: dict[str, Any] = {}

    def block(match: re.Match[str]) -> str:
        language, source, shown = match.groups()
        printed = run_shell(source) if language == "sh" else run_python(source, names)
        if shown is None:
            return match[0]
        return f"```{language}\n{source}```\n\n```text\n{write(printed)}```\n"

    return BLOCK.sub(block, text)


def run_shell(source: str) -> str:
    """Runs lines of shell, `ssdir` as this interpreter's, and returns what they print to stdout.

    Raises:
        CalledProcessError: if a line fails.
    """
    lines = [line for line in source.replace("\\\n", " ").splitlines() if not line.startswith("pip ")]
    script = "\n".join(["set -e", f'ssdir() {{ "{sys.executable}" -m ssdir "$@"; }}', *lines])
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "COLUMNS": "100"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def run_python(source: str, names: dict[str, Any]) -> str:
    """Runs a block of Python and returns what it prints; later blocks see its names."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, "page", "exec"), names)
    return printed.getvalue()


def run_notebook(path: Path, folder: str) -> None:
    """Runs a notebook in a folder and saves it with its outputs, without warnings."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def masked(text: str) -> str:
    """Removes numbers, table borders and spaces, which differ between machines, from a text."""
    return " ".join(re.sub(r"[─━┏┓┗┛┡┩┳┻╇┃│└┘┴┼]+", " ", NUMBER.sub("#", text)).split())


def copy_pictures(text: str, ran_in: Path, docs: Path) -> None:
    """Copies the pictures that a page shows from a folder of its own, small and with few colours."""
    for target in re.findall(r"\]\((images/[\w-]+/[\w-]+\.png)\)", text):
        source = ran_in / Path(target).name
        if source.exists():
            (docs / target).parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(source).convert("RGB")
            picture.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
            picture.quantize(PICTURE_COLOURS).save(docs / target, optimize=True)


def main() -> None:
    """Runs the pages given on the command line, and rewrites them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    for page in [path.resolve() for path in parser.parse_args().pages]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            if page.suffix == ".ipynb":
                run_notebook(page, folder)
                continue
            new = run_page(page.read_text(encoding="utf-8"), lambda printed: printed)
            copy_pictures(new, Path(folder), page.parent)
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
