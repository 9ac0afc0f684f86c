"""RNA and protein of the same cells."""

import mudata
import numpy as np
import pytest

from biovae.datasets import scenarios, simulate, simulate_multi
from biovae.errors import InputError


@pytest.fixture(scope="module")
def multi():
    return simulate_multi(scenarios.MESSY, cells=1000, genes=60, proteins=12, missing=(0.1, 0.3), seed=2)


def test_each_cell_has_rna_or_protein(multi):
    assert (multi["rna"].n_obs, multi["prot"].n_obs) == (900, 700)
    assert set(multi["rna"].obs_names) | set(multi["prot"].obs_names) == set(multi.obs_names)
    assert multi.n_obs == 1000
    assert multi.obs["cell_type"].notna().all()
    for part in multi.mod.values():
        assert (part.obs["cell_type"].astype(str) == multi.obs["cell_type"][part.obs_names].astype(str)).all()


def test_the_rna_is_that_of_the_simulator(multi):
    alone = simulate(scenarios.MESSY, cells=1000, genes=60, seed=2)
    assert (alone[multi["rna"].obs_names].X != multi["rna"].X).nnz == 0


def test_proteins_are_centred_and_scatter_around_their_mean(multi):
    prot = multi["prot"]
    np.testing.assert_allclose(prot.X.sum(1), 0, atol=1e-4)
    residual = prot.X - prot.layers["mean_true"]
    assert np.abs(residual.mean(0)).max() < 0.06
    assert residual.std() == pytest.approx(0.35 * np.sqrt(11 / 12), rel=0.03)
    level = prot.layers["mean_true"]
    types = prot.obs["cell_type"].to_numpy()
    between = np.stack([level[types == t].mean(0) for t in np.unique(types)]).std(0)
    assert np.median(between) > 0.35


def test_both_survive_a_file(multi, tmp_path):
    with mudata.set_options(pull_on_update=False):
        multi.write(tmp_path / "cells.h5mu")
        read = mudata.read_h5mu(tmp_path / "cells.h5mu")
    assert (read["rna"].X != multi["rna"].X).nnz == 0
    np.testing.assert_array_equal(read["prot"].X, multi["prot"].X)


@pytest.mark.parametrize("missing", [(-0.1, 0.0), (0.6, 0.6)])
def test_cells_without_anything_are_refused(missing):
    with pytest.raises(InputError, match="shares of missing cells"):
        simulate_multi(cells=10, genes=5, missing=missing)
