"""Archetypes against mixtures whose corners and shares are known, and on a fitted model."""

import itertools

import anndata as ad
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import biovae as bv
from biovae.analysis import archetypes, found_again
from biovae.analysis.axes.archetypes import _simplex, shares
from biovae.datasets import Scenario, States, simulate
from biovae.errors import InputError


def mixtures(noise=0.0, obs=600, corners=4, latent=6, seed=0):
    rng = np.random.default_rng(seed)
    places = 3 * rng.standard_normal((corners, latent))
    weights = rng.dirichlet(np.full(corners, 0.4), obs)
    return weights @ places + noise * rng.standard_normal((obs, latent)), weights, places


def matched(found, places):
    """The archetype nearest to each corner."""
    return np.linalg.norm(places[:, None] - found.positions, axis=-1).argmin(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_corners_and_shares_of_pure_mixtures_are_found(seed):
    z, weights, places = mixtures(seed=seed)
    found = archetypes(z, 4, seed=seed, neighbours=1)
    own = matched(found, places)
    assert len(set(own)) == 4
    np.testing.assert_allclose(found.positions[own], places, atol=0.4)
    np.testing.assert_allclose(found.weights[:, own], weights, atol=0.08)
    assert found.explained > 0.999
    assert (np.diff(found.weights.mean(0)) <= 0).all()
    np.testing.assert_allclose(z[found.nearest][own], places, atol=0.5)


def test_a_triangle_has_its_vertices_as_corners():
    vertices = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]])
    inner = np.random.default_rng(0).dirichlet(np.ones(3), 200) @ vertices
    found = archetypes(np.concatenate([inner, vertices]), 3, neighbours=1)
    np.testing.assert_allclose(found.positions[matched(found, vertices)], vertices, atol=0.02)


def test_a_lone_outlier_is_no_corner():
    z, weights, places = mixtures(noise=0.1)
    z[0] = 40.0
    found = archetypes(z, 4)
    own = matched(found, places)
    assert len(set(own)) == 4
    for corner, mine in enumerate(own):
        assert np.corrcoef(weights[1:, corner], found.weights[1:, mine])[0, 1] ** 2 > 0.95
    alone = archetypes(z, 4, neighbours=1)
    assert np.linalg.norm(alone.positions - 40.0, axis=1).min() < 10


def test_who_is_hardly_known_takes_no_corner():
    """A tenth lies far out, thirty times less sure than the others."""
    z, true = mixtures(noise=0.1, corners=3, seed=1)[:2]
    rng = np.random.default_rng(0)
    far, variance = rng.random(len(z)) < 0.1, np.full(z.shape, 0.1)
    z[far] += 12 * np.eye(z.shape[1])[0] + 3 * rng.standard_normal((far.sum(), z.shape[1]))
    variance[far] = 30.0

    def weakest(found):
        r = np.corrcoef(found.weights[~far].T, true[~far].T)[:3, 3:]
        return r[linear_sum_assignment(-r)].min()

    assert weakest(archetypes(z, 3)) < 0.5
    assert weakest(archetypes(z, 3, variance=variance)) > 0.9
    alike = archetypes(z, 3, variance=np.full(z.shape, 7.0))
    np.testing.assert_allclose(alike.weights, archetypes(z, 3).weights, atol=1e-6)
    with pytest.raises(InputError, match="variance above 0"):
        archetypes(z, 3, variance=-variance)


def test_shares_are_those_of_the_nearest_mixture():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    outside = np.array([[2.0, 2.0], [0.2, 0.3], [-1.0, -5.0]])
    np.testing.assert_allclose(shares(outside, corners), [[0, 0.5, 0.5], [0.5, 0.2, 0.3], [1, 0, 0]], atol=1e-6)


def test_the_simplex_is_the_nearest_one():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(50, 5))
    near = _simplex(v)
    np.testing.assert_allclose(near.sum(1), 1)
    assert (near >= 0).all()
    others = rng.dirichlet(np.ones(5), (50, 400))
    assert (np.linalg.norm(v[:, None] - others, axis=-1).min(1) >= np.linalg.norm(v - near, axis=1)).all()


def test_turning_and_stretching_the_space_changes_no_share():
    z, *_ = mixtures(noise=0.1)
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))
    one, other = archetypes(z, 4), archetypes(5 * z @ turn + 7, 4)
    np.testing.assert_allclose(one.weights, other.weights, atol=0.02)


def test_the_doubt_grows_with_the_noise_of_the_draws():
    z, *_ = mixtures()
    rng = np.random.default_rng(0)
    little, much = (
        archetypes(z, 4, [z + s * rng.standard_normal(z.shape) for _ in range(4)]).deviation.mean() for s in (0.02, 0.5)
    )
    assert 0 < little < 0.2 * much
    assert np.isnan(archetypes(z, 4).deviation).all()


