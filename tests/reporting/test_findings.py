"""What is said of variants and their bases over all experiments, and bits/dim after equal seconds, of known numbers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from acf.errors import AcfError
from acf.reporting.comparison import comparison
from acf.reporting.convergence import Curve, convergence_of
from acf.reporting.findings.gains import Gain, answer_cells, gains_table, tally
from acf.reporting.findings.study import Experiment
from acf.reporting.findings.topics import TOPICS
from acf.reporting.findings_file import PairFinding, findings_file, read_findings
from acf.reporting.matched_depth import matched_depth
from acf.reporting.matched_seconds import matched_seconds
from acf.reporting.parts import training
from acf.reporting.style import looks
from acf.reporting.validation_gains import after_equal_seconds, after_equal_steps
from acf.reporting.verdict import notes, verdict
from acf.stages.experiment_results import read_results
from acf.stages.project import Project

BASES = {"base": None, "own": "base"}
T_2 = 4.302652729911275
"""0.975 quantile of Student's distribution with 2 degrees of freedom."""


def gain(variant, value, half=0.1, experiment="digits", **more):
    known = half is not None
    se, ends = (half / 2, (value - half, value + half)) if known else (None, None)
    return Gain(experiment, variant, "base", value, se, ends, **more)


def line(slope, seconds=1.0, steps=4, start=4.0):
    """Validations every 100 steps on a straight line, each step taking `seconds`."""
    step = np.arange(100.0, 100 * steps + 1, 100)
    return Curve(step, seconds * step, start - slope * step, np.full(steps, np.nan))


def test_the_tally_counts_on_which_side_of_0_intervals_lie():
    found = [
        gain("a", 0.3),
        gain("b", 0.2, caveats=["one training each"]),
        gain("c", -0.05),
        gain("d", -0.4, experiment="mnist"),
        gain("e", -0.2),
        gain("f", 0.0, None),
        gain("g", 0.0, caveats=["task hybrid"]),
    ]
    assert tally(found, "the rise", "attentive variants") == (
        "The rise came out lower than the base's in 2 of 7 attentive variants (a in `digits`; b in `digits`, one "
        "training each), higher in 2 (d in `mnist`; e in `digits`), undecided in 2 (1 with caveats) and "
        "with an error that is not known in 1; gains go from −0.400 ± 0.050 (d in `mnist`) to "
        "0.300 ± 0.050 (a in `digits`)."
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (gain("a", 0.3), "The rise of a came out lower than that of its base base: gain 0.300 ± 0.050."),
        (gain("a", -0.3), "The rise of a came out higher than that of its base base: gain −0.300 ± 0.050."),
        (gain("a", 0.1), "The rise of a came out undecided against its base base: gain 0.100 ± 0.050."),
        (
            gain("a", 0.1, None, caveats=["task hybrid"]),
            "The rise of a came out with an error against its base base that is not known: gain 0.1000, task hybrid.",
        ),
    ],
)
def test_one_variant_is_named(one, said):
    assert tally([one], "the rise", "variants", within=True) == said


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.3, 0.2], ["yes", "2", "0", "0", "—"]),
        ([0.3, 0.0], ["in part", "1", "1", "0", "—"]),
        ([0.3, -0.3], ["mixed", "1", "0", "1", "—"]),
        ([0.0, -0.3], ["not found", "0", "1", "1", "—"]),
        ([-0.2, -0.3], ["no", "0", "0", "2", "—"]),
        ([0.0], ["undecided", "0", "1", "0", "—"]),
        ([], ["not available", "—", "—", "—", "—"]),
    ],
)
def test_the_answer_is_that_of_pairs_without_caveats(values, cells):
    firm = [gain("a", value) for value in values]
    assert answer_cells(firm) == cells
    others = [gain("b", value, caveats=["one training each"]) for value in (0.3, 0.2, 0.0)]
    answer = cells[0] if firm else "with caveats only"
    assert answer_cells([*firm, *others]) == [answer, *cells[1:4], "2 lower and 1 undecided"]


def test_a_partner_is_not_called_a_base():
    partner = [gain("a", 0.3), gain("b", 0.2)]
    assert "lower than the partner's in 2 of 2 variants" in tally(partner, "the value", "variants", other="partner")
    assert "lower than that of its partner base" in tally(partner[:1], "the value", "variants", other="partner")
    assert gains_table(partner, "bits/dim", "partner").startswith("| experiment | variant | partner | gain")


