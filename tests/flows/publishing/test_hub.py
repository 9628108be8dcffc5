"""Publishing and fetching by the code of huggingface_hub, against a server that answers as the Hub does."""

import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import acf
from acf.errors import AcfError, ConfigError, DataError, InputError, NotContractiveError
from acf.flows.record import CARD, CONFIG, WEIGHTS, record_hash
from tests.flows.publishing.conftest import RECORD, small_flow, unprove
from tests.flows.publishing.hub_server import HubServer, commit_hash

NAME = "me/tiny"


def same_weights(one: acf.Flow, other: acf.Flow) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def refused(kind: type[AcfError], **options: object) -> str:
    with pytest.raises(kind) as error:
        acf.Flow.from_pretrained(str(options.pop("name", NAME)), **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_record_and_card_survive_the_journey(hub: HubServer, stored: acf.Flow, tmp_path: Path) -> None:
    stored.save_pretrained(tmp_path / "folder")
    edited = (tmp_path / "folder" / CARD).read_text() + "\nWritten by hand.\n"
    (tmp_path / "folder" / CARD).write_text(edited)
    flow = acf.load(tmp_path / "folder")
    address = flow.push_to_hub(NAME, token=hub.token)
    assert address == f"{hub.url}/{NAME}/commit/{commit_hash(1)}"
    (published,) = hub.repositories[NAME].commits
    assert published == {name: (tmp_path / "folder" / name).read_bytes() for name in (WEIGHTS, CONFIG, CARD)}

    fetched = acf.Flow.from_pretrained(NAME)
    assert same_weights(fetched, stored)
    assert not fetched.training
    assert fetched.origin is not None
    assert fetched.origin.record == RECORD
    assert fetched.origin.card == edited
    fetched.save_pretrained(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == published


def test_a_card_says_what_the_hub_wants_to_know(hub: HubServer, stored: acf.Flow) -> None:
    from huggingface_hub import ModelCard

    stored.push_to_hub(NAME, token=hub.token)
    card = ModelCard.load(NAME)
    assert card.data.library_name == "acf"
    assert card.data.license == "unknown"
    assert "normalizing-flow" in card.data.tags
    assert "self-attention" not in card.data.tags
    assert "POST /api/validate-yaml" in hub.asked
    assert repr(acf.certify(stored).worst) in card.text
    assert json.dumps(RECORD, indent=2) in card.text


def test_what_is_fetched_once_needs_no_server(hub: HubServer, stored: acf.Flow) -> None:
    stored.push_to_hub(NAME, token=hub.token)
    acf.Flow.from_pretrained(NAME)
    hub.asked.clear()
    assert same_weights(acf.Flow.from_pretrained(NAME, local_files_only=True), stored)
    assert not hub.asked
    hub.fail_with = 503
    assert same_weights(acf.Flow.from_pretrained(NAME), stored)
    assert f"{hub.url} is not reached (503, " in refused(DataError, name="me/other")
    assert "the cache does not have it" in refused(DataError, name="me/other", local_files_only=True)


def test_a_new_commit_replaces_the_files_and_keeps_the_old_ones(hub: HubServer) -> None:
    flows = [small_flow(seed) for seed in range(2)]
    for flow in flows:
        flow.push_to_hub(NAME, token=hub.token)
    assert same_weights(acf.Flow.from_pretrained(NAME), flows[1])
    assert same_weights(acf.Flow.from_pretrained(NAME, revision=commit_hash(1)), flows[0])
    assert f"{hub.url}/{NAME} has no such revision" in refused(DataError, revision="v7")


def test_a_private_model_needs_a_token(hub: HubServer, stored: acf.Flow) -> None:
    with pytest.raises(DataError, match=r"cannot be published.*401.*log in with `hf auth login`"):
        stored.push_to_hub(NAME, private=True)
    assert not hub.repositories
    stored.push_to_hub(NAME, private=True, token=hub.token)
    assert hub.repositories[NAME].private
    assert "it is not public: log in with `hf auth login`" in refused(DataError)
    assert same_weights(acf.Flow.from_pretrained(NAME, token=hub.token), stored)


def without_hashes(content: bytes) -> bytes:
    return json.dumps({"model": json.loads(content)["model"]}).encode()


def of_a_newer_acf(content: bytes) -> bytes:
    record = json.loads(content)
    record["model"]["warp"] = 1
    return json.dumps(record | {"sha256": record["sha256"] | {"record": record_hash(record)}}).encode()


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "weights": (WEIGHTS, lambda content: content[:-1] + bytes([content[-1] ^ 1]), "another hash"),
    "cut weights": (WEIGHTS, lambda content: content[:-9], "another hash"),
    "configuration": (CONFIG, lambda content: content.replace(b"0.98", b"0.99"), "not what was written"),
    "no JSON": (CONFIG, lambda content: content[:40], "is not JSON"),
    "no object": (CONFIG, lambda content: b"[]", "no section 'model'"),
    "no hashes": (CONFIG, without_hashes, "no hashes"),
    "no weights": (WEIGHTS, lambda content: None, "has no model.safetensors, so it is no model of this library"),
    "newer": (CONFIG, of_a_newer_acf, "it may need a newer acf"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_fetched_is_verified(hub: HubServer, stored: acf.Flow, damage: str) -> None:
    file, change, message = DAMAGES[damage]
    stored.push_to_hub(NAME, token=hub.token)
    changed = {**hub.repositories[NAME].commits[0]}
    content = change(changed.pop(file))
    hub.repositories[NAME].commits.append(changed if content is None else {**changed, file: content})
    said = refused(ConfigError if damage == "newer" else DataError)
    assert NAME in said
    assert message in said
    assert "acf train" not in said


def test_a_damaged_cache_is_mended_by_fetching_again(hub: HubServer, stored: acf.Flow, tmp_path: Path) -> None:
    stored.push_to_hub(NAME, token=hub.token)
    acf.Flow.from_pretrained(NAME)
    (weights,) = (tmp_path / "cache").rglob(WEIGHTS)
    weights.resolve().write_bytes(b"lost")
    assert "fetch it again with force_download=True" in refused(DataError)
    assert same_weights(acf.Flow.from_pretrained(NAME, force_download=True), stored)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == stored.origin.weights  # type: ignore[union-attr]


def test_nothing_is_published_without_a_proof(hub: HubServer) -> None:
    flow = small_flow()
    unprove(flow)
    with pytest.raises(NotContractiveError, match="scale 1, block 1"):
        flow.push_to_hub(NAME, token=hub.token)
    assert not hub.asked


@pytest.mark.parametrize("name", ["models/digits/acf-l2/seed0", "-", "a b/c"])
def test_what_can_be_no_name_is_refused(
    hub: HubServer, stored: acf.Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where a model of that path was trained it is a folder, no name
    assert 'a name there has the form "owner/name"' in refused(InputError, name=name)
    with pytest.raises(InputError, match="owner/name"):
        stored.push_to_hub(name, token=hub.token)
    assert not hub.repositories


def test_without_huggingface_hub_folders_work_and_the_rest_says_what_to_install(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["huggingface_hub"] = None  # what an import finds is not installed
        import acf
        flow = acf.build({"shape": (1, 4, 4), "levels": 4, "blocks": [1], "idim": 4, "fc_blocks": 0}).eval()
        acf.tighten(flow)
        flow.save_pretrained("model")
        again = acf.Flow.from_pretrained("model")
        assert "certificate" in again.origin.card.lower()
        for call in (lambda: acf.Flow.from_pretrained("me/tiny"), lambda: flow.push_to_hub("me/tiny")):
            try:
                call()
            except acf.errors.MissingPackageError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("needs huggingface-hub, which is not installed: pip install 'acf[hub]'") for line in lines)
    assert "'me/tiny' is no folder" in lines[0]
