"""Published figures carry a mark and a source; a data set without any has none."""

import pytest

from acf.reporting.published_figures import MARKS, published


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "imagenet32", "imagenet64", "celebahq256"])
def test_every_figure_has_a_mark_and_a_source(dataset):
    entries = published(dataset)
    assert entries
    for entry in entries:
        value, mark = entry.bits_per_dim.split()
        assert 0 < float(value) < 8
        assert mark in MARKS
        assert entry.source.startswith("arXiv ")


def test_digits_are_kept_as_published():
    residual_flow = next(entry for entry in published("mnist") if entry.model == "Residual Flow")
    assert residual_flow.bits_per_dim == "0.970 M"


def test_a_data_set_without_published_figures():
    assert published("digits") == []
