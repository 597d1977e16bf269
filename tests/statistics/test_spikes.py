import numpy as np
import pytest

from rankwise.statistics.spikes import MIN_WINDOW, THRESHOLD, WINDOW, spikes


def course(num=200, seed=0):
    rng = np.random.default_rng(seed)
    return 2 + 3 * np.exp(-np.arange(num) / 15) + 0.3 * rng.standard_normal(num)


def test_steps_that_jump_out_are_found_and_no_others():
    values = course()
    values[[60, 61, 150]] += 3
    assert list(np.flatnonzero(spikes(values))) == [60, 61, 150]


def test_few_steps_of_normal_noise_are_taken_for_spikes():
    """The share is far below 1 in 100, so a count of several says something."""
    found = np.mean([spikes(np.random.default_rng(seed).standard_normal(200)) for seed in range(100)])
    assert 0 < found < 0.006


def test_a_fall_is_no_spike():
    values = course()
    values[100:] -= 5
    assert not spikes(values)[100:110].any()


def test_the_definition_step_by_step():
    values = course(40, seed=3)
    for step, found in enumerate(spikes(values)):
        before = values[max(0, step - WINDOW) : step]
        if step < MIN_WINDOW:
            assert not found
            continue
        deviation = 1.4826 * np.median(np.abs(before - np.median(before)))
        assert found == (values[step] > np.median(before) + THRESHOLD * deviation)


@pytest.mark.parametrize("values", [[], [1.0] * 5, [1.0] * 50, [1.0, np.nan] * 30, [np.inf] * 30])
def test_short_flat_and_broken_courses_have_none(values):
    assert not spikes(values).any()


def test_a_step_that_is_not_a_number_does_not_hide_the_next_spike():
    values = course()
    values[99] = np.nan
    values[100] += 3
    assert list(np.flatnonzero(spikes(values))) == [100]
