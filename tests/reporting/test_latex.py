"""The comparison table in LaTeX: no character of a name or a number is taken for a command."""

import re
import shutil
import subprocess

import pytest

from acf.reporting.latex import SPECIAL, escaped, tabular

HEADS = ["model", "bits/dim", "95 % interval", "reconstruction error"]
ROWS = [
    ["uniform", "4.0875 ± 0", "—", "—"],
    [r"a_b-\x{}$&#~^|<>\"`", "1.978 ± 0.013", "−0.012 to 0.034", "5.5e−6"],
    ["not_trained", "damaged", "—", "1.0e3"],
]


def test_every_special_character_is_escaped():
    text = escaped("".join(SPECIAL) + "ü")
    left = re.sub(r"\\[a-z]+\{\}|\\[&%$#_{}]|\$(\\pm|\\times|\\sigma|\\Delta|[-<>|])\$", "", text)
    assert not re.search(r"[\\&%$#_{}~^±−—<>|\"`]", left), left
    assert text.isascii()


def test_numbers_keep_their_digits():
    assert escaped("1.978 ± 0.013") == r"1.978 $\pm$ 0.013"
    assert escaped("5.5e−6") == r"$5.5\cdot 10^{-6}$"
    assert escaped("−0.012 to 0.034") == r"$-$0.012 to 0.034"
    assert escaped("95 % interval") == r"95 \% interval"


def test_rows_have_as_many_cells_as_columns():
    lines = tabular(HEADS, ROWS, ["± one standard error, 95 %"], [0]).splitlines()
    assert lines[:2] == ["% ± one standard error, 95 %", r"\begin{tabular}{lrrr}"]
    cells = [line for line in lines if line.endswith(r" \\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in cells] == [3] * 4
    assert lines.count(r"\hline") == 4


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
def test_the_table_compiles(tmp_path):
    table = tabular(HEADS, ROWS, ["± one standard error, 95 %"], [0])
    document = rf"\documentclass{{article}}\begin{{document}}{chr(10)}{table}\end{{document}}"
    (tmp_path / "table.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
