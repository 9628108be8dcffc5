"""What is stored beside the weights stays with them and with no others; no file is put over another thing."""

import re
from pathlib import Path

import pytest
import torch

import acf
from acf.errors import InputError, UnwritableError
from acf.flows.publishing.plain_card import papers as papers_of
from acf.flows.record import CARD, CONFIG, WEIGHTS, read_record
from tests.flows.publishing.conftest import RECORD, small_flow


def recorded(folder: Path) -> dict[str, object]:
    return {key: value for key, value in read_record(folder).items() if key in RECORD}


def test_a_record_goes_with_the_weights_it_is_of(stored: acf.Flow, tmp_path: Path) -> None:
    acf.save(stored, tmp_path / "copy")
    assert recorded(tmp_path / "copy") == RECORD
    acf.save(stored, tmp_path / "other", {"experiment": "other"})
    assert recorded(tmp_path / "other") == {"experiment": "other"}
    with torch.no_grad():
        next(stored.parameters()).mul_(0.5)
    acf.save(stored, tmp_path / "changed")
    assert recorded(tmp_path / "changed") == {}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"model": "my best"}, "record has the key 'model'"),
        ({"sha256": "0"}, "record has the key 'sha256'"),
        ({"loss": float("nan")}, "record cannot be stored as JSON: .*float"),
        ({"x": torch.zeros(1)}, "record cannot be stored as JSON: .*Tensor"),
    ],
)
def test_a_record_that_cannot_be_kept_is_refused(
    stored: acf.Flow, tmp_path: Path, record: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        acf.save(stored, tmp_path / "new", record)
    assert not (tmp_path / "new").exists()


def test_a_card_goes_with_the_weights_it_is_of(stored: acf.Flow, tmp_path: Path) -> None:
    stored.save_pretrained(tmp_path / "first")
    card = (tmp_path / "first" / CARD).read_text()
    assert '"experiment": "tiny"' in card
    flow = acf.load(tmp_path / "first")
    with torch.no_grad():
        next(flow.parameters()).mul_(0.5)
    flow.save_pretrained(tmp_path / "second")
    changed = (tmp_path / "second" / CARD).read_text()
    assert "Nothing was recorded." in changed
    assert repr(acf.certify(flow).worst) in changed


@pytest.mark.parametrize("text", ["# Some project\n", "---\nlicense: mit\n---\nlibrary_name: acf\n", "\xff"])
def test_a_readme_of_something_else_is_no_card(stored: acf.Flow, tmp_path: Path, text: str) -> None:
    (tmp_path / "stored" / CARD).write_bytes(text.encode("latin-1"))
    origin = acf.load(tmp_path / "stored").origin
    assert origin is not None
    assert origin.card is None
    assert origin.record == RECORD


def test_no_other_thing_is_replaced_unasked(stored: acf.Flow, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    stored.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    stored.save_pretrained(folder)  # the same again
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    other = small_flow(1)
    with pytest.raises(UnwritableError, match=r"has a model.safetensors and a README.md and a config.json already"):
        other.save_pretrained(folder)
    assert torch.equal(next(acf.load(folder).parameters()), next(stored.parameters()))
    other.save_pretrained(folder, replace=True)
    assert torch.equal(next(acf.load(folder).parameters()), next(other.parameters()))
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, CARD, "notes.txt"}


def test_a_folder_in_whose_place_is_a_file_is_refused(stored: acf.Flow, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnwritableError, match="remove what is in its place"):
        stored.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "a density of images of shape 1 x 4 x 4 with 4 levels, by an"),
        ({"shape": (3,), "levels": None}, "a density of vectors of 3 real numbers, by an"),
        ({"condition": {"classes": 5}}, "with 4 levels, given one of 5 labels, by an"),
        ({"condition": {"size": 2}}, "with 4 levels, given 2 numbers, by an"),
        ({"attention": {"kind": "l2"}}, "flow with `l2` self-attention: a density"),
        ({"evaluation_log_det": {"estimator": "exact"}}, "Log-determinants are exact"),
    ],
)
def test_a_plain_card_says_what_kind_of_flow_it_is(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    small = {"shape": (1, 4, 4), "levels": 4, "blocks": [1], "idim": 4, "fc_blocks": 0}
    flow = acf.build({**small, **changes}).eval()
    acf.tighten(flow)
    flow.save_pretrained(tmp_path)
    card = (tmp_path / CARD).read_text()
    assert sentence in card
    assert ("unconditional-image-generation" in card) == (len(flow.shape) == 3 and "condition" not in changes)
    assert ("unbiased random estimates" in card) == ("evaluation_log_det" not in changes)


@pytest.mark.parametrize(
    ("changes", "papers"),
    [
        ({}, ["1906.02735"]),
        ({"attention": {"kind": "l2"}}, ["1906.02735", "2109.12135", "2006.04710"]),
        ({"attention": {"kind": "dot"}}, ["1906.02735", "2109.12135", "2103.04886"]),
        ({"attention": {"kind": "sinkhorn"}}, ["1906.02735", "2109.12135"]),
        ({"branch": "dense"}, ["1906.02735", "2102.02694"]),
        ({"activation": "clipswish"}, ["1906.02735", "2102.02694"]),
        ({"activation": "cpila"}, ["1906.02735", "2210.08176"]),
        ({"block": "monotone", "branch": "potential"}, ["1906.02735", "2210.08176", "2110.12690"]),
    ],
)
def test_a_card_names_the_papers_whose_methods_the_flow_uses(changes: dict[str, object], papers: list[str]) -> None:
    model = {"shape": (1, 4, 4), "levels": 4, "blocks": [1], "idim": 4, "fc_blocks": 0, **changes}
    named = re.findall(r"^- .+, \[arXiv (\S+)\]\(https://arxiv.org/abs/\1\)$", papers_of(acf.build(model).config), re.M)
    assert named == papers
