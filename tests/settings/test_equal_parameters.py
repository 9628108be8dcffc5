"""The experiments that are compared at equal parameters have flows of nearly equal size."""

from pathlib import Path

import pytest

from acf.data.prepared.seen import averaged_shape
from acf.data.sources.registered import dataset_source
from acf.flows.build import build
from acf.settings.params import Params
from tests.two_cores import EQUAL_SIZES

PARAMS = Params(Path(__file__).parents[2] / "params.yaml")
MOST = 0.02
"""Largest difference within an experiment, of the smallest number of parameters."""


def parameters(experiment: str, variant: str) -> int:
    """Number of trained values of a flow as `acf train` builds it."""
    source, seen = dataset_source(PARAMS.prepared(experiment)), PARAMS.seen(experiment)
    assert source.shape is not None
    model = PARAMS.resolve(experiment, variant).model.model_dump()
    shape = averaged_shape(source.shape, seen.average)
    return sum(p.numel() for p in build({**model, "shape": shape, "levels": source.levels}).parameters())


@pytest.mark.parametrize("experiment", EQUAL_SIZES)
def test_variants_have_as_many_parameters(experiment: str) -> None:
    numbers = {variant: parameters(experiment, variant) for variant in PARAMS.variants(experiment)}
    assert len(numbers) > 1
    assert max(numbers.values()) <= (1 + MOST) * min(numbers.values()), numbers