def test_corners_that_explain_little_are_called_extremes():
    z = np.random.default_rng(0).standard_normal((300, 10))
    assert "extremes rather than pure states" in str(archetypes(z, 3))
    assert "extremes" not in str(archetypes(mixtures()[0], 4))


@pytest.mark.parametrize("count", [1, 600])
def test_nonsense_is_refused(count):
    with pytest.raises(InputError, match=f"found {count}"):
        archetypes(mixtures()[0], count)


def test_archetypes_of_a_model_say_what_they_are():
    cells = simulate(Scenario(states=States(types=3, unevenness=0.0)), cells=300, genes=80, seed=0)
    vae = bv.VAE(bv.rna(), latent=3, hidden=32).fit(cells, epochs=30, progress=False)
    found = bv.tl.archetypes(vae, cells, 3, groups="cell_type", draws=2, progress=False)
    np.testing.assert_allclose(found.groups.sum(1), 1)
    assert (found.groups.max(1) > 0.6).all()
    assert found.groups.idxmax(1).nunique() == 3
    np.testing.assert_allclose(found.profiles, vae.decode(found.found.positions), rtol=1e-4)
    first = found.markers[found.markers["archetype"] == "archetype 1"].iloc[0]
    assert first["value"] == pytest.approx(found.profiles.loc["archetype 1", first["feature"]])
    assert first["log2_fold_change"] > 0
    assert "most in type" in str(found)
    assert len(bv.tl.archetypes(vae, cells, 2, draws=0, progress=False).groups) >= 2


def test_every_group_has_a_prototype_of_its_own():
    cells = simulate(Scenario(states=States(types=3, unevenness=0.0)), cells=300, genes=80, seed=0)
    vae = bv.VAE(bv.rna(), latent=3, hidden=32).fit(cells, epochs=30, progress=False)
    found = bv.tl.prototype(vae, cells, groups="cell_type")
    middle = vae.embed(cells)[(cells.obs["cell_type"] == "type 2").to_numpy()].mean(0)
    np.testing.assert_allclose(found.centres.loc["type 2"], vae.decode(middle[None])[0], rtol=1e-4)
    assert bv.tl.prototype(vae, cells).centres is None


def test_an_archetype_is_known_again_in_whatever_place_and_noise_is_not():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 500)
    other = weights[:, [2, 0, 3, 1]] + 0.01 * rng.standard_normal((500, 4))
    assert (found_again(weights, other) > 0.99).all()
    other[:, 0] = rng.random(500)  # that which was the third
    assert np.flatnonzero(found_again(weights, other) < 0.5).tolist() == [2]
    assert (found_again(weights, np.full((500, 4), 0.25)) == 0).all()


def test_archetypes_of_an_ensemble_say_whether_other_fits_find_them():
    cells = simulate(Scenario(states=States(types=3, unevenness=0.0)), cells=300, genes=80, seed=0)
    vae = bv.VAE(bv.rna(), latent=2, hidden=32).fit(cells, epochs=30, ensemble=2, progress=False)
    found = bv.tl.archetypes(vae, cells, 3, draws=0, progress=False)
    first, second = (bv.tl.archetypes(fit, cells, 3, draws=0, progress=False).found.weights for fit in vae.members)
    r = np.corrcoef(first.T, second.T)[:3, 3:]
    best = max(itertools.permutations(range(3)), key=lambda order: sum(r[k, order[k]] for k in range(3)))
    np.testing.assert_allclose(found.again.to_numpy()[0], [r[k, best[k]] for k in range(3)], atol=1e-6)
    lines = str(found).splitlines()[1:]
    lost = ["NOT FOUND AGAIN" in line for line in lines]
    assert lost == (found.again.to_numpy()[0] < 0.8).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_archetypes_of_mixed_rna_are_the_cell_lines(real, seed):
    adata = ad.read_h5ad(real("cellbench_rnamix_celseq2.h5ad"))
    vae = bv.VAE(bv.rna()).fit(adata, seed=seed, progress=False)
    found = bv.tl.archetypes(vae, adata, 3, draws=0, seed=seed, progress=False).found
    share = adata.obs[["H2228_prop", "H1975_prop", "HCC827_prop"]].to_numpy(float)
    r = np.corrcoef(np.column_stack([found.weights, share]).T)[:3, 3:]
    one, line = linear_sum_assignment(-r)
    assert (r[one, line] > 0).all()
    assert (r[one, line] ** 2).min() > 0.75
    assert (r[one, line] ** 2).mean() > 0.85
