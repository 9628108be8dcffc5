"""`acf train --live`: what it shows is what the history says, and the model is the same."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acf.registry import SINKS
from acf.stages.live import Live
from acf.stages.train import train
from tests.training.live.readers import READERS, require_same

pytestmark = pytest.mark.usefixtures("code_hashed_once")
RUN = ("digits", "resflow", 0, "cpu")


def test_the_numbers_are_those_of_the_history_and_the_model_is_the_same(study: Callable[..., Path]) -> None:
    for package in SINKS:
        pytest.importorskip(package, reason=f"{package} is not installed (pip install 'acf[live]')")
    small = {"model": {"blocks": [1], "fc_blocks": 0}, "training": {"steps": 6, "validate_every": 3}}
    watched, alone = study("watched", **small), study("alone", **small)
    train(*RUN, watched, live=Live.of("dvclive, tensorboard", Path(".acf/live")))
    train(*RUN, alone)
    model = "models/digits/resflow/seed0"
    first, second = ((root / model / "model.safetensors").read_bytes() for root in (watched, alone))
    assert first == second
    recipe, other = (json.loads((root / model / "config.json").read_text())["recipe"] for root in (watched, alone))
    assert recipe == other
    with (watched / model / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    for sink in SINKS:
        require_same(READERS[sink](watched / ".acf/live" / sink / "digits/resflow/seed0" / recipe), rows)
    assert not (alone / ".acf/live").exists()