def test_without_pairs_nothing_is_said_of_them():
    assert tally([], "the rise", "variants") == "Not available: no pair is measured yet."


def test_a_table_has_the_cells_of_all_and_dashes_for_those_that_one_lacks():
    table = gains_table([gain("a", 0.3, cells={"0.1": "x"}), gain("b", 0.0, None, cells={"0.2": "y"})], "bits/dim")
    assert table.splitlines()[2:] == [
        "| `digits` | a | base | 0.300 ± 0.050 | 0.200 to 0.400 | lower | x | — |",
        "| `digits` | b | base | 0.0000 | — | not known | — | y |",
    ]


def test_after_equal_seconds_each_has_made_the_steps_that_its_seconds_allow():
    """The variant falls twice as fast per step at 1.6 times the seconds: after the base's 400 s it is at step 250."""
    (found,) = after_equal_seconds({"base": [line(0.001)], "own": [line(0.002, 1.6)]}, BASES)
    assert (found.own.seconds, found.own.steps, found.own.of_all) == pytest.approx((400, 250, 400))
    assert (found.of_base.steps, found.of_base.of_all) == (400, 400)
    assert found.gain == pytest.approx((4 - 0.4) - (4 - 0.5))
    assert (found.gain_se, found.interval()) == (None, None)


def test_the_shorter_training_ends_the_comparison_whichever_it_is():
    (found,) = after_equal_seconds({"base": [line(0.001, 2.0)], "own": [line(0.001)]}, BASES)
    assert (found.own.seconds, found.of_base.steps, found.own.steps) == (400, 200, 400)
    assert found.gain == pytest.approx(0.2)


def test_the_error_is_that_of_trainings_and_not_of_a_busy_machine():
    """After 400 steps two seeds are 0.04 apart and two are equal: V = 2 * 0.02^2 / 2, and k = 1/2 + 1/2."""
    own = [line(0.00195), line(0.00205)]
    curves = {"base": [line(0.002)] * 2, "own": own}
    (even,) = after_equal_seconds(curves, BASES)
    assert even.gain_se == pytest.approx(0.02)
    assert even.df == 2
    low, high = even.interval()
    assert (low, high) == pytest.approx((-T_2 * even.gain_se, T_2 * even.gain_se))
    wider = even.interval(5)
    assert wider[0] < low < high < wider[1]
    busy = [replace(own[0], seconds=own[0].seconds * 0.5), replace(own[1], seconds=own[1].seconds * 1.5)]
    (same,) = after_equal_seconds(curves | {"own": busy}, BASES)
    assert (same.own.seconds, same.gain_se) == (even.own.seconds, pytest.approx(even.gain_se))


def test_what_is_not_there_or_validated_too_late_is_left_out():
    assert after_equal_seconds({"own": [line(0.001)]}, BASES) == []
    assert after_equal_seconds({"base": [line(0.001)], "own": []}, BASES) == []
    assert after_equal_seconds({"base": [line(0.001)], "own": [line(0.001, 5.0)]}, BASES) == []


def test_after_equal_steps_seconds_do_not_count():
    curves = {"base": [line(0.001), line(0.0012)], "own": [line(0.002, 1.6), line(0.0024, 0.1)]}
    (found,) = after_equal_steps(curves, BASES, 0.5)
    assert (found.own.steps, found.of_base.steps, found.own.of_all) == (200, 200, 400)
    assert found.gain == pytest.approx(200 * (0.0022 - 0.0011))
    variances = [200**2 * (high - low) ** 2 / 2 for low, high in ((0.001, 0.0012), (0.002, 0.0024))]
    assert found.gain_se == pytest.approx(math.sqrt(sum(variances) / 2))
    assert found.df == 2
    assert after_equal_steps(curves, BASES, 0.2) == []  # before the first validation
    assert after_equal_steps(curves | {"own": [line(0.002, steps=5)]}, BASES, 0.5) == []


