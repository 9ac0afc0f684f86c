"""Arguments of the data wing that are not what they should be: one sentence, no traceback of numpy, no guess."""

import time

import numpy as np
import pytest

from biovae.data import Role, Source, prepare, split
from biovae.errors import InputError
from biovae.schema import Support

RNA = Source(name="rna", support=Support.COUNTS, exposure=True)
ROWS = {  # name: rows of twelve observations, what the message says
    "fractions": ([0.5, 1.0], "positions.*float64"),
    "names": (["cell0"], "positions"),
    "two axes": ([[0, 1]], "2 axes"),
    "mask of two axes": (np.ones((12, 1), dtype=bool), "mask of 12 observations"),
    "short mask": (np.ones(11, dtype=bool), "mask of 12 observations, found 11"),
    "beyond": ([12], "below 12, found 12"),
    "none": ([], "at least one observation"),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_are_positions_or_a_mask(case, adata):
    rows, said = ROWS[case]
    with pytest.raises(InputError, match=said):
        prepare(adata, [RNA], rows=rows)


@pytest.mark.parametrize(
    ("covariates", "said"), [("batch", r"give \['batch'\]"), (["batch", "depth", "batch"], "every covariate once")]
)
def test_covariates_are_a_list_of_different_names(covariates, said, adata):
    with pytest.raises(InputError, match=said):
        prepare(adata, [RNA], covariates=covariates)


def test_a_layer_that_holds_no_counts_is_told_of_x_that_does(adata):
    adata.layers["log"] = np.log1p(adata.X.toarray())
    with pytest.raises(InputError, match="layer='X' holds counts"):
        prepare(adata, [RNA.model_copy(update={"layer": "log"})])
    assert len(prepare(adata, [RNA.model_copy(update={"layer": "X"})]).obs_names) == adata.n_obs


def test_a_mask_may_be_a_list():
    mask = [True, False, False, False]
    assert list(split(4, validation=mask)) == list(split(4, validation=np.array(mask)))


def test_many_strata_are_split_quickly():
    strata = np.random.default_rng(0).integers(0, 10_000, 100_000)
    started = time.perf_counter()
    roles = split(100_000, strata=strata)
    assert time.perf_counter() - started < 2
    assert (roles == Role.VALIDATION).sum() == 10_000
    assert len(np.unique(strata[roles == Role.TRAIN])) == len(np.unique(strata))
