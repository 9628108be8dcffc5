"""FID: why there is none, and, where torch-fidelity is installed, that images reach it as they should."""

import hashlib
from pathlib import Path

import pytest
import torch

from acf.evaluation import inception_distance as module
from acf.evaluation.frechet_distance import frechet_distance, moments
from acf.evaluation.inception_distance import FidUnavailableError, inception_distance
from acf.runs.inception_weights import FILE, VARIABLE, inception_place, inception_state
from acf.settings.analysis_config import FrechetConfig

CPU = torch.device("cpu")


def images(count: int, levels: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (count, channels, 8, 8), generator=generator, dtype=torch.uint8)


def test_the_place_is_that_of_torch_hub_unless_the_variable_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert inception_place() == Path(torch.hub.get_dir()) / "checkpoints" / FILE
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert inception_place() == Path(torch.hub.get_dir()) / "checkpoints" / FILE
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.pth"))
    assert inception_place() == tmp_path / "mine.pth"


def test_weights_that_come_change_the_recipe_of_colour_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / FILE
    monkeypatch.setenv(VARIABLE, str(path))
    config = FrechetConfig()
    before = config.outside((3, 8, 8))
    assert before["inception"] == "absent"
    path.write_bytes(b"weights")
    assert config.outside((3, 8, 8)) == before | {"inception": hashlib.sha256(b"weights").hexdigest()}
    assert config.outside((1, 8, 8)) == {}
    assert FrechetConfig(fid=False).outside((3, 8, 8)) == {}


def test_there_is_a_reason_where_there_is_no_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FidUnavailableError, match="colour images, and these have 1 channel"):
        inception_distance(images(4, 17, channels=1), images(4, 17, channels=1), 17, CPU)
    monkeypatch.setattr(module, "installed_version", lambda _: None)
    with pytest.raises(FidUnavailableError, match="not installed"):
        inception_distance(images(4, 17), images(4, 17), 17, CPU)
    monkeypatch.setattr(module, "_torch_fidelity", lambda: None)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.pth"))
    with pytest.raises(FidUnavailableError, match=f"no Inception weights where {VARIABLE} says"):
        inception_distance(images(4, 17), images(4, 17), 17, CPU)
    (tmp_path / "mine.pth").write_bytes(b"of something else")
    with pytest.raises(FidUnavailableError, match=r"has SHA-256 [0-9a-f]{8}\.\.\., the published one has 6726825d"):
        inception_distance(images(4, 17), images(4, 17), 17, CPU)


@pytest.mark.slow
def test_torch_fidelity_gets_levels_from_0_to_255(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights, whose number means nothing."""
    fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity, the extra fid, is not installed")
    torch.manual_seed(0)
    loaded = {}
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: loaded, raising=True
    )
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", _loads(torch.nn.Module.load_state_dict))
    extractor = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    monkeypatch.undo()
    path = tmp_path / FILE
    torch.save(extractor.state_dict(), path)
    monkeypatch.setenv(VARIABLE, str(path))
    monkeypatch.setattr(module, "PUBLISHED", hashlib.sha256(path.read_bytes()).hexdigest())
    assert inception_state()["inception"] == module.PUBLISHED
    samples, reference = images(6, 17), images(5, 17, seed=1)
    found = inception_distance(samples, reference, 17, CPU)
    features = [extractor((x * (255 / 16)).round().to(torch.uint8))[0].double() for x in (samples, reference)]
    assert found == pytest.approx(frechet_distance(*map(moments, features)), rel=1e-2)


def _loads(load):  # type: ignore[no-untyped-def]
    """Return `load_state_dict` that leaves a module as it was made where there are no weights."""
    return lambda self, state, **options: load(self, state or self.state_dict(), **options)