def test_a_gain_that_goes_away_in_the_course_of_training_is_said_to():
    step = np.array([100.0, 200.0, 300.0])
    base = [Curve(step, step, 4 - 0.001 * step + 0.001 * seed, np.full(3, np.nan)) for seed in (0, 1, 2)]
    own = [replace(curve, bits=curve.bits - [0.2, 0.1, 0.0]) for curve in base]
    study = Experiment("digits", "digits", (0, 1, 2), BASES, {"own"}, dict.fromkeys(BASES, "density"))
    text = TOPICS["along-training"]([replace(study, curves={"base": base, "own": own})])
    assert "after a third of the steps of own in `digits` came out lower than that of its base base" in text
    assert "after all of the steps of own in `digits` came out undecided against its base base" in text
    assert "| `digits` | own | base | 0.20000 ± 0.00082, lower | 0.10000 ± 0.00082, lower | " in text
    assert "#### Without attention\n\n- Not available: no pair is measured yet.\n" in text


def test_a_base_that_has_one_itself_is_the_target_of_its_own_variants():
    curves = {"resflow": [line(0.001)], "monotone": [line(0.002)], "attentive": [line(0.004)]}
    found = convergence_of(curves, {"resflow": None, "monotone": "resflow", "attentive": "monotone"})
    assert [(one.variant, one.base, one.mean.steps) for one in found] == [
        ("resflow", None, pytest.approx(400)),
        ("monotone", "resflow", pytest.approx(200)),
        ("monotone", None, pytest.approx(400)),
        ("attentive", "monotone", pytest.approx(200)),
    ]


def timed(results, seconds):
    """The results of one seed, with other training seconds."""
    metrics = {
        variant: [one.model_copy(update={"train_seconds": seconds[variant]}) for one in runs]
        for variant, runs in results.metrics.items()
    }
    return replace(results, metrics=metrics)


def test_trainings_of_as_many_seconds_are_compared_on_the_same_images(project):
    results = timed(read_results(Project(project), "digits"), {"resflow": 100, "acf-dot": 148, "acf-l2": 150})
    (found,) = matched_seconds(results, {"acf-l2": ["resflow", "acf-dot"]})
    assert (found.variant, found.base, found.at) == ("acf-l2", "acf-dot", "2.5 min and 2.5 min")
    assert found.gain == pytest.approx(2.03 - 1.93)
    difference = results.images["acf-dot", 0] - results.images["acf-l2", 0]
    assert found.gain_se == pytest.approx(difference.std(ddof=1) / math.sqrt(297))
    assert found.low < found.gain < found.high
    assert matched_seconds(results, {"acf-l2": ["resflow"]}) == []
    assert matched_seconds(results, {"acf-l2": ["not-trained"]}) == []
    assert matched_seconds(replace(results, incomparable_seconds="one GPU"), {"acf-l2": ["resflow", "acf-dot"]}) == []
    still = timed(results, {"resflow": 0, "acf-dot": 0, "acf-l2": 0})
    assert matched_seconds(still, {"acf-l2": ["acf-dot"]}) == []


def deeper(results, blocks):
    """The results, with another number of blocks for each variant."""
    metrics = {
        variant: [
            one.model_copy(
                update={
                    "certificate": one.certificate.model_copy(
                        update={"blocks": [one.certificate.blocks[0]] * blocks[variant]}
                    )
                }
            )
            for one in runs
        ]
        for variant, runs in results.metrics.items()
    }
    return replace(results, metrics=metrics)


def test_flows_of_as_many_blocks_and_steps_are_compared_on_the_same_images(project):
    results = deeper(read_results(Project(project), "digits"), {"resflow": 4, "acf-dot": 6, "acf-l2": 6})
    plain = {"acf-l2": ["resflow", "acf-dot"]}
    (found,) = matched_depth(results, plain)
    assert (found.variant, found.base, found.at) == ("acf-l2", "acf-dot", "6")
    assert found.gain == pytest.approx(2.03 - 1.93)
    difference = results.images["acf-dot", 0] - results.images["acf-l2", 0]
    assert found.gain_se == pytest.approx(difference.std(ddof=1) / math.sqrt(297))
    assert matched_depth(results, {"acf-l2": ["resflow", "not-trained"]}) == []
    assert matched_depth(results, {"not-trained": ["acf-dot"]}) == []
    assert matched_depth(replace(results, bases=results.bases | {"acf-l2": "acf-dot"}), plain) == []
    as_deep = deeper(results, dict.fromkeys(results.metrics, 6))
    sizes = {"acf-l2": 100, "acf-dot": 90, "resflow": 105}
    for name, parameters in sizes.items():
        as_deep.metrics[name] = [one.model_copy(update={"parameters": parameters}) for one in as_deep.metrics[name]]
    (nearest,) = matched_depth(replace(as_deep, bases=dict.fromkeys(as_deep.bases)), plain)
    assert nearest.base == "resflow"


