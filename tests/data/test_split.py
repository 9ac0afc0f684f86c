"""Every observation has one role; strata are represented in proportion and always keep something to train on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biovae.data import Role, split
from biovae.errors import InputError


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 5),
)
def test_strata_are_held_out_in_proportion_and_keep_one_to_train_on(sizes, fraction, seed):
    strata = np.repeat([f"s{i}" for i in range(len(sizes))], sizes)
    roles = split(len(strata), validation=fraction, strata=strata, seed=seed)
    held = roles == Role.VALIDATION
    for i, size in enumerate(sizes):
        mine = held[strata == f"s{i}"].sum()
        assert mine <= size - 1
        assert np.floor(size * fraction) - 1 <= mine <= np.ceil(size * fraction)
    assert held.sum() <= np.floor(len(strata) * fraction + 0.5) + 1e-9
    if min(sizes) * (1 - fraction) >= 1:  # no stratum is too small to give its share
        assert held.sum() == np.floor(len(strata) * fraction + 0.5)


@pytest.mark.parametrize(("observations", "expected"), [(1, 0), (2, 0), (4, 0), (5, 1), (10, 1), (1000, 100)])
def test_a_tenth_is_held_out_where_there_are_enough(observations, expected):
    roles = split(observations)
    assert (roles == Role.VALIDATION).sum() == expected
    assert (roles == "train").sum() == observations - expected


def test_the_draw_follows_the_seed():
    assert (split(100, seed=1) == split(100, seed=1)).all()
    assert (split(100, seed=1) != split(100, seed=2)).any()


def test_many_strata_of_three_give_a_tenth_of_all():
    roles = split(300, strata=np.repeat(np.arange(100), 3))
    assert (roles == Role.VALIDATION).sum() == 30


def test_the_test_set_is_left_alone():
    test = np.arange(50) % 5 == 0
    roles = split(50, validation=0.5, test=test)
    assert ((roles == Role.TEST) == test).all()
    assert (roles == Role.VALIDATION).sum() == 20


def test_masks_are_taken_as_they_are():
    chosen = np.arange(20) < 4
    assert ((split(20, validation=chosen) == Role.VALIDATION) == chosen).all()


MISTAKES = {
    "fraction": ({"validation": 1.0}, "below 1"),
    "negative": ({"validation": -0.1}, "at least 0"),
    "length": ({"test": np.ones(3, bool)}, r"each of 10 observations.*\(3,\)"),
    "type": ({"validation": np.zeros(10)}, "boolean.*float64"),
    "overlap": ({"validation": np.arange(10) < 3, "test": np.arange(10) < 2}, "in common, found 2"),
    "everything": ({"test": np.ones(10, bool)}, "found 0 for validation and 10 for test"),
    "strata": ({"strata": np.zeros(9)}, "found 9"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(case):
    arguments, said = MISTAKES[case]
    with pytest.raises(InputError, match=said):
        split(10, **arguments)
