"""Which pairs the pages compare, what they say keeps the two of a pair apart, and why one is not there."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from acf.reporting.convergence import Curve
from acf.reporting.findings.answers import HOW_TO_READ
from acf.reporting.findings.gains import Gain, answer_cells
from acf.reporting.findings.pair_gains import (
    beyond_depth,
    bits_gains,
    depth_gains,
    found_gains,
    matched_gains,
    seconds_gains,
)
from acf.reporting.findings.speed import on_convergence
from acf.reporting.findings.study import Experiment
from acf.reporting.findings.survey import experiments_part
from acf.reporting.findings.topics import TOPICS
from acf.reporting.findings_file import Findings, Measure, PairFinding
from acf.reporting.matched_depth import DEPTH
from acf.reporting.matched_seconds import MATCHED

BASES = {"base": None, "own": "base"}


def curve(*bits: float, seconds: float = 1.0) -> Curve:
    """Validations every 100 steps, each step taking `seconds`."""
    steps = 100.0 * np.arange(1, len(bits) + 1)
    return Curve(steps, seconds * steps, np.array(bits), np.full(len(bits), np.nan))


def row(name: str, **other: Any) -> dict[str, Any]:
    gained = {"base_gain": 0.2, "base_gain_se": 0.05, "base_gain_low": 0.1, "base_gain_high": 0.3}
    return (
        {"row": name, "kind": "flow", "base": "base", "seeds": 2, "bits_per_dim": 2.0, "bits_per_dim_se": 0.01}
        | {"base_gain_over": "trainings", "parameters": 100, "train_steps": 300, "train_seconds": 60.0}
        | {"test_images": 297, "draws": 4, "device": "cpu", "certificate": 0.9, **gained, **other}
    )


def experiment(own: dict[str, Any] | None = None, **other: Any) -> Experiment:
    table = pd.DataFrame([row("base", base=None, base_gain=None), row("own", **(own or {}))], dtype=object)
    known = {"name": "digits", "dataset": "digits", "seeds": [0, 1], "bases": BASES, "attentive": {"own"}}
    return Experiment(**(known | {"tasks": dict.fromkeys(BASES, "density"), "table": table} | other))


def pair(**other: Any) -> PairFinding:
    values = {"value": 1.0, "value_se": 0.1, "of_base": 1.5, "of_base_se": 0.2, "gain": 0.5, "gain_se": 0.05}
    names = {"quantity": "noise", "at": "0.1", "variant": "own", "base": "base", "over": "297 test images"}
    return PairFinding(**(names | values | {"low": 0.4, "high": 0.6, "seeds": 2, "base_seeds": 2} | other))


def with_pairs(*pairs: PairFinding, **sentences: list[str]) -> Experiment:
    return experiment(findings=Findings(experiment="digits", pairs=list(pairs), measures=[], sentences=sentences))


def test_a_report_of_another_base_is_made_again_first() -> None:
    assert [one.gain for one in bits_gains([experiment()], "attention")] == [0.2]
    stale = experiment({"base": "earlier"})
    assert bits_gains([stale], "attention") == []
    assert "not available; run: `acf report --experiment digits`" in TOPICS["bits-per-dim"]([stale])


def test_findings_of_another_base_are_left_out_but_for_those_by_seconds() -> None:
    assert [one.gain for one in found_gains([with_pairs(pair())], "noise")] == [0.5]
    assert found_gains([with_pairs(pair(base="earlier"))], "noise") == []
    bases = {"base": None, "longer": "base", "own": "base"}
    by_seconds = replace(
        with_pairs(pair(quantity=MATCHED, base="longer", at="60 s and 62 s")),
        bases=bases,
        tasks=dict.fromkeys(bases, "density"),
    )
    longer = pd.DataFrame([row("longer", train_steps=450, parameters=110)], dtype=object)
    (found,) = matched_gains([replace(by_seconds, table=pd.concat([by_seconds.table, longer]))])
    assert found.caveats == ["9.1 % fewer parameters"]
    assert (found.base, found.cells["seconds"], found.cells["steps"]) == ("longer", "60 s and 62 s", "300 and 450")
    assert matched_gains([with_pairs(pair(quantity=MATCHED, base="gone"))]) == []


@pytest.mark.parametrize(("parameters", "caveats"), [(101, []), (110, ["9.1 % fewer parameters"])])
def test_gains_over_a_flow_of_as_many_blocks_say_how_many_and_how_parameters_differ(
    parameters: int, caveats: list[str]
) -> None:
    bases = {"base": None, "deep": "base", "own": "base"}
    study = replace(
        with_pairs(pair(quantity=DEPTH, base="deep", at="21")), bases=bases, tasks=dict.fromkeys(bases, "density")
    )
    deep = pd.DataFrame([row("deep", parameters=parameters)], dtype=object)
    (found,) = depth_gains([replace(study, table=pd.concat([study.table, deep]))])
    assert (found.base, found.cells["blocks"], found.caveats) == ("deep", "21", caveats)
    assert found.cells["parameters"] == {101: "−1.0 %", 110: "−9.1 %"}[parameters]
    assert depth_gains([study]) == []
    assert found.cells["gain over its base"] == "0.200 ± 0.050"
    stale = replace(study, table=pd.concat([study.table, deep]), attentive={"own", "deep"})
    assert depth_gains([stale]) == []
    text = TOPICS["equal-depth"](
        [experiment(findings=Findings(experiment="digits", pairs=[], measures=[], sentences={}))]
    )
    assert "not available; no variant without attention that else differs in size alone has as many blocks" in text


@pytest.mark.parametrize(
    ("own", "other", "caveats"),
    [
        ({}, {}, []),
        ({}, {"tasks": {"base": "hybrid", "own": "hybrid"}}, ["task hybrid"]),
        ({}, {"remark": "Errors are too small."}, ["see the remark on digits"]),
        ({"device": "cuda"}, {}, ["on another machine"]),
    ],
)
def test_caveats_of_seconds(own: dict[str, Any], other: dict[str, Any], caveats: list[str]) -> None:
    curves = {"base": [curve(3, 2)], "own": [curve(3, 1, seconds=1.5)]}
    one = experiment(own, curves=curves, **other)
    (gain,) = seconds_gains([one], "attention")
    assert list(gain.caveats) == caveats
    said = on_convergence([one], "attention")
    assert said.startswith(
        "own in `digits` reaches the last validation bits/dim of the base within its training, after"
    )
    assert said.endswith(f" Caveats: own in `digits`: {caveats[0]}." if caveats else "seconds.")


def test_the_remark_on_a_data_set_is_on_the_page_and_at_every_gain() -> None:
    one = experiment(remark="Errors are too small.")
    assert experiments_part([one]).endswith("|\n\n- `digits`: Errors are too small.\n")
    both = experiments_part([replace(one, incomparable_seconds="they shared one GPU")])
    assert "- `digits`: Errors are too small.\n- `digits`: Seconds of these trainings are not comparable" in both
    assert [list(gain.caveats) for gain in bits_gains([one], "attention")] == [["see the remark on digits"]]


def test_a_slower_training_without_a_validation_in_time_says_so() -> None:
    late = experiment(curves={"base": [curve(3, 2)], "own": [curve(3, 2, seconds=5)]})
    said = TOPICS["equal-seconds"]([late])
    assert "the slower one was not validated yet when the faster training ended" in said
    assert "dvc repro" not in said
    assert "run: `dvc repro report@digits`" in TOPICS["equal-seconds"]([experiment()])


def test_upper_bounds_and_trainings_of_no_seconds_make_no_ratio() -> None:
    known = {"base": [curve(3, 2)], "own": [curve(2.5, 1)]}
    by_first = {"base": [curve(3, 2)], "own": [curve(1, 1)]}
    said = on_convergence([experiment(curves=by_first)], "attention")
    assert said.endswith("within its training, by a first validation, so that no ratio is known.")
    none = {"base": [curve(3, 2, seconds=0)], "own": [curve(2.5, 1)]}
    assert "times" not in on_convergence([experiment(curves=none)], "attention")
    both = [experiment(curves=known), experiment(curves=by_first, name="mnist")]
    assert on_convergence(both, "attention") == (
        "Of 2 attentive variants, 2 reach the last validation bits/dim of the base within its training (1 of them, the "
        "others by a first validation), after 0.67 times the base's steps and 0.67 times its seconds: none in fewer "
        "steps with each of several seeds, and 1 in fewer seconds."
    )


def test_seconds_that_do_not_compare_are_compared_nowhere() -> None:
    """The reason stands where they would have been; steps and bits/dim are compared as ever."""
    why = "they shared one GPU"
    known = {"base": [curve(3, 2)], "own": [curve(2.5, 1)]}
    timed = experiment(curves=known, name="mnist")
    shared = replace(
        experiment(curves=known, incomparable_seconds=why),
        findings=Findings(experiment="digits", pairs=[pair(quantity=MATCHED)], measures=[], sentences={}),
    )
    assert seconds_gains([shared], "attention") == matched_gains([shared]) == []
    for topic in ("equal-seconds", "matched-seconds"):
        assert f"`digits`, all variants: not available; seconds are not comparable: {why}\n" in TOPICS[topic]([shared])
    assert [one.cells["seconds"] for one in bits_gains([shared, timed], "attention")] == [
        "not comparable",
        "1.00 times",
    ]
    said = on_convergence([shared], "attention")
    assert "after 0.67 times the base's steps. Caveats: own in `digits`: seconds not comparable, they shared" in said
    both = on_convergence([shared, timed], "attention")
    assert "0.67 times its seconds in the 1 whose seconds compare: none in fewer steps" in both
    last_cells = [line.split("|")[-2].strip() for line in TOPICS["convergence"]([shared, timed]).splitlines()[-2:]]
    assert last_cells == ["—", "0.67"]


def test_the_topic_on_noise_has_the_pairs_without_attention_too() -> None:
    """So that what attention changes can be told from what more blocks change."""
    bases = {"base": None, "deep": "base", "own": "base"}
    study = [
        replace(with_pairs(pair(), pair(variant="deep", gain=0.45)), bases=bases, tasks=dict.fromkeys(bases, "density"))
    ]
    with_attention, without = TOPICS["noise"](study).split("### Without attention")
    assert [one.variant for one in found_gains(study, "noise", "base")] == ["deep"]
    assert "own in `digits`" in with_attention
    assert "deep" not in with_attention
    assert "deep in `digits`" in without
    assert "own" not in without


def test_one_variant_that_does_not_reach_it_is_named() -> None:
    said = on_convergence([experiment(curves={"base": [curve(3, 2)], "own": [curve(4, 3)]})], "attention")
    assert said == "own in `digits` does not reach the last validation bits/dim of the base within its training."


def test_unequal_lengths_do_not_go_under_equal_steps() -> None:
    bases = {"base": None, "own": "base"}
    longer = experiment({"train_steps": 450}, bases=bases, attentive=set())
    said = TOPICS["bases"]([longer])
    assert "### By test bits/dim" in said
    assert "450 steps against 300" in said
    assert "qual steps" not in said


def test_intervals_of_samples_are_said_to_be_each_for_itself() -> None:
    assert "each for itself" in TOPICS["samples"]([with_pairs(pair(quantity="frechet", at=""))])


def using(**measures: float) -> Experiment:
    """An experiment whose variant `own` has these measures of its attention."""
    found = [Measure(name=name.replace("_", " "), variant="own", value=value) for name, value in measures.items()]
    return experiment(findings=Findings(experiment="digits", pairs=[], measures=found, sentences={}))


@pytest.mark.parametrize(
    ("measures", "fault"),
    [
        ({}, "none"),
        ({"entropy": 0.995}, "a mean over positions"),
        ({"dependence": 0.01}, "own position alone"),
        ({"weight": 0.012}, "next to nothing"),
        ({"use": 0.1}, "far from its bound"),
        ({"entropy": 0.995, "weight": 0.0}, "next to nothing, a mean over positions"),
    ],
)
def test_attention_that_is_not_used_is_said_to_be_so(measures: dict[str, float], fault: str) -> None:
    usual = {"entropy": 0.6, "dependence": 0.4, "use": 0.4, "use_of_others": 0.5}
    text = TOPICS["attention"]([using(**(usual | measures))])
    (line,) = (line for line in text.splitlines() if line.startswith("| `digits`"))
    assert [cell.strip() for cell in line.split("|")][-2] == fault
    which = "no fault" if fault == "none" else "at least one"
    assert f": 1 of 1 whose attention has {which} came out lower than the base, and none higher.**" in text


def test_attention_that_was_not_audited_is_named_and_not_counted() -> None:
    lacking = "- `digits`, own: not available; run: `dvc repro report@digits`\n"
    assert TOPICS["attention"]([with_pairs()]) == TOPICS["attention"]([using(entropy=0.6)]) == lacking
    assert TOPICS["attention"]([replace(with_pairs(), table=None)]) == "not available\n"


def test_more_than_depth_is_found_where_both_gains_are() -> None:
    bases = {"base": None, "deep": "base", "own": "base"}
    deep = pd.DataFrame([row("deep")], dtype=object)

    def found(depth: dict[str, Any], **own: Any) -> list[tuple[float, str, list[str]]]:
        one = replace(
            with_pairs(pair(quantity=DEPTH, base="deep", at="21", **depth)),
            bases=bases,
            tasks=dict.fromkeys(bases, "density"),
        )
        table = pd.concat([experiment(own).table, deep])
        return [(worse.gain, worse.found, list(worse.caveats)) for worse in beyond_depth([replace(one, table=table)])]

    lower = {"gain": 0.5, "low": 0.4, "high": 0.6}
    assert found(lower) == [(0.2, "lower", [])]
    assert found(lower, base_gain=0.9, base_gain_low=0.8, base_gain_high=1.0) == [(0.5, "lower", [])]
    assert found(lower, base_gain_low=-0.1) == [(0.2, "undecided", [])]
    assert found({"gain": 0.1, "low": -0.1, "high": 0.3}) == [(0.1, "undecided", [])]
    assert found({"gain": -0.5, "low": -0.6, "high": -0.4}, base_gain_low=-0.1) == [(-0.5, "higher", [])]
    assert found(lower, base_gain=None) == []
    single = found(lower | {"seeds": 1, "base_seeds": 1}, base_gain_over="images", base_gain_low=-0.1)
    assert single == [(0.2, "undecided", ["one training each"])]
    (weak,) = found(lower | {"seeds": 1, "base_seeds": 1})
    assert weak[2] == ["one training each"]


def answers(study: list[Experiment]) -> tuple[str, dict[str, list[str]]]:
    """The paragraph above the table, and the cells after "measured by" of each claim."""
    before, _, after = TOPICS["answers"](study).partition("| claim")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in after.splitlines() if line.startswith("| ")]
    return before, {row[0]: row[2:] for row in rows}


def test_attention_within_branches_has_an_answer_of_its_own() -> None:
    better = experiment()
    worse = experiment({"base_gain": -0.2, "base_gain_low": -0.3, "base_gain_high": -0.1}, within_branches={"own"})
    said, cells = answers([better, replace(worse, name="mnist")])
    claim = "Fewer bits/dim, at equal parameters and steps"
    assert cells[f"{claim}, attention in blocks of its own"] == ["yes", "1", "0", "0", "—"]
    assert cells[f"{claim}, attention within branches, as in the paper"] == ["no", "0", "0", "1", "—"]
    steps = "at equal parameters and steps"
    assert f"with attention in blocks of its own, {steps}, 1 of 1 came out lower and none higher" in said
    assert f"with attention within branches, as in the paper, {steps}, none of 1 came out lower and 1 higher" in said
    assert said.strip().endswith("with an estimated gain of at least 0.02: own in `digits` by 0.200 ± 0.050.")


def test_no_gain_reaches_the_aim_that_is_small_or_within_the_error() -> None:
    small = experiment({"base_gain": 0.01, "base_gain_low": 0.005, "base_gain_high": 0.015})
    unsure = experiment({"base_gain": 0.2, "base_gain_low": -0.1, "base_gain_high": 0.5})
    assert answers([small, replace(unsure, name="mnist")])[0].strip().endswith("at least 0.02: none.")
    single = answers([experiment({"base_gain_over": "images"})])[0]
    assert "without caveats" not in single
    assert "own in `digits` by 0.200 ± 0.050, one training each." in single
    assert answers([with_pairs()])[0] != "\n"
    assert answers([replace(with_pairs(), table=None)])[0] == "\n"


@pytest.mark.parametrize("found", [[], [0.3], [-0.3], [0.3, 0.0], [0.3, -0.3], [0.0, -0.3], [0.0]])
@pytest.mark.parametrize("caveats", [[], ["one training each"]])
def test_every_answer_is_explained_below_the_table(found: list[float], caveats: list[str]) -> None:
    gains = [Gain("digits", "own", "base", one, 0.05, (one - 0.1, one + 0.1), caveats=caveats) for one in found]
    assert f"*{answer_cells(gains)[0]}*" in HOW_TO_READ


def test_answers_are_counted_by_base_over_all_experiments() -> None:
    other = experiment({"base_gain": -0.2, "base_gain_low": -0.3, "base_gain_high": -0.1}, name="mnist")
    text = TOPICS["by-base"]([experiment(), other, with_pairs(pair())])
    assert "| base | test bits/dim | mixed | 2 | 0 | 1 | — |" in text
    assert "| base | the rise of bits/dim under the strongest noise | yes | 1 | 0 | 0 | — |" in text


def test_a_gain_at_one_of_several_places_says_where() -> None:
    places = with_pairs(pair(at="0.1", gain=0.45), pair(at="0.2", gain=0.55))
    (found,) = found_gains([places], "noise", decisive=-1)
    assert found.gain == 0.55
    assert found.cells["at"] == "0.2"
    assert found.cells["gain, 0.1"] == "0.450 ± 0.050"
    assert "at" not in found_gains([with_pairs(pair())], "noise")[0].cells


def test_fewer_steps_are_told_from_those_within_the_noise_of_validations() -> None:
    """Two seeds each: one variant is there after 0.75 of the base's steps, the other after 0.99."""
    curves = {"base": [curve(4, 3, 2, 1)] * 2, "own": [curve(3, 2, 1, 0.5)] * 2}
    said = on_convergence([experiment(curves=curves)], "attention")
    assert "after 0.75 times the base's steps" in said
    nearly = replace(experiment(curves=curves | {"own": [curve(4, 3, 2, 0.99)] * 2}), name="mnist")
    both = on_convergence([experiment(curves=curves), nearly], "attention")
    assert "2 in fewer steps with each of several seeds (1 of them by more than 5 %)" in both
