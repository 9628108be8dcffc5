"""The profile `kubernetes` and the pod beside it, as far as they can be checked without a cluster."""

from pathlib import Path

import pytest
import yaml

from tests.pipeline.project import SOURCE, Project

PROFILE = SOURCE / "workflow" / "profiles" / "kubernetes"


@pytest.mark.slow
def test_the_pod_runs_the_study_with_the_gpus_that_it_is_given(tmp_path: Path) -> None:
    pod = yaml.safe_load((PROFILE / "job.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command = next(line.split() for line in container["args"][0].splitlines() if "exec snakemake" in line)
    options = command[2:]
    profile = yaml.safe_load((SOURCE / options[options.index("--workflow-profile") + 1] / "config.yaml").read_text())
    assert profile["resources"] == [f"gpu={container['resources']['limits']['nvidia.com/gpu']}"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "persistentVolumeClaim" in volumes[mounted[container["workingDir"]]]
    plan = Project(tmp_path).output("snakemake", "--dry-run", "--quiet", "rules", *options)
    assert "train            2" in plan
