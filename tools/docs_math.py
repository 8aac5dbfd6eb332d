"""Writes formulas of the documentation as MathML, which browsers render without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with each page's HTML."""
    return _FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    text = html.unescape(formula[3].strip())
    if formula[2] == "(":
        return convert(text, display="inline")
    return f'<div class="formula">{convert(text, display="block")}</div>'
