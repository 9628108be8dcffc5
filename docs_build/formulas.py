"""Formulas between `$` and `$$`, rendered as MathML while the site is built, so that pages need no script for them."""

import re
from collections.abc import Callable

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig

BEFORE_ESCAPES = 185
"""Priority after that of code between backticks (190), before that of backslashes (180)."""

FORMULA = r"\$\$((?:\\.|[^$\\])+)\$\$|(?<![\\$\w])\$(?![\s$])((?:\\.|[^$\\])+?)(?<!\s)\$(?![\w$])"
"""A formula on lines of its own, or within a line."""

WORD = r'<m([io])(?: movablelimits="true")?>([a-zA-Z]{2,}(?:&#x02006;[a-z]+)?)</m\1>'
BEFORE_BRACKET = r'(?=<mo (?:stretchy="false"|minsize="[\d.]+em" maxsize="[\d.]+em")>(?:&#x00028;|\[|&#x0007B;))'

# What browsers need beyond the converter's output: upright words and capital Greek, bold digits, lines as long as what
# they are over, the spaces that TeX puts around functions, and none at bars, norms, slashes and signs, which MathML
# takes for binary operators.
MENDED: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (
        r'<mrow>((?:<mi mathvariant="normal">\w</mi>){2,})</mrow>',
        lambda m: f"<mi>{re.sub('<[^>]*>', '', m[1])}</mi>",
    ),
    (rf"{WORD}{BEFORE_BRACKET}", r'<mo lspace="0.167em" rspace="0">\2</mo>'),
    (WORD, r'<mo lspace="0.167em" rspace="0.167em">\2</mo>'),
    (r"<mi>(&#x003[9A][0-9A-F];)</mi>", r'<mi mathvariant="normal">\1</mi>'),
    (r'mathvariant="bold"', 'style="font-weight: bold"'),
    (r'<mo(?: stretchy="false")?>(&#x0007C;|&#x02016;)</mo>', r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>'),
    (r"<mo>&#x0002F;</mo>", '<mo lspace="0" rspace="0">&#x0002F;</mo>'),
    (
        r"(<mo[^>]*>(?:\[|&#x00028;|&#x0003D;|&#x0002C;|&#x02190;|&#x02264;)</mo>)<mo>&#x02212;</mo>",
        r'\1<mo form="prefix" lspace="0" rspace="0">&#x02212;</mo>',
    ),
    (r"<mi>(&#x02032;+|&#x022A5;)</mi>", r"<mo>\1</mo>"),
    (r"<mo>(&#x02202;|&#x0221E;)</mo>", r"<mi>\1</mi>"),
    (
        r'<mover><mrow>(.*?)</mrow><mo accent="true">&#x02015;</mo></mover>',
        r'<mrow style="border-top: 1px solid; padding-top: 2px">\1</mrow>',
    ),
]


class FormulaProcessor(InlineProcessor):
    """Replaces the LaTeX of a formula by MathML."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802
        """Return the stashed MathML of a formula, and which part of the text it replaces."""
        formula = display(m[1]) if m[1] else mathml(m[2])
        return self.md.htmlStash.store(formula), m.start(0), m.end(0)


def display(latex: str) -> str:
    """Return a formula on lines of its own, which is scrolled where a window is narrower."""
    limits = re.sub(r"\\(max|min)(?=\s*_)", r"\\\1\\limits", latex)
    return f'<span class="formula">{mathml(limits, "block")}</span>'


def mathml(latex: str, kind: str = "inline") -> str:
    """Return a formula as MathML.

    Raises:
        ValueError: the formula cannot be rendered; the message shows it.
    """
    latex = " ".join(latex.split())
    try:
        rendered = convert(latex, display=kind)
    except Exception as error:
        raise ValueError(f"cannot render the formula {latex!r}: {type(error).__name__}: {error}") from error
    if unknown := re.findall(r"\\\w+", rendered):  # what the converter does not know stays as it is
        raise ValueError(f"cannot render {', '.join(unknown)} of the formula {latex!r}")
    for pattern, replacement in MENDED:
        rendered = re.sub(pattern, replacement, rendered)
    return rendered


class FormulaExtension(Extension):
    """Adds formulas to Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Have formulas read before anything in them is taken for Markdown."""
        md.inlinePatterns.register(FormulaProcessor(FORMULA, md), "formula", BEFORE_ESCAPES)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add formulas to the Markdown of all pages."""
    config.markdown_extensions.append(FormulaExtension())
    return config
