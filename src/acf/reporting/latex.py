"""The comparison table for a paper: a plain tabular of LaTeX, which needs no package."""

from __future__ import annotations

import re
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "—": "--",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "`": "'",
    "×": r"$\times$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
}
POWER = re.compile(r"\b(\d\.\d)e(−?)(\d+)\b")


def escaped(text: str) -> str:
    """Return the text for LaTeX: characters that it takes for commands escaped, others than ASCII as it has them.

    Numbers such as 5.5e−6 become powers of ten; a character that is not known becomes a question mark.
    """
    pieces = []
    place = 0
    for number in POWER.finditer(text):
        pieces.append(_characters(text[place : number.start()]))
        sign = "-" if number[2] else ""
        pieces.append(rf"${number[1]}\cdot 10^{{{sign}{number[3]}}}$")
        place = number.end()
    return "".join([*pieces, _characters(text[place:])])


def tabular(headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], after: Sequence[int]) -> str:
    """Return a tabular with the first column to the left and the others to the right.

    Args:
        headings: of the columns.
        rows: the texts of the cells.
        notes: what the numbers mean, as comments at the top.
        after: numbers of rows that a rule stands below.
    """
    lines = [*(f"% {note}" for note in notes), rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"\hline"]
    lines += [_row(headings), r"\hline"]
    for number, row in enumerate(rows):
        lines.append(_row(row))
        if number in after:
            lines.append(r"\hline")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(map(escaped, cells))} \\"


def _characters(text: str) -> str:
    return "".join(SPECIAL.get(c, c if c.isascii() and c.isprintable() else "?") for c in text)
