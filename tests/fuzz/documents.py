"""Texts of params.yaml: a small valid one with anything put in place of anything."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from acf.registry import ATTENTIONS, JOINS
from acf.settings.config import RunConfig
from tests.conftest import ANALYSES
from tests.fuzz.damage import damaged

SMALL: dict[str, Any] = {
    "model": {"blocks": [1], "idim": 4, "fc_blocks": 1, "fc_width": 4, "dense": {"depth": 2, "growth": 4}},
    "training": {"steps": 2, "batch_size": 2, "validation_images": 2},
    "evaluation": {"images": 2, "batch_size": 2, "log_det": {"exact_terms": 2}},
    "sampling": {"samples": 2, "reconstructions": 2},
    "analyses": ANALYSES,
    "reporting": {},
}
EMPTY: dict[str, Any] = {section: {} for section in SMALL}


def study() -> dict[str, Any]:
    """A small study that names every key of the schema."""
    return {
        "defaults": RunConfig.model_validate(SMALL).model_dump(mode="json"),
        "datasets": {"digits": {"levels": None}, "mnist": {}},
        "variants": {"resflow": {}, "acf-l2": {"model": {"attention": {"kind": "l2"}}}},
        "experiments": {
            "digits": EMPTY | {"dataset": "digits", "seeds": [0, 1], "variants": {"resflow": {}, "acf-l2": {}}},
            "other": EMPTY
            | {"dataset": "mnist", "seeds": [0], "variants": {"resflow": {"model": {"idim": 3}, "training": {}}}},
        },
    }


NUMBERS = (
    *("0", "1", "2", "3", "-1", "1000", "1001", "2147483647", "2147483648", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551616", "1" + 400 * "0", "9" * 5000, "1.0", "0.5", "-0.0", "1e-3"),
    *("1e400", "1e-400", "1.0e-300", "1e300", "5e-324", ".inf", "-.inf", ".nan", "0.9999999999999999", "1_000"),
    *("010", "0x10", "0o10", "0b1", "1:30", "+1", ".5", "5.", "1.5"),
)
WORDS = (
    *("yes", "no", "on", "off", "true", "false", "True", "null", "~", "", "=", "<<", "2020-01-01", "2020-13-45"),
    *("'4'", '"4"', "'yes'", '"\\ud800"', '"\\0"', '"\\x1b[1m"', '"a\\nb"', "é", "日本", '"\\u2028"', "a/b", "../.."),
    *("'..'", "''", "a b", "'$(touch x)'", "'{{ 1 }}'", "'${item}'", "-x", "--help", "l2-0.5", "x" * 101, "y" * 3000),
    *("none", *ATTENTIONS, *JOINS, "block", "conv", "dense", "potential", "lipswish", "elu", "clipswish", "cpila"),
    *("poisson", "geometric", "cosine", "gaussian", "digits", "mnist", "celebahq256", "resflow", "acf-l2", "svhn"),
)
STRUCTURES = (
    *("{}", "[]", "[1]", "[1, 1, 1]", "[3, 1, 3]", "[0.9, 0.99]", "[true]", "[[1]]", "[null]", "{1: 2}", "{a: b}"),
    *("{kind: l2}", "{null: 1}", "{[1]: 2}", "{? {a: b} : c}", "{<<: {idim: 4}}", "{<<: 3}", "{a: 1, a: 2}", "[2, 2]"),
    *("&a [*a]", "&a {b: *a}", "{<<: &a {<<: *a}}", "*a", "&a 1", "!!python/object/apply:os.system [x]", "!!str 4"),
    *("!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a, b}", "!!omap [a: 1]", "!x {}"),
    *("! 4", "[" * 70 + "]" * 70, "[" * 600, "{a: " * 60, "|\n  text\n", ">-\n  text", "&b [&c [x, x], *c, *c, *c]"),
    *("[" + ", ".join(["1"] * 300) + "]", "%", "@", "`", "- 1", "? 1", ": 1", "# x", "--- 1", "...", "\t1", "'", '"'),
)

fragments = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.sampled_from(STRUCTURES),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=12),
    st.text(max_size=12).map(lambda text: yaml.safe_dump(text).partition("\n")[0]),
)
"""YAML texts of values, of all kinds, and texts that are none."""

Place = tuple[str, ...]


def _places(tree: Any, at: Place = ()) -> list[Place]:
    inner = [_places(value, (*at, key)) for key, value in tree.items()] if isinstance(tree, dict) else []
    return [at, *(place for places in inner for place in places)]


PLACES = _places(study())[1:]


def _text(tree: Any, indent: int = 0) -> str:
    """Write mappings in blocks, one key a line; what has been put in place of a value (`str` subclass) as it is."""
    if isinstance(tree, Fragment):
        return f" {tree}\n"
    if not isinstance(tree, dict) or not tree:
        return f" {yaml.safe_dump(tree, default_flow_style=True).splitlines()[0]}\n"
    lines = [f"{' ' * indent}{key}:{_text(value, indent + 2)}" for key, value in tree.items()]
    return ("\n" if indent else "") + "".join(lines)


class Fragment(str):
    """YAML that is written as it is."""


CHANGES = ("replace", "replace", "replace", "replace", "rename", "remove", "add", "anchor")


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """The small study with up to four changes in its tree, sometimes with up to three in its bytes."""
    tree = study()
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=draw(st.sampled_from((1, 1, 1, 4))))):
        _change(draw, tree, place)
    content = _text(tree).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 3:
        content = draw(damaged(content))
    return content


def _change(draw: st.DrawFn, tree: Any, place: Place) -> None:
    *parents, key = place
    for name in parents:
        if not isinstance(tree, dict) or name not in tree:
            return
        tree = tree[name]
    if not isinstance(tree, dict) or key not in tree:
        return
    match draw(st.sampled_from(CHANGES)):
        case "replace":
            tree[key] = Fragment(draw(fragments))
        case "rename":
            tree[draw(fragments)] = tree.pop(key)
        case "remove":
            del tree[key]
        case "add":
            tree[draw(fragments)] = Fragment(draw(fragments))
        case "anchor":
            inner = _text(tree[key], 99)
            tree[key] = Fragment(f"&a{inner}" if draw(st.booleans()) else "*a")
