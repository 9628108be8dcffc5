"""Files after damage: bytes that differ anywhere, and JSON with other values in places that were sound."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

_HUGE = "a whole number of 5000 digits"
VALUES: tuple[Any, ...] = (
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        0,
        -1,
        1,
        2,
        3,
        0.5,
        -0.0,
        1e308,
        5e-324,
        2**31,
        2**63,
        2**64,
        10**400,
    ),
    *(None, True, False, "", "x", "0", "1.5", "NaN", "\ud800", "\0", "a\nb", "<b>", "é", "y" * 3000, _HUGE),
    *([], {}, [1], [[]], {"x": 1}, [None], ["x"], {"": {}}),
)
INSERTED = (
    b"\0",
    b"\xff",
    b"\t",
    b"\r",
    b"\n",
    b"\xc2\x85",
    b"<<<<<<< HEAD\n",
    b"=======\n",
    b"&a ",
    b"*a ",
    b",",
    b'"',
)


class Damaged(bytes):
    """Content after some edits, which it is shown as."""

    edits: list[tuple[Any, ...]]

    def __repr__(self) -> str:
        return f"<the sound file after {self.edits}>"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> Damaged:
    """The bytes after some have been changed, lost, doubled or put in between; rarely all of them lost or zero."""
    edits: list[tuple[Any, ...]] = []
    for _ in range(draw(st.sampled_from((1, 1, 1, 3)))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), start + draw(st.sampled_from((1, 1, 2, 8, 100, len(content)))))
        kind = draw(
            st.sampled_from(("flip", "flip", "flip", "cut", "lose", "double", "insert", "zero", "mark", "lines"))
        )
        piece = b""
        if kind == "flip":
            piece = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in content[start : start + 1])
            end = start + len(piece)
        elif kind == "cut":
            end = len(content)
        elif kind == "double":
            piece = 2 * content[start:end]
        elif kind == "insert":
            piece, end = draw(st.sampled_from(INSERTED) | st.binary(min_size=1, max_size=4)), start
        elif kind == "zero":
            piece = bytes(end - start)
        elif kind == "mark":
            piece, start, end = b"\xef\xbb\xbf", 0, 0
        elif kind == "lines":
            piece, start, end = content.replace(b"\n", b"\r\n"), 0, len(content)
        edits.append((kind, start, end, piece[:20]))
        content = content[:start] + piece + content[end:]
    result = Damaged(content)
    result.edits = edits
    return result


@st.composite
def edited_json(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON file with one to three values replaced by any others, keys lost, renamed or added."""
    tree = json.loads(content)
    for _ in range(draw(st.sampled_from((1, 1, 3)))):
        _edit(draw, tree)
    text = json.dumps(tree, indent=2)
    return text.replace(json.dumps(_HUGE), "7" * 5000).encode()


def _edit(draw: st.DrawFn, tree: Any) -> None:
    """Go down to a random container and change one of its values."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = tree[key]
        if not (isinstance(inner, dict | list) and inner and draw(st.integers(0, 3))):
            break
        tree = inner
    kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename")))
    if kind == "replace" or isinstance(tree, list):
        tree[key] = deepcopy(draw(st.sampled_from(VALUES)))
    else:
        value = tree.pop(key)
        if kind == "rename":
            tree[draw(st.sampled_from(("", "x", "a\nb", f"{key}x")))] = value


def json_damage(content: bytes) -> st.SearchStrategy[bytes]:
    """Damaged bytes, or edited values."""
    return st.one_of(edited_json(content), edited_json(content), damaged(content))
