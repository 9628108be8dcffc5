"""What the curves of several seeds show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from acf.reporting.figures import bounds, over_seeds
from acf.reporting.style import looks
from acf.stages.experiment_results import read_results
from acf.stages.project import Project
from tests.reporting.conftest import BITS


def history(offset: float, seconds: float, steps: range = range(10, 50, 10)) -> pd.DataFrame:
    step = np.array(steps)
    validation = np.where(step % 20 == 0, 3 + offset, np.nan)
    columns = {"step": step, "seconds": seconds * step, "train_bits_per_dim": 4 + offset - 0.01 * step}
    return pd.DataFrame({**columns, "validation_bits_per_dim": validation, "validation_se": 0.1 + offset})


@pytest.mark.parametrize("axis", ["step", "seconds"])
def test_means_and_ends_over_the_seeds(axis: str) -> None:
    seeds = [history(0.0, 1.0), history(0.3, 2.0), history(0.6, 3.0)]
    found = over_seeds(seeds, axis, lambda one: one["train_bits_per_dim"])
    step = np.array([10, 20, 30, 40])
    assert found["at"].tolist() == (step if axis == "step" else 2.0 * step).tolist()
    for name, offset in (("low", 0.0), ("mean", 0.3), ("high", 0.6)):
        assert found[name].to_numpy() == pytest.approx(4 + offset - 0.01 * step)
    checked = over_seeds(seeds, axis, lambda one: one["validation_bits_per_dim"])
    assert len(checked) == 2
    assert checked["mean"].to_numpy() == pytest.approx([3.3, 3.3])
    assert checked["error"].to_numpy() == pytest.approx([0.4, 0.4])


def test_steps_that_a_seed_lacks_are_left_out() -> None:
    seeds = [history(0.0, 1.0), history(0.5, 1.0, range(10, 30, 10))]
    assert over_seeds(seeds, "step", lambda one: one["train_bits_per_dim"])["at"].tolist() == [10, 20]


def test_bounds_of_seeds_of_different_depth_are_drawn(
    project_of_three_seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = read_results(Project(project_of_three_seeds), "digits")
    metrics = results.metrics["resflow"]
    fewer = metrics[1].certificate.model_copy(update={"blocks": metrics[1].certificate.blocks[:9]})
    metrics[1] = metrics[1].model_copy(update={"certificate": fewer})
    drawn: list[list[float]] = []
    plot = Axes.plot

    def keep(axes: Axes, x: list[float], y: list[float], **more: object) -> object:
        drawn.append(y)
        return plot(axes, x, y, **more)

    monkeypatch.setattr(Axes, "plot", keep)
    bounds(results, looks(list(BITS)))
    uppers = [[block.upper for block in each.certificate.blocks] for each in metrics]
    assert drawn[0] == [max(each[at] for each in uppers if at < len(each)) for at in range(14)]