def test_a_report_on_seconds_that_do_not_compare_has_no_ratio_of_them(project):
    results = read_results(Project(project), "digits")
    shared = replace(results, incomparable_seconds="they shared one GPU")
    table = comparison(results)
    assert "times its training seconds" in verdict(table, results)[0]
    assert "seconds" not in verdict(table, shared)[0]
    note = "Seconds of these trainings are not comparable with each other: they shared one GPU."
    looks_of = looks(list(results.metrics))
    for notes_of in (lambda one: notes(table, one), lambda one: training(one, looks_of).notes):
        assert note not in notes_of(results)
        assert notes_of(shared)[-1] == note


def test_seconds_are_those_of_the_model_where_its_training_was_made_anew(project):
    """The weights, and so the evaluation, may be the same."""
    record = project / "models/digits/acf-l2/seed0/config.json"
    before = read_results(Project(project), "digits").metrics["acf-l2"]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"train_seconds": 77.0, "device": "another"}))
    first, *others = read_results(Project(project), "digits").metrics["acf-l2"]
    assert (first.train_seconds, first.train_device) == (77.0, "another")
    assert others == before[1:]


def test_seconds_of_different_machines_are_not_matched(project):
    results = timed(read_results(Project(project), "digits"), dict.fromkeys(("resflow", "acf-dot", "acf-l2"), 100))
    assert len(matched_seconds(results, {"acf-l2": ["acf-dot"]})) == 1
    results.metrics["acf-dot"] = [
        one.model_copy(update={"train_device": "another"}) for one in results.metrics["acf-dot"]
    ]
    assert matched_seconds(results, {"acf-l2": ["acf-dot"]}) == []


def test_of_several_gains_one_without_error_is_said_to_have_none():
    said = tally([gain("a", 0.1, None), gain("b", 0.3)], "the rise", "variants", within=True)
    assert said.endswith("gains go from 0.1000 (a, error not known) to 0.300 ± 0.050 (b).")


def test_pairs_are_of_one_kind_and_trained_for_bits_per_dim():
    bases = {"resflow": None, "monotone": "resflow", "acf": "resflow", "monotone-acf": "monotone", "labels": "resflow"}
    tasks = dict.fromkeys(bases, "density") | {"labels": "classification", "acf": "hybrid"}
    experiment = Experiment("digits", "digits", [0], bases, {"acf", "monotone-acf", "labels"}, tasks)
    assert experiment.pairs("attention") == {"acf": "resflow", "monotone-acf": "monotone"}
    assert experiment.pairs("base") == {"monotone": "resflow"}
    assert experiment.flows.empty


PAIR = PairFinding(
    **{"quantity": "noise", "at": "0.1", "variant": "own", "base": "base", "value": 1.0, "value_se": 0.1},
    **{"of_base": 1.5, "of_base_se": 0.2, "gain": 0.5, "gain_se": 0.05, "low": 0.4, "high": 0.6},
    **{"over": "297 test images", "seeds": 2, "base_seeds": 2},
)


def test_findings_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "findings.json"
    path.write_bytes(findings_file("digits", [PAIR], {"noise": ["A − sentence."]}))
    found = read_findings(path, "digits")
    assert (found.pairs, found.sentences) == ([PAIR], {"noise": ["A − sentence."]})
    with pytest.raises(AcfError, match=r"findings\.json is of experiment 'digits' instead of 'mnist'; run: acf report"):
        read_findings(path, "mnist")


@pytest.mark.parametrize("wrong", [{"gain": 0.7}, {"gain_se": -1.0}, {"low": math.nan}, {"seeds": 0}, {"over": None}])
def test_impossible_findings_are_refused(tmp_path, wrong):
    path = tmp_path / "findings.json"
    content = json.loads(findings_file("digits", [PAIR], {}))
    content["pairs"][0] |= wrong
    path.write_text(json.dumps(content))
    with pytest.raises(AcfError, match=r"findings\.json: pairs\.0.*; run: acf report --experiment digits"):
        read_findings(path, "digits")
