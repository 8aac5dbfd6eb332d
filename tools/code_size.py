"""Counts the lines of the package, and the keys of its configuration.

    python tools/code_size.py --out results/code-size.json

The counts are those of the tree that it is run in; `make docs-tables` writes them into the architecture page.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
from pathlib import Path

import config_reference

from ssdir.data.scatter.generator import ScatterConfig
from ssdir.training.recipe import Recipe

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "ssdir"
MOST_LINES_OF_A_COMMAND = 60


def count_lines(files: list[Path]) -> dict[str, int]:
    """Lines in all, and how many of them are blank or belong to docstrings."""
    total = blank = docstrings = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        total, blank = total + len(lines), blank + sum(not line.strip() for line in lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                    held = lines[first.lineno - 1 : first.end_lineno]
                    docstrings += sum(bool(line.strip()) for line in held)
    return {"total": total, "blank": blank, "docstrings": docstrings}


def count_keys() -> dict[str, int]:
    """Leaf keys of recipes and generated data: as each model has them, and once by the class that defines them."""
    keys = [
        (next(base for base in config_class.__mro__ if key in inspect.get_annotations(base)), key)
        for root in (Recipe, ScatterConfig)
        for _, config_class in config_reference.walk(root)
        for key in config_reference.leaf_keys(config_class)
    ]
    return {"per_model": len(keys), "by_class": len(set(keys))}


def main() -> None:
    """Writes the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    files = sorted(PACKAGE.rglob("*.py"))
    lengths = {
        file.relative_to(PACKAGE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in files
        if "commands" in file.parts
    }
    long_commands = {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_COMMAND}
    counts = {"lines": count_lines(files), "config_keys": count_keys(), "long_commands": long_commands}
    parser.parse_args().out.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
