"""Several gains at once: p-values agree with conclusions, and Holm's correction with its definition."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from students.measuring.gain import paired_gain
from students.measuring.several import concluded, corrected, p_value


def gain(seeds: int, rows: int, better: float, seed: int, groups: int | None = None):
    random = np.random.default_rng(seed)
    student, control = (random.random((seeds, rows)) < 0.7 + each for each in (better, 0.0))
    members = None if groups is None else random.integers(0, groups, rows).astype(np.uint64)
    return paired_gain(student, control, members)


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(20, 400), st.floats(-0.2, 0.25), st.integers(0, 1000))
def test_a_gain_alone_is_concluded_as_it_was(seeds, rows, better, seed):
    found = gain(seeds, rows, better, seed)
    (alone,) = concluded([found.to_json()])
    assert alone["conclusion"] == found.conclusion
    assert alone["p"] == alone["p_corrected"]


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(20, 400), st.floats(-0.2, 0.25), st.integers(0, 1000))
def test_the_p_value_is_below_the_level_exactly_where_interval_and_sign_test_agree(seeds, rows, better, seed):
    found = gain(seeds, rows, better, seed)
    assert found.low is not None and found.high is not None
    agrees = found.sign_p < 0.05 and (found.won > found.lost) == (found.mean > 0)
    p = p_value(found.to_json())
    assert p is not None and (p < 0.05) == (agrees and not found.low <= 0 <= found.high)


def test_with_seeds_that_agree_the_p_value_of_the_interval_is_the_paired_t_test_over_rows():
    random = np.random.default_rng(0)
    student, control = random.random((1, 300)) < 0.9, random.random((1, 300)) < 0.82
    found = paired_gain(np.repeat(student, 4, 0), np.repeat(control, 4, 0)).to_json()
    expected = scipy.stats.ttest_rel(student[0].astype(float), control[0].astype(float)).pvalue
    assert p_value(found) == pytest.approx(max(expected, found["sign_p"]), rel=1e-6)


def test_with_one_row_answered_everywhere_alike_the_p_value_is_that_of_the_t_test_over_seeds():
    right = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 0]], bool)
    student, control = (np.repeat(side[:, None], 50_000, 1) for side in right.T)
    found = paired_gain(student, control).to_json()
    expected = scipy.stats.ttest_1samp([0.0, 1.0, 0.0, 1.0, 1.0], 0.0).pvalue
    assert found["sign_p"] < expected and p_value(found) == pytest.approx(expected, rel=1e-4)


def test_one_seed_has_no_p_value_and_counts_for_nothing():
    single = gain(1, 100, 0.2, 0).to_json()
    several = [gain(3, 300, 0.2, number).to_json() for number in range(3)]
    assert p_value(single) is None
    assert [each["p_corrected"] for each in concluded([single, *several])][1:] == [
        each["p_corrected"] for each in concluded(several)
    ]
    assert concluded([single])[0]["conclusion"] == "open"


def test_holm_of_a_case_by_hand():
    # sorted: .005 .01 .03 .04; times 4 3 2 1: .02 .03 .06 .04; running maximum: .02 .03 .06 .06 (Holm, 1979)
    assert corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    assert corrected([]) == [] and corrected([None, 0.01]) == [None, 0.01]


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_rejects_by_its_definition_step_by_step(p_values):
    found = corrected(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for number, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if (len(p_values) - number) * p_values[place] >= level:
                break
            rejected.add(place)
        assert {place for place, each in enumerate(found) if each < level} == rejected
    assert all(mine >= own for mine, own in zip(found, p_values, strict=True))


def test_where_nothing_differs_a_table_of_eight_claims_something_in_at_most_one_of_twenty():
    random, claims = np.random.default_rng(3), 0
    for _ in range(200):
        control = random.random((3, 400)) < 0.7
        family = [paired_gain(random.random((3, 400)) < 0.7, control).to_json() for _ in range(8)]
        claims += any(each["conclusion"] != "open" for each in concluded(family))
    assert claims <= scipy.stats.binom.ppf(0.999, 200, 0.05)
