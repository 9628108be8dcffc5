"""A Hub on the loopback interface in the place of the real one, and small flows to publish."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import acf
from acf.lipschitz.normalised import Normalised
from tests.flows.publishing.hub_server import HubServer

SMALL = {"shape": (1, 4, 4), "levels": 4, "blocks": [1], "idim": 4, "fc_blocks": 0}
RECORD = {"experiment": "tiny", "seed": 3, "notes": {"learning_rate": 0.1}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # which talks to servers of its own
        disable_progress_bars()
        yield server
        enable_progress_bars()
        server.shutdown()
        thread.join()


def small_flow(seed: int = 0) -> acf.Flow:
    torch.manual_seed(seed)
    flow = acf.build(SMALL)
    with torch.no_grad():
        flow(torch.rand(16, *SMALL["shape"]))  # type: ignore[misc]
    acf.tighten(flow.eval())
    return flow


@pytest.fixture
def stored(tmp_path: Path) -> acf.Flow:
    """A flow that was stored with a record and loaded again."""
    acf.save(small_flow(), tmp_path / "stored", RECORD)
    return acf.load(tmp_path / "stored")


def unprove(flow: acf.Flow) -> None:
    """Make weights large, and their norms estimated as 0, so that nothing scales them down."""
    for layer in flow.modules():
        if isinstance(layer, Normalised):
            layer.weight.data.mul_(100)
            layer.left.zero_()
