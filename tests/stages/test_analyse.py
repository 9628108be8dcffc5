"""The stage of an analysis on a trained model, with real files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import acf
from acf.errors import ConfigError, DataError, NotContractiveError
from acf.registry import ANALYSES, SECTIONS
from acf.reporting.analysis_files import AnalysisFile, part_of
from acf.settings.config import AnalysesConfig
from acf.settings.params import Params, Run
from acf.stages.analyse import analyse, computation
from acf.stages.project import Project

RUN = Run("digits", "acf-l2", 0)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "project")


def test_an_analysis_has_settings_a_function_and_a_section() -> None:
    assert list(ANALYSES) == list(AnalysesConfig.model_fields)
    assert set(SECTIONS) == set(ANALYSES)


@pytest.mark.parametrize("name", ANALYSES)
def test_it_writes_what_the_report_reads_restores_it_and_finds_the_same_again(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    section = getattr(Params(project / "params.yaml").analyses("digits"), name)
    torch.manual_seed(1)
    analyse(name, RUN, "cpu", project)
    files = [project / "analyses/digits/acf-l2/seed0" / file for file in section.output_names(name)]
    content = AnalysisFile.model_validate_json(files[0].read_bytes())
    part_of(name).form.model_validate(content.found)
    assert (content.analysis, content.variant, content.settings) == (name, "acf-l2", section.model_dump(mode="json"))
    for picture in files[1:]:
        with Image.open(picture) as image:
            assert image.info["recipe"] == content.recipe
    first = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    capsys.readouterr()
    analyse(name, RUN, "cpu", project)
    assert "restored" in capsys.readouterr().out
    assert [file.read_bytes() for file in files] == first
    shutil.rmtree(project / "analyses")
    shutil.rmtree(project / ".acf")
    torch.manual_seed(2)
    analyse(name, RUN, "cpu", project)
    assert AnalysisFile.model_validate_json(files[0].read_bytes()).found == content.found


def test_a_model_without_proof_and_one_that_is_missing_are_refused(project: Path) -> None:
    folder = project / "models/digits/acf-l2/seed0"
    flow = acf.load(folder)
    name = next(iter(ANALYSES))
    with torch.no_grad():
        max(flow.parameters(), key=torch.numel).fill_(torch.nan)
    record = json.loads((folder / "config.json").read_text())
    acf.save(flow, folder, {key: record[key] for key in ("experiment", "dataset", "variant", "seed", "recipe")})
    with pytest.raises((NotContractiveError, DataError)):
        analyse(name, RUN, "cpu", project)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="no trained model there; run: acf train --experiment digits"):
        analyse(name, RUN, "cpu", project)
    assert not (project / "analyses").exists()


def test_only_its_own_settings_and_those_of_evaluation_count(project: Path) -> None:
    path = project / "params.yaml"
    study = yaml.safe_load(path.read_text())
    name, other = next(iter(ANALYSES)), list(ANALYSES)[-1]

    def recipes() -> list[dict[str, object]]:
        return [computation(Project(project), analysis, RUN).parts() for analysis in (name, other)]

    before = recipes()
    study["defaults"]["analyses"][name]["steps"] = 5
    path.write_text(yaml.safe_dump(study))
    after = recipes()
    assert after[0] != before[0]
    assert name == other or after[1] == before[1]
    study["defaults"]["analyses"][name]["stps"] = 5
    path.write_text(yaml.safe_dump(study))
    with pytest.raises(ConfigError, match=f"defaults.analyses.{name}.stps: unknown key"):
        recipes()
