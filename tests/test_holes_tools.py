"""bv.tl.density, holes, plausibility and path on fitted models; the science of holes is slow."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import kstest

import biovae as bv
from biovae.analysis import switches
from biovae.datasets import Scenario, States, Technical, scenarios, simulate
from biovae.model.doubt import last_weights
from biovae.model.generate import Wanted
from biovae.tools import holes as module
from biovae.tools.latent import latent
from biovae.tools.path import _doubting, _metric


@pytest.fixture(scope="module")
def adata():
    states = States(types=3, unevenness=0.0)
    return simulate(Scenario(states=states, technical=Technical(batches=2)), cells=500, genes=120, seed=0)


@pytest.fixture(scope="module")
def vae(adata):
    model = bv.VAE(bv.rna(), covariates=["batch"], latent=4, hidden=32)
    return model.fit(adata, epochs=60, test=np.arange(500) % 5 == 0, progress=False)


def test_support_is_uniform_on_held_out_cells(vae, adata):
    held_out = np.arange(500) % 5 == 0
    one, two = held_out & (np.arange(500) % 2 == 0), held_out & (np.arange(500) % 2 == 1)
    q = bv.tl.density(vae, adata[~two], held_out=one[~two])
    assert len(q.reference) == one.sum()
    assert kstest(q.support(vae.embed(adata[two])), "uniform").statistic < 0.3  # 50 measured by 50: 5 % is at 0.27
    assert q.support(np.full((1, 4), 30.0))[0] == pytest.approx(1 / (1 + one.sum()))


def test_holes_lie_between_types_and_are_unsupported(vae, adata):
    found = bv.tl.holes(vae, adata, groups="cell_type")
    assert set(found.frame["one"]) | set(found.frame["other"]) == {"type 1", "type 2", "type 3"}
    assert (found.frame["lower"] <= found.frame["upper"]).all()
    assert (found.frame["depth"] > 3).all()
    assert {"doubt", "drift", "misfit", "plausibility_upper", "rise", "risers"} <= set(found.frame)
    assert (found.frame["plausibility"] < 0.2).all()
    assert found.z.shape == (len(found.frame), 4)
    again = bv.tl.holes(vae, adata, groups="cell_type")
    pd.testing.assert_frame_equal(found.frame, again.frame)
    assert bv.pl.png(bv.pl.holes(found).figure).startswith(b"\x89PNG")


def test_clusters_serve_where_no_groups_are_named(vae, adata):
    assert set(bv.tl.holes(vae, adata, draws=5).centres.index) >= {"0", "1", "2"}


def test_real_cells_are_plausible_and_a_far_point_is_not(vae, adata):
    real = bv.tl.plausibility(vae, adata, vae.embed(adata)[:100])
    assert 0.3 < real["plausibility"].mean() < 0.7
    assert (real["lower"] <= real["upper"]).all()
    far = bv.tl.plausibility(vae, adata, np.full((1, 4), 6.0)).iloc[0]
    assert far["support"] < 0.01
    assert far["p_doubt"] < 0.05
    assert far["plausibility"] < 0.01
    assert far["upper"] < 0.01
    plain = bv.tl.plausibility(vae, adata, np.full((1, 4), 6.0), draws=0)
    assert not {"doubt", "lower"} & set(plain)
    doubted = bv.tl.plausibility(vae, adata, vae.embed(adata)[:5], doubt=lambda z: np.abs(z).sum(1))
    assert {"doubt", "p_doubt"} <= set(doubted)


def test_large_data_are_judged_by_some_and_measured_by_the_held_out(vae, adata, monkeypatch):
    held_out, z = np.arange(500) % 5 == 0, vae.embed(adata)
    monkeypatch.setattr(module, "CELLS", 150)
    some = latent(vae, adata, held_out, most=150)
    assert (len(some.rows), len(some.observations), len(some.q.mean)) == (150, 150, 150)
    assert not held_out[some.rows].any()
    assert len(some.q.reference) == held_out.sum()
    np.testing.assert_allclose(vae.embed(adata, indices=some.rows), some.q.mean, atol=1e-5)
    found = bv.tl.plausibility(vae, adata, z[:40], held_out=held_out)
    np.testing.assert_allclose(found["support"], some.q.support(z[:40].astype(np.float64)), atol=1e-9)
    frame = bv.tl.holes(vae, adata, groups="cell_type", held_out=held_out, draws=5).frame
    assert frame[["misfit", "rise"]].notna().all(axis=None)


def test_limits_along_a_path_hold_the_doubt_about_weights(vae, adata, monkeypatch):
    ends = (vae.embed(adata)[0], vae.embed(adata)[1])
    both = bv.tl.path(vae, adata, *ends, direct=True, draws=20)
    monkeypatch.setattr("biovae.tools.path.last_weights", lambda *_: None)
    by_z = bv.tl.path(vae, adata, *ends, direct=True, draws=20)
    wide = [np.log(walk.upper / walk.lower).to_numpy().mean(0) for walk in (both, by_z)]
    assert (wide[0] > wide[1]).mean() > 0.95
    assert (both.expression == by_z.expression).all(axis=None)


def test_a_path_leads_from_one_type_to_the_other(vae, adata):
    walk = bv.tl.path(vae, adata, "type 1", "type 3", groups="cell_type", draws=10)
    mean = {t: vae.embed(adata)[(adata.obs["cell_type"] == t).to_numpy()].mean(0) for t in ("type 1", "type 3")}
    assert np.linalg.norm(walk.curve.z[0] - mean["type 1"]) < np.linalg.norm(walk.curve.z[0] - mean["type 3"])
    assert np.linalg.norm(walk.curve.z[-1] - mean["type 3"]) < np.linalg.norm(walk.curve.z[-1] - mean["type 1"])
    assert (walk.lower <= walk.upper).all(axis=None)
    assert list(walk.expression.columns) == list(vae.features())
    np.testing.assert_allclose(walk.expression.to_numpy(), vae.decode(walk.curve.z), rtol=1e-4, atol=1e-6)
    assert walk.switches["at"].is_monotonic_increasing
    assert "switch" in str(walk)
    line = bv.tl.path(vae, adata, walk.curve.z[0], walk.curve.z[-1], direct=True, draws=0)
    assert line.curve.length == pytest.approx(line.curve.straight, rel=1e-3)
    assert walk.curve.log_density.min() >= line.curve.log_density.min() - 1e-6
    cell = bv.tl.path(vae, adata, adata.obs_names[0], "type 1", groups="cell_type", draws=0)
    np.testing.assert_allclose(cell.curve.z[0], vae.embed(adata)[0], atol=1e-5)


@pytest.mark.parametrize("modality", [bv.rna(), bv.continuous(), bv.binary()], ids=lambda m: m.name)
def test_the_metric_is_differentiated_through_the_decoder(modality):
    x = np.random.default_rng(0).poisson(0.7, (200, 12)).astype(np.float32)
    data = ad.AnnData(x.clip(0, 1) if modality.name == "binary" else x)
    data.obs["batch"] = np.resize(["a", "b"], 200)
    vae = bv.VAE(modality, covariates=["batch"], latent=3, hidden=16).fit(data, epochs=2, progress=False)
    metric, size = _metric(latent(vae, data), None), np.full(3, 0.5)
    curve = np.linspace(-1, 1, 27).reshape(9, 3)
    energy, gradient = metric.energy(curve, size)
    again, expected = replace(metric, lift=None).energy(curve, size)
    assert energy == again
    np.testing.assert_allclose(gradient, expected, rtol=0.02, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("modality", [bv.rna(), bv.continuous()], ids=lambda m: m.name)
def test_a_geodesic_has_the_energy_expected_over_last_layers(modality):
    x = np.random.default_rng(0).poisson(0.7, (200, 12)).astype(np.float32)
    vae = bv.VAE(modality, latent=3, hidden=16).fit(ad.AnnData(x), epochs=2, progress=False)
    given, curve, size = latent(vae, ad.AnnData(x)), np.linspace(-0.9, 1, 27).reshape(9, 3), np.full(3, 0.5)
    plain, doubting = _metric(given, None), _doubting(given, None, 0)
    energy, gradient = doubting.energy(curve, size)
    weights = last_weights(vae.fitted, Wanted(0, None, 1e4, "average", 84), 0)  # 84 of 12 features are 1,000
    f = plain.f(curve)
    each = []
    for drawn in weights:
        with drawn.in_place():
            each.append(np.diff(plain.f(curve) - f, axis=0))
    square = (np.diff(f, axis=0) ** 2).sum(1) + np.mean([(step**2).sum(1) for step in each], axis=0)
    cost = plain.cost((curve[1:] + curve[:-1]) / 2)
    assert energy == pytest.approx(8 * (cost**2 @ square), rel=1e-4)
    assert energy > 1.01 * plain.energy(curve, size)[0]
    numeric = replace(doubting, f=lambda z: doubting.lift(z)[0], lift=None).energy(curve, size)[1]
    np.testing.assert_allclose(gradient, numeric, rtol=0.02, atol=0.01 * np.abs(numeric).max())
    assert doubting.along(curve) == pytest.approx(plain.along(curve))


def test_lengths_are_a_distance_between_types(vae, adata):
    found = bv.tl.path_lengths(vae, adata, "cell_type")
    table = found.frame.to_numpy()
    np.testing.assert_array_equal(table, table.T)
    assert (np.diag(table) == 0).all()
    assert (table[~np.eye(3, dtype=bool)] > 0).all()
    assert found.lower is None
    names = found.frame.index
    pairs = {table[a, b]: f"{names[a]} and {names[b]}, {table[a, b]:.3g}" for a in range(3) for b in range(a + 1, 3)}
    assert f"Nearest are {pairs[min(pairs)]}, farthest {pairs[max(pairs)]}. One fit: " in str(found)
    alone = adata.copy()
    alone.obs["same"] = "a"
    with pytest.raises(bv.InputError, match="at least two groups in 'same', found 'a' alone"):
        bv.tl.path_lengths(vae, alone, "same")


def test_lengths_of_an_ensemble_are_as_sure_as_its_fits_agree(adata):
    vae = bv.VAE(bv.rna(), latent=2, hidden=16).fit(adata, epochs=3, ensemble=2, progress=False)
    found = bv.tl.path_lengths(vae, adata, "cell_type", progress=False)
    each = np.array([bv.tl.path_lengths(m, adata, "cell_type", progress=False).frame for m in vae.members])[:, 0, 1]
    assert found.frame.iloc[0, 1] == pytest.approx(np.sqrt(each.prod()))
    half = stats.t.ppf(0.95, 1) * np.log(each).std(ddof=1) * np.sqrt(1 + 1 / 2)
    assert found.upper.iloc[0, 1] == pytest.approx(found.frame.iloc[0, 1] * np.exp(half))
    assert found.lower.iloc[1, 0] == pytest.approx(found.frame.iloc[1, 0] / np.exp(half))
    assert (np.diag(found.lower) == 0).all()
    assert "to" in str(found)
    assert "One fit" not in str(found)
    holes = bv.tl.holes(vae, adata, groups="cell_type", draws=5).frame
    every = [bv.tl.holes(m, adata, groups="cell_type", draws=5).frame for m in vae.members]
    first, second = (frame.set_index(["one", "other"])["depth"] for frame in every)
    both = pd.concat([first, second], axis=1, keys=["a", "b"]).loc[list(first.index)]
    found = holes.set_index(["one", "other"]).loc[list(first.index)]
    np.testing.assert_allclose(found["depth"], both.mean(axis=1))
    assert (found["fits"] == both.notna().sum(axis=1)).all()
    assert found["agree"].between(0.5, 1).all()


@pytest.fixture(scope="module", params=[0.0, 10.0], ids=["around 0", "above 0"])
def reals(request):
    """Two sides 1.9 standard deviations apart in the first four of eight features, and a model of them."""
    rng = np.random.default_rng(0)
    x = 0.3 * rng.standard_normal((200, 8))
    x[:, :4] += np.where(np.arange(200) < 100, -0.95, 0.95)[:, None] * [1, 1, -1, -1]
    side = pd.DataFrame({"side": ["a"] * 100 + ["b"] * 100}, index=[f"o{i}" for i in range(200)])
    data = ad.AnnData((x + request.param).astype(np.float32), obs=side)
    return bv.VAE(bv.continuous(), latent=2, hidden=16).fit(data, epochs=200, progress=False), data


def test_reals_are_plausible_where_they_are_and_not_between(reals):
    vae, data = reals
    hole = bv.tl.holes(vae, data, groups="side", draws=5).frame.iloc[0]
    assert hole["plausibility"] < 0.05
    assert "rise" not in hole
    real = bv.tl.plausibility(vae, data, vae.embed(data))
    assert "clash" not in real
    assert 0.3 < real["plausibility"].mean() < 0.7
    assert (real["lower"] <= real["upper"]).all()


def test_reals_switch_by_differences_whatever_their_sign(reals):
    vae, data = reals
    walk = bv.tl.path(vae, data, "a", "b", groups="side", draws=3)
    found = walk.switches.set_index("feature")
    assert found["direction"].to_dict() == {"0": "up", "1": "up", "2": "down", "3": "down"}
    moved = walk.expression[found.index]
    np.testing.assert_allclose(found["change"].abs(), moved.max() - moved.min(), rtol=1e-6)
    assert found["change"].abs().between(1.4, 2.4).all()  # 1.9 between the means of the sides
    assert "log2_change" not in found
    assert (found["lower"] <= found["upper"]).all()
    assert "4 features switch; in order" in str(walk)
    assert "2 down" in str(walk)


def test_a_difference_is_placed_where_it_is_half_done():
    steps = np.linspace(0, 1, 101)
    values = np.column_stack([2 * steps - 1, -3 * np.maximum(steps - 0.5, 0), 0.9 * steps])
    frame = switches(values, ["line", "late", "little"], additive=True)
    assert frame["feature"].tolist() == ["line", "late"]
    np.testing.assert_allclose(frame["at"], [0.5, 0.75], atol=1e-6)
    np.testing.assert_allclose(frame["change"], [2, -1.5])
    np.testing.assert_allclose(switches(values + 7, ["a", "b", "c"], additive=True)["at"], frame["at"])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda vae, a: bv.tl.holes(vae, a, groups="celltype"), "cell_type"),
        (lambda vae, a: bv.tl.density(vae, a, held_out=np.ones(500, bool)), "500 of 500"),
        (lambda vae, a: bv.tl.path(vae, a, "type 1", "type 9", groups="cell_type"), "did you mean"),
        (lambda vae, a: bv.tl.path(vae, a, "type 1", "type 2"), "name groups="),
        (lambda vae, a: bv.tl.path(vae, a, np.zeros(3), np.zeros(4)), "4 coordinates"),
        (lambda vae, a: bv.tl.density(bv.VAE(bv.rna()), a), "call fit"),
    ],
)
def test_errors_say_what_was_found(act, message, vae, adata):
    with pytest.raises(bv.InputError, match=message):
        act(vae, adata)


# a forbidden gap and an unsampled bridge


def auroc(bridge: np.ndarray, gap: np.ndarray) -> float:
    return float(np.mean((bridge[:, None] > gap) + 0.5 * (bridge[:, None] == gap)))


def interval(bridge: np.ndarray, gap: np.ndarray, draws: int = 2000) -> np.ndarray:
    """90 % bootstrap interval, whole simulations drawn."""
    rows = np.random.default_rng(0).integers(len(gap), size=(draws, len(gap)))
    return np.quantile([auroc(bridge[r], gap[r]) for r in rows], (0.05, 0.95))


def gap_and_bridge(seed: int) -> pd.DataFrame:
    """The passes of one simulation; every second map is mirrored, so that place tells nothing."""
    states = {"unevenness": 0.0, "mirrored": bool(seed % 2)}
    adata = simulate(scenarios.GAP_AND_BRIDGE.but(states=states), cells=1250, genes=500, seed=seed)
    vae = bv.VAE(bv.rna(), covariates=["batch"], latent=8).fit(adata, seed=seed, progress=False)
    frame = bv.tl.holes(vae, adata, groups="cell_type", draws=50).frame
    frame.index = ["-".join(sorted(name[-1] for name in pair)) for pair in frame[["one", "other"]].to_numpy()]
    return frame


@pytest.mark.slow
def test_an_unsampled_bridge_is_told_from_a_forbidden_gap():
    frames = [gap_and_bridge(seed) for seed in range(200, 220)]
    table = {
        part: [np.array([f.loc[name, part] for f in frames]) for name in ("3-4", "1-2")]
        for part in ("rise", "coherence", "plausibility", "support", "misfit", "drift")
    }
    for part, values in table.items():
        print(f"AUROC of {part}: {auroc(*values):.3f}, 90 % {interval(*values)}")
    assert auroc(*table["rise"]) > 0.85
