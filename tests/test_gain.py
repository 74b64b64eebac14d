import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from students.measuring.gain import Gain, paired_gain, verdict, with_interval
from students.tasks.figure import headline


def rights(rows: int, shares: list[float], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((len(shares), rows)) < np.array(shares)[:, None]


def experiment(random, num_seeds, num_rows, *, gain=0.0, seed_sd=0.011):
    """Who was right in two arms of `num_seeds` trainings each: 70 % of the rows are easy, and a network is as good as its
    seed makes it (sd `seed_sd` of accuracy) on the hard ones. The arms differ by `gain`, and by nothing else."""
    hard = random.random(num_rows) < 0.3
    arms = []
    for better in (gain, 0.0):
        skill = (better + random.normal(0, seed_sd, (num_seeds, 1))) / 0.3
        arms.append(random.random((num_seeds, num_rows), dtype=np.float32) < np.where(hard, 0.75 + skill, 0.99))
    return arms


def share_of_verdicts(repetitions, *shape, **options):
    random = np.random.default_rng(7)
    said = [paired_gain(*experiment(random, *shape, **options)).conclusion for _ in range(repetitions)]
    return {conclusion: said.count(conclusion) / repetitions for conclusion in ("helps", "hurts", "open")}


@pytest.mark.parametrize(("num_seeds", "num_rows"), [*itertools.product([3, 5], [360, 2_000, 10_000])])
def test_where_nothing_differs_but_the_seeds_at_most_one_verdict_in_twenty_is_false(num_seeds, num_rows):
    found = share_of_verdicts(1000, num_seeds, num_rows)
    assert found["helps"] + found["hurts"] <= 0.05


@pytest.mark.parametrize("seed_sd", [0.0, 0.004, 0.03])
def test_the_promise_holds_however_large_the_noise_of_seeds_is_beside_that_of_rows(seed_sd):
    found = share_of_verdicts(400, 2, 2_000, seed_sd=seed_sd)
    assert found["helps"] + found["hurts"] <= scipy.stats.binom.ppf(0.999, 400, 0.05) / 400


@pytest.mark.parametrize(("num_seeds", "num_rows", "at_least"), [(5, 360, 0.75), (3, 2_000, 0.6), (5, 10_000, 0.95)])
def test_a_gain_of_five_points_is_found(num_seeds, num_rows, at_least):
    found = share_of_verdicts(200, num_seeds, num_rows, gain=0.05)
    assert found["helps"] >= at_least and found["hurts"] == 0


def test_the_gain_is_the_mean_over_seeds_and_lies_in_its_interval():
    student, control = rights(500, [0.9, 0.8, 0.9]), rights(500, [0.7, 0.8, 0.8], seed=1)
    gain = paired_gain(student, control)
    assert gain.mean == pytest.approx((student.mean(1) - control.mean(1)).mean(), abs=1e-12)
    assert gain.low < gain.mean < gain.high
    assert gain.by_seed == pytest.approx(student.mean(1) - control.mean(1))


def test_with_seeds_that_agree_the_interval_is_the_paired_t_test_over_rows():
    student, control = rights(300, [0.9]), rights(300, [0.8], seed=1)
    gain = paired_gain(np.repeat(student, 4, 0), np.repeat(control, 4, 0))
    expected = scipy.stats.ttest_rel(student[0].astype(float), control[0].astype(float)).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_with_rows_that_are_alike_the_interval_is_the_t_test_over_seeds():
    right = np.array([[1, 1], [1, 0], [1, 1], [0, 0]], bool)  # student and control, by seed: the same on every row
    student, control = (np.repeat(side[:, None], 50_000, 1) for side in right.T)
    gain = paired_gain(student, control)
    expected = scipy.stats.ttest_1samp([0.0, 1.0, 0.0, 0.0], 0.0).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_rows_of_one_group_are_no_more_evidence_than_one_row():
    student, control = rights(300, [0.9, 0.8]), rights(300, [0.8, 0.8], seed=1)
    alone = paired_gain(student, control)
    again = [np.tile(side, 5) for side in (student, control)]
    grouped = paired_gain(*again, np.tile(np.arange(300, dtype=np.uint64), 5))
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert (grouped.won, grouped.lost, grouped.units, grouped.grouped) == (alone.won, alone.lost, 300, True)
    taken_for_rows = paired_gain(*again)
    assert taken_for_rows.high - taken_for_rows.low < grouped.high - grouped.low
    assert "300 groups of test rows" in verdict(grouped) and "300 test rows" in verdict(alone)


def test_groups_of_one_row_each_are_rows():
    student, control = rights(100, [0.9, 0.8]), rights(100, [0.8, 0.8], seed=1)
    own = np.random.default_rng(0).permutation(100).astype(np.uint64)
    grouped, alone = paired_gain(student, control, own), paired_gain(student, control)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert (grouped.won, grouped.lost, grouped.units, grouped.grouped) == (alone.won, alone.lost, 100, False)


def test_pairing_narrows_the_interval_of_models_that_fail_on_the_same_rows():
    control = np.repeat(rights(500, [0.8]), 3, 0)
    student = control | np.repeat(rights(500, [0.1], seed=1), 3, 0)
    unpaired = np.random.default_rng(2).permutation(student, axis=1)
    paired, broken = paired_gain(student, control), paired_gain(unpaired, control)
    assert paired.high - paired.low < 0.5 * (broken.high - broken.low)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_the_exact_one_of_scipy(won, lost):
    gain = Gain(0.0, 0.0, 0.0, (0.0, 0.0), won, lost, 1000)
    expected = scipy.stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert gain.sign_p == pytest.approx(expected, abs=1e-12)


def some_gain(low: float, mean: float, high: float, *, by_seed=None, won=40, lost=5) -> Gain:
    return Gain(low, mean, high, by_seed or (mean, mean, mean), won, lost, 359)


def test_four_rows_won_and_none_lost_of_359_are_not_helps():
    right = np.ones((5, 359), bool)
    control = right.copy()
    control[:, :4] = False
    gain = paired_gain(right, control)
    assert (gain.won, gain.lost, gain.units) == (4, 0, 359)
    assert gain.sign_p == scipy.stats.binomtest(4, 4).pvalue == 0.125
    assert gain.conclusion == "open"
    beyond = some_gain(0.004, 0.011, 0.018, won=4, lost=0)  # whatever the interval says
    assert beyond.conclusion == "open"
    assert "better in 4 and worse in 0 of them" in verdict(beyond) and "p = 0.12" in verdict(beyond)


@pytest.mark.parametrize("mean", [0.0004, -0.0004])
def test_no_gain_of_0_0_points_is_a_verdict(mean):
    certain = some_gain(mean - 1e-5, mean, mean + 1e-5, won=900 if mean > 0 else 5, lost=5 if mean > 0 else 900)
    assert certain.conclusion == "open"
    assert verdict(certain).startswith("No difference shown: 0.0 points")


@pytest.mark.parametrize(
    ("gain", "conclusion", "said"),
    [
        (
            some_gain(0.03, 0.06, 0.09),
            "helps",
            "Distillation helps: +6.0 points of test accuracy over the control (95% int",
        ),
        (some_gain(-0.09, -0.06, -0.03, won=5, lost=40), "hurts", "Distillation hurts: \N{MINUS SIGN}6.0 points"),
        (some_gain(-0.01, 0.06, 0.09), "open", "No difference shown"),
        (some_gain(0.0, 0.0, 0.0, won=0, lost=0), "open", "No difference shown"),
        (some_gain(0.03, 0.06, 0.09, won=5, lost=40), "open", "No difference shown"),
        (some_gain(0.03, 0.06, 0.09, won=20, lost=19), "open", "No difference shown"),
    ],
)
def test_the_verdict_claims_no_more_than_interval_and_sign_test_show(gain, conclusion, said):
    assert gain.conclusion == gain.to_json()["conclusion"] == conclusion
    assert verdict(gain).startswith(said)


def test_one_seed_is_no_verdict_and_what_is_missing_is_said():
    gain = paired_gain(rights(10_000, [0.99]), rights(10_000, [0.5], seed=1))
    assert gain.low is None and gain.high is None and gain.mean == pytest.approx(0.49, abs=0.02)
    assert gain.conclusion == "open"
    assert verdict(gain).startswith("No verdict: +") and "give `train.seeds` at least two" in verdict(gain)
    assert with_interval(gain.figure, gain.to_json()).endswith("(no interval)")


def test_one_group_is_no_verdict():
    student, control = rights(50, [0.9, 0.9]), rights(50, [0.2, 0.2], seed=1)
    gain = paired_gain(student, control, np.zeros(50, np.uint64))
    assert gain.low is None and verdict(gain).startswith("No verdict")


def test_without_a_control_nothing_is_said_of_it():
    assert verdict(None).startswith("No control was trained")


def test_the_verdict_says_when_seeds_disagree():
    told = verdict(some_gain(0.03, 0.06, 0.09, by_seed=(-0.01, 0.13)))
    assert "the seeds disagree: \N{MINUS SIGN}1.0 to +13.0" in told
    assert "disagree" not in verdict(some_gain(0.03, 0.06, 0.09, by_seed=(0.01, 0.13)))


def test_points_have_a_sign_unless_they_are_zero():
    assert [headline("classification").gained(value) for value in (0.1, -0.1, 0.0001, -0.0001)] == [
        "+10.0",
        "\N{MINUS SIGN}10.0",
        "0.0",
        "0.0",
    ]
