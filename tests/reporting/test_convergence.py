"""Steps and seconds until a validation bits/dim: on straight lines, whose crossings are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from acf.reporting.convergence import Crossing, convergence, curve_of, mean_curve
from acf.reporting.sections.convergence_section import convergence_section
from acf.stages.project import Project
from acf.stages.report import read_results


def falling(slope, seconds=0.5, steps=range(100, 900, 100), start=4.0):
    """A history whose validation bits/dim falls by `slope` a step from `start`; rows between have no validation."""
    step = np.arange(50, max(steps, default=800) + 1, 50)
    checked = np.isin(step, list(steps))
    return pd.DataFrame(
        {
            "step": step,
            "seconds": seconds * step,
            "train_bits_per_dim": 3.0,
            "validation_bits_per_dim": np.where(checked, start - slope * step, np.nan),
            "validation_se": np.where(checked, 0.02, np.nan),
        }
    )


@pytest.fixture
def results(project_of_three_seeds):
    """Two seeds of a base and of a variant twice as fast per step, at twice the seconds; acf-dot is slower."""
    found = read_results(Project(project_of_three_seeds), "digits")
    histories = {
        "resflow": [falling(0.0010), falling(0.0012)],
        "acf-l2": [falling(0.0020, 1.0), falling(0.0024, 1.0)],
        "acf-dot": [falling(0.0005), falling(0.0007)],
    }
    return replace(found, histories=histories)


def test_a_crossing_is_on_the_line_between_two_validations():
    curve = curve_of(falling(0.001))
    crossing = curve.crossing(3.55)
    assert (crossing.steps, crossing.seconds, crossing.at_most) == (pytest.approx(450), pytest.approx(225), False)
    assert curve.crossing(3.6).steps == pytest.approx(400)
    assert curve.crossing(3.1) is None
    assert curve.crossing(3.95) == Crossing(100, 50, at_most=True)


def test_the_first_crossing_counts():
    history = falling(0.001)
    history.loc[history["step"] == 300, "validation_bits_per_dim"] = 3.2
    assert 200 < curve_of(history).crossing(3.5).steps < 300


def test_seeds_are_averaged_where_both_were_validated():
    curve = mean_curve([curve_of(falling(0.001)), curve_of(falling(0.002, steps=range(200, 1000, 200)))])
    assert curve.steps.tolist() == [200, 400, 600, 800]
    assert curve.bits == pytest.approx(4 - 0.0015 * curve.steps)
    assert mean_curve([]) is None
    assert mean_curve([curve_of(falling(1, steps=[100])), curve_of(falling(1, steps=[200]))]) is None


def test_the_last_value_of_the_base_is_the_target(results):
    base, l2, dot = convergence(results)
    assert [one.variant for one in (base, l2, dot)] == ["resflow", "acf-l2", "acf-dot"]
    assert base.target == pytest.approx(4 - 0.0011 * 800)
    assert base.mean.steps == pytest.approx(800)
    assert [one and one.steps for one in base.seeds] == [None, pytest.approx(0.88 / 0.0012)]
    assert l2.mean.steps / l2.of_base.steps == pytest.approx(0.5)
    assert l2.mean.seconds / l2.of_base.seconds == pytest.approx(1.0)
    assert [one.steps for one in l2.seeds] == pytest.approx([440, 0.88 / 0.0024])
    assert (dot.mean, dot.reached) == (None, [])


def test_targets_of_the_settings_are_asked_of_all(results):
    found = convergence(results, [3.5, 1.0])
    assert [(one.target, one.variant) for one in found[3:]] == [
        (target, variant) for target in (3.5, 1.0) for variant in ("resflow", "acf-l2", "acf-dot")
    ]
    assert found[3].mean.steps == pytest.approx(0.5 / 0.0011)
    assert found[5].mean is None  # 3.52 after 800 steps
    assert all(one.mean is None for one in found[6:])


def test_a_base_with_a_base_of_its_own_is_compared_with_it_once(results):
    """acf-dot has acf-l2 as its base, which has resflow."""
    found = convergence(replace(results, bases={**results.bases, "acf-dot": "acf-l2"}))
    assert [(one.variant, one.base) for one in found] == [
        ("resflow", None),
        ("acf-l2", "resflow"),
        ("acf-l2", None),
        ("acf-dot", "acf-l2"),
    ]


def test_the_section_says_ratios_spread_and_resolution(results):
    section = convergence_section(results, [3.98])
    assert section.sentences[:2] == [
        "acf-l2 reaches validation bits/dim 3.120 after 0.50 (0.46 to 0.55) times the steps and 1.00 (0.92 to 1.10) "
        "times the seconds of resflow.",
        "acf-dot does not reach validation bits/dim 3.120 within its 800 steps.",
    ]
    assert section.sentences[2].endswith("by its first validation, so that no ratio is known.")
    rows = {tuple(row[:2]): row[2:] for row in section.tables[0].rows}
    assert rows["resflow", "3.120"] == [
        "1 of 2 seeds",
        "800 (733; 1 not)",
        "—",
        "6.7 min (6.1 min; 1 not)",
        "—",
    ]
    assert rows["acf-l2", "3.120"][:3] == ["2 of 2 seeds", "400 (366 to 440)", "0.50 (0.46 to 0.55)"]
    assert rows["acf-dot", "3.120"] == ["0 of 2 seeds", "not reached", "—", "not reached", "—"]
    assert rows["acf-dot", "3.980"][1].startswith("at most 100")
    assert "Validations are 100 steps apart" in section.notes[0]
    assert "0.02 bits/dim" in section.notes[0]


def test_seconds_that_do_not_compare_have_no_ratio(results):
    section = convergence_section(replace(results, incomparable_seconds="they shared one GPU"))
    assert section.sentences[0].endswith("after 0.50 (0.46 to 0.55) times the steps of resflow.")
    assert {row[-1] for row in section.tables[0].rows} == {"—"}
    assert section.notes[-1] == "Seconds of these trainings are not comparable with each other: they shared one GPU."


def test_what_is_not_trained_or_validated_is_left_out(results):
    lacking = replace(results, histories=results.histories | {"acf-l2": [], "acf-dot": [falling(1, steps=[])]})
    assert [one.variant for one in convergence(lacking)] == ["resflow"]
    without_base = replace(results, histories=results.histories | {"resflow": []})
    assert convergence(without_base) == []
    assert convergence_section(without_base) is None
    rows = convergence_section(without_base, [3.5]).tables[0].rows
    assert [row[0] for row in rows] == ["acf-l2", "acf-dot"]
    assert {row[4] for row in rows} == {"—"}
