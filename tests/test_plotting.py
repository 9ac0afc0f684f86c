"""Pictures: every one has axes with names and units, tells the truth about what it draws, and leaves pyplot alone."""

import re
import subprocess
import sys
import types
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from biovae import plotting as pl
from biovae.analysis import (
    Anomalies,
    Dimensions,
    Shift,
    Traversal,
    choose,
    density,
    holes,
    recommend,
    stability,
    switches,
    trajectory,
    trends,
)
from biovae.diagnostics import Verdict
from biovae.errors import InputError
from biovae.plotting.canvas import plain
from biovae.plotting.colors import categories, is_categorical
from biovae.plotting.coordinates import pca2d
from biovae.plotting.history import best_epoch
from biovae.plotting.latent import point_size
from biovae.plotting.palettes import LONGEST, MISSING, OKABE_ITO, OTHER, VISIONS, palette, separation
from biovae.tools.predictive import PredictiveChecks

RNG = np.random.default_rng(0)
XY = RNG.normal(size=(300, 2))
PIT = RNG.random(500)
SHARES = pd.DataFrame([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]], ["B cell", "T cell"], ["a 1", "a 2", "a 3"])
MEAN = RNG.lognormal(-2, 1.5, size=60)


def run_history(epochs=20):
    epoch = np.arange(1, epochs + 1)
    bound = -700 - 500 * np.exp(-epoch.astype(float))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "beta": np.minimum(epoch / 5, 1.0),
            "learning_rate": 1e-3,
            "train_elbo": bound + 5,
            "validation_elbo": bound,
        }
    )


def prototype_frame(mean=MEAN):
    prototype = mean * np.exp(np.linspace(-1, 1, len(mean)))
    names = [f"gene{i}" for i in range(len(mean))]
    change = np.log2(np.abs(prototype / mean))
    return pd.DataFrame({"feature": names, "prototype": prototype, "mean": mean, "log2_fold_change": change})


def differential_frame(size=60):
    change = np.linspace(-3, 3, size)
    probability = np.clip(np.abs(change) / 2, 0, 1 - 1e-9)
    names = [f"gene{i}" for i in range(size)]
    return pd.DataFrame(
        {
            "group": "stim", "reference": "ctrl", "feature": names, "log2_fold_change": change, "lower": change - 0.3,
            "upper": change + 0.3, "probability": probability, "expected_fdr": (1 - probability) / 2,
        }
    )  # fmt: skip


TYPES = pd.Series(np.resize(["a", "b", "c"], 300), name="type")
DEPTH = pd.Series(RNG.lognormal(7, 1, 300), name="depth")
AGAINST = pd.DataFrame({"measure": ["reconstruction"], "pca": [-720.0], "vae": [-690.0], "unit": ["nats"]})


def dimensions_found(active=(True, True, False)):
    rng = np.random.default_rng(1)
    frames = [
        pd.DataFrame(
            {
                "dimension": d,
                "feature": [f"gene{i}" for i in range(60)],
                "score": rng.normal(size=60),
                "sign": 1,
                "nearest": np.nan,
            }
        )
        for d in range(3)
    ]
    columns = pd.DataFrame({"dimension": [0, 1, 2] * 2, "column": np.repeat(["type", "age"], 3), "strength": 0.3})
    summary = pd.DataFrame({"spread": [0.8, 1.1, 0.0], "active": active})
    mean = rng.lognormal(size=(3, 5, 60))
    walk = Traversal(np.tile(np.arange(5.0), (3, 1)), mean, mean / 2, mean * 2, tuple(frames[0]["feature"]))
    return Dimensions(summary, pd.concat(frames, ignore_index=True), columns, walk)


def sweep_found(**more):
    columns = {
        "method": "VAE", "beta": [0.0, 1.0, 4.0], "seed": 0, "rate": [20.0, 9.0, 3.0],
        "distortion": [700.0, 705.0, 716.0], "score": [-710.0, -706.0, -712.0], "gain": [10.0, 14.0, 8.0],
        "active": [5, 4, 2], "reconstruction": 0.3,
    }  # fmt: skip
    linear = pd.DataFrame({"method": ["PCA", "ICA"], "reconstruction": 0.28, "accuracy": 0.8, "mig": [0.1, 0.2]})
    return recommend(pd.concat([pd.DataFrame(columns | more), linear], ignore_index=True), "score")


def choice():
    """The best, one that is as good, one far behind, and a floor."""
    rng = np.random.default_rng(2)
    drawn = {name: shift + rng.normal(size=100) for name, shift in {"nb": -350, "small": -350, "poisson": -402}.items()}
    about = pd.DataFrame({"latent": 5, "parameters": [90.0, 50, 80], "pit": 0.02, "seconds": 3.0}, index=[*drawn])
    scores = pd.DataFrame(drawn)
    return choose([scores], about, pd.DataFrame({"PCA": scores["nb"] - 500 + rng.normal(size=100)}))


FOUND = trajectory(XY, 0)
TRENDS = trends(XY, ["gene0", "gene1"], FOUND)


def found_holes():
    """Three passes: one deep and unsupported, with a way around; one shallow."""
    mean = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]]).repeat(60, axis=0) + 0.4 * np.resize(XY, (180, 2))
    return holes(density(mean, np.full(mean.shape, 0.25)), np.repeat(["B cell", "monocyte", "T cell"], 60), draws=20)


def found_anomalies(tried=True):
    """300 observations, of which 15 are odd in one way or another."""
    rng = np.random.default_rng(2)
    p = rng.random((300, 5))
    p[:15] = [1e-4, 0.5, 0.5, 0.5, 0.5]
    p[5:10] = [0.5, 0.5, 0.5, 1e-4, 0.5]
    frame = pd.DataFrame(p, columns=["p_surprise", "p_misfit", "p_depth", "p_support", "p_doublet"])
    for kind in ("surprise", "misfit", "depth", "support", "doublet"):
        frame[f"fdr_{kind}"] = np.minimum(1, 10 * frame[f"p_{kind}"])
    frame["fdr"], frame["rarity"] = 0.5, rng.normal(size=300)
    frame["surprise"], frame["doublet"] = rng.normal(size=300), rng.normal(-2, 1, size=300)
    trials = pd.DataFrame(
        {
            "score": ["doublet", "neighbours on components", "total counts"], "heterotypic": [0.97, 0.92, 0.85],
            "homotypic": [0.8, 0.7, 0.84], "simple": [False, True, True],
        }
    )  # fmt: skip
    return Anomalies(
        frame, ("surprise", "misfit", "depth", "support", "doublet"), False, trials if tried else pd.DataFrame()
    )


def found_shift(counts=True):
    """Six features of 60 differ for reasons of their own."""
    rng = np.random.default_rng(4)
    change = np.where(np.arange(60) < 6, 2.0, rng.normal(0, 0.5, 60))
    unexplained = np.where(np.arange(60) < 6, 1.8, 0.0)
    features = pd.DataFrame({"feature": [f"gene{i}" for i in range(60)], "unexplained": unexplained})
    features["log2_fold_change"], features["z_score"] = change if counts else np.nan, 3 * unexplained
    features["fdr"] = np.where(np.arange(60) < 6, 0.01, 0.8)
    each = pd.DataFrame({"newness": 0.5, "p_support": rng.random(100), "p_surprise": rng.random(100) ** 3})
    return Shift(pd.DataFrame(), 0.01, 0.1, 0.2, each, features)


def found_checks(counts=True):
    rng = np.random.default_rng(3)
    features = pd.DataFrame({"mean": MEAN, "coverage_50": 0.5, "coverage_90": rng.uniform(0.8, 1, 60), "p_value": 0.5})
    features["zeros"] = features["zeros_expected"] = np.exp(-MEAN) if counts else np.nan
    detected = rng.integers(200, 900, 80)
    columns = {"detected": detected, "detected_expected": detected + 5, "detected_lower": detected - 40}
    seen = pd.DataFrame(columns | {"detected_upper": detected + 60}) if counts else pd.DataFrame(index=range(80))
    correlation = np.corrcoef(rng.normal(size=(60, 100)))
    names = pd.Index([f"gene{i}" for i in range(60)])
    return PredictiveChecks(Verdict(()), features, seen, pd.DataFrame(), names, correlation, 0.5 * correlation, 5, True)


def imputation_frame():
    error = np.array([1.0, 1.05, 1.2, 1.4, 300.0, 290.0, 304.0, 340.0])
    methods = ["VAE", "PCA", "diffusion", "gene means"]
    own = np.repeat([1.0, 300.0], 4)
    return pd.DataFrame(
        {
            "question": np.repeat(["masking", "thinning"], 4), "method": methods * 2, "error": error,
            "behind": error - own, "behind_se": 0.01 * own * (error != own),
        }
    )  # fmt: skip


def counterfactual_frame(observed=True):
    source = np.random.default_rng(2).gamma(1, 0.5, 60)
    predicted = source + np.where(np.arange(60) < 15, 1.0, 0.0)
    frame = {
        "feature": [f"gene{i}" for i in range(60)], "source": source, "prediction": predicted,
        "lower": predicted - 0.2, "upper": predicted + 0.2, "additive": source + 0.5 * (predicted - source),
    }  # fmt: skip
    return pd.DataFrame(frame | ({"observed": predicted + 0.1} if observed else {}))


STEP = np.linspace(0, 1, 31)
ALONG = pd.DataFrame({f"gene{i}": 1 / (1 + np.exp(30 * (i / 8 - STEP))) for i in range(9)}, index=STEP)
WALK = (ALONG, switches(ALONG.to_numpy(), list(ALONG)), np.exp(-4 * np.sin(np.pi * STEP)))

MAPS = [XY + [[4 * (i % 2), 0] for i in range(300)], RNG.normal(size=(300, 2))]
STABLE = stability([MAPS[0], MAPS[0], MAPS[1]], groups=np.resize(["a", "b", "c"], 300), references={"noise": MAPS})

CASES = {  # name -> (picture, unit on x, unit on y)
    "history": (lambda ax: pl.history(run_history(), null=-720.0, ax=ax), "passes", "nats per observation"),
    "categories": (lambda ax: pl.points(XY, TYPES, ax=ax), "arbitrary units", "arbitrary units"),
    "numbers": (lambda ax: pl.points(XY, DEPTH, kind="PCA of z", ax=ax), "latent units", "latent units"),
    "no colour": (lambda ax: pl.points(XY, ax=ax), "arbitrary units", "arbitrary units"),
    "kl": (lambda ax: pl.kl(np.array([2.0, 0.0]), np.array([True, False]), ax=ax), "dimension", "nats"),
    "pit": (lambda ax: pl.pit(PIT, ax=ax), "probability", "density"),
    "zeros": (lambda ax: pl.zero_fraction(np.exp(-MEAN), np.exp(-MEAN), ax=ax), "fraction", "fraction"),
    "moments": (lambda ax: pl.mean_variance(MEAN, MEAN, 2 * MEAN, ax=ax), "counts", "counts²"),
    "prototype": (lambda ax: pl.prototype(prototype_frame(), ax=ax), "counts", "counts"),
    "archetypes": (lambda ax: pl.archetypes(SHARES, ax=ax), "fraction", "group"),
    "dimensions": (lambda ax: pl.dimensions(dimensions_found(), ax=ax), "feature", "latent dimension"),
    "traversal": (lambda ax: pl.traversal(dimensions_found(), 1, ax=ax), "latent units", "counts per 10,000"),
    "sweep": (lambda ax: pl.sweep(sweep_found(), ax=ax), "nats per observation", "nats per observation"),
    "differential": (lambda ax: pl.differential(differential_frame(), ax=ax), "log2 fold change", "probability"),
    "comparison": (lambda ax: pl.comparison(AGAINST, ax=ax), "unit", "measure"),
    "trajectory": (lambda ax: pl.trajectory(XY, FOUND, ax=ax), "arbitrary units", "arbitrary units"),
    "trends": (lambda ax: pl.trends(TRENDS, unit="counts", ax=ax), "pseudotime", "counts"),
    "holes": (lambda ax: pl.holes(found_holes(), ax=ax), "nats", "pass"),
    "anomalies": (lambda ax: pl.anomalies(found_anomalies(), ax=ax), "p-value", "density"),
    "shift": (lambda ax: pl.shift(found_shift(), ax=ax), "p-value", "density"),
    "shift of reals": (lambda ax: pl.shift(found_shift(counts=False), ax=ax), "p-value", "density"),
    "predictive checks": (lambda ax: pl.predictive_checks(found_checks(), ax=ax), "unit", "unit"),
    "path": (lambda ax: pl.path(*WALK, ax=ax), "share of its length", "feature"),
    "imputation": (lambda ax: pl.imputation(imputation_frame(), ax=ax), "% of it", "method"),
    "counterfactual": (lambda ax: pl.counterfactual(counterfactual_frame(), ax=ax), "observed", "counts per 10,000"),
    "compare": (lambda ax: pl.compare(choice(), ax=ax), "nats per observation", "candidate"),
    "stability": (lambda ax: pl.stability(STABLE.groups, ax=ax), "share", "group"),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def legend(ax):
    found = ax.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


# every picture


def test_axes_carry_names_and_units(case):
    draw, x, y = case
    ax = draw(None)
    assert isinstance(ax, Axes)
    lowest = ax.figure.axes[-1] if x == "passes" else ax
    assert x in lowest.get_xlabel()
    assert y in ax.get_ylabel()


def test_no_word_runs_over_the_edge(case):
    draw, *_ = case
    figure = draw(None).figure
    figure.canvas.draw()
    page, renderer = figure.bbox, figure.canvas.get_renderer()
    ticks = {tick for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis) for tick in axis.findobj(Text)}
    unseen = {text for ax in figure.findobj(Axes) if not ax.axison for text in (ax.xaxis.label, ax.yaxis.label)}
    words = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in ticks | unseen]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in words}
    cut = {word: box for word, box in boxes.items() if box.x1 > page.x1 + 1 or box.x0 < -1}
    assert not cut


def test_given_axes_are_drawn_on(case):
    draw, *_ = case
    ax = Figure().add_subplot()
    assert draw(ax) is ax
    assert ax.has_data() or ax.child_axes


def test_pyplot_and_settings_are_left_alone(case):
    before = dict(matplotlib.rcParams)
    figure = case[0](None).figure
    assert pl.png(figure).startswith(b"\x89PNG")
    pl.svg(figure, prefix="p", label="a picture")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_svg_belongs_to_the_page(case):
    text = pl.svg(case[0](None).figure, prefix="fig7", label='a "quoted" <label>')
    assert text.startswith("<svg")
    assert "http" not in text
    assert "xlink" not in text
    assert "currentColor" in text
    assert all(name.startswith("fig7-") for name in re.findall(r'\sid="([^"]*)"', text))
    defined = set(re.findall(r'\sid="([^"]*)"', text))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]*)', text)) <= defined
    assert "<label>" not in text


def test_same_input_gives_the_same_bytes(case):
    def make():
        return pl.svg(case[0](None).figure, prefix="p", label="x")

    assert make() == make()


def test_import_brings_no_matplotlib():
    code = "import sys, biovae.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# the latent map


def test_legend_counts_every_category_and_the_missing():
    column = TYPES.where(np.arange(300) >= 30)
    ax = pl.points(XY, column)
    sizes = column.value_counts()
    assert legend(ax) == [f"{name} ({sizes[name]})" for name in "abc"] + ["missing (30)"]
    colors = ax.collections[0].get_facecolors()
    grey = matplotlib.colors.to_rgba(MISSING)
    assert np.isclose(colors, grey).all(axis=1).sum() == 30


def test_missing_numbers_are_grey_and_listed():
    ax = pl.points(XY, DEPTH.where(DEPTH.index >= 40))
    assert legend(ax) == ["missing (40)"]
    assert sum(len(c.get_offsets()) for c in ax.collections) == 300


def test_more_categories_than_colours_share_one():
    sizes = np.arange(1, 46)
    column = pd.Series(np.repeat([f"t{i}" for i in range(45)], sizes), name="type")
    groups = categories(column)
    assert len(groups.names) == LONGEST
    assert groups.names[-1] == "other (16 categories)"
    assert groups.colors[-1] == OTHER
    assert groups.names[:2] == ("t16", "t17")  # the largest stay, in their own order
    assert sum(groups.sizes) == len(column)
    assert groups.sizes[-1] == sizes[:16].sum()


def test_every_point_keeps_its_colour_in_a_shuffled_order():
    ax = pl.points(XY, TYPES, seed=3)
    at = {tuple(xy): i for i, xy in enumerate(XY)}
    drawn = [at[tuple(xy)] for xy in np.asarray(ax.collections[0].get_offsets())]
    assert sorted(drawn) == list(range(300))
    assert drawn != sorted(drawn)
    expected = np.array([matplotlib.colors.to_rgba(OKABE_ITO["abc".index(TYPES[i])]) for i in drawn])
    np.testing.assert_allclose(ax.collections[0].get_facecolors(), expected)


def test_many_points_are_small_and_rasterised():
    assert point_size(100) > point_size(5_000) > point_size(50_000) > 0
    few, many = pl.points(XY), pl.points(RNG.normal(size=(2_001, 2)))
    assert not few.collections[0].get_rasterized()
    assert many.collections[0].get_rasterized()


def test_legend_does_not_cover_the_points():
    ax = pl.points(XY, pd.Series([f"a rather long name {i % 30}" for i in range(300)], name="type"))
    ax.figure.draw_without_rendering()
    beside, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert beside.x0 >= inside.x1
    assert beside.x1 <= ax.figure.bbox.x1 + 1


def test_lengths_must_agree():
    with pytest.raises(InputError, match="found 299 colours for 300 points"):
        pl.points(XY, TYPES[:-1])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(["a", "b"]), True),
        (pd.Series([True, False]), True),
        (pd.Series([0, 1, 1]), True),
        (pd.Series(np.arange(100)), False),
        (pd.Series([0.5, 1.5]), False),
        (pd.Series([0, 1], dtype="category"), True),
    ],
)
def test_which_columns_are_categories(column, expected):
    assert is_categorical(column) is expected


def test_numbers_in_names_sort_as_numbers():
    assert categories(pd.Series(["c10", "c9", "c1"])).names == ("c1", "c9", "c10")
    ordered = pd.Categorical(["low", "high"], categories=["low", "high", "unused"])
    assert categories(pd.Series(ordered)).names == ("low", "high")


@settings(max_examples=15)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_any_text_can_be_a_category(names):
    ax = pl.points(XY[: len(names)], pd.Series(names, name=names[0], dtype=object), annotate=True)
    assert "\x00" not in pl.svg(ax.figure, prefix="p", label=names[0])


@pytest.mark.parametrize("name", ["$\\frac{$", "_private", "<script>alert(1)</script>", "細胞", "a\nb", ""])
def test_awkward_names_are_drawn_as_they_are(name):
    ax = pl.points(XY, pd.Series([name] * 300, name=name), annotate=True)
    assert len(legend(ax)) == 1
    assert "<script>" not in pl.svg(ax.figure, prefix="p", label=name)
    assert plain(name).replace("\\$", "$") in (name, name.replace("\n", " "))


class Model:
    """Embeds by counting its calls."""

    calls = 0

    def embed(self, adata):
        self.calls += 1
        return np.column_stack([XY, XY[:, :1]])[: adata.n_obs]


def small_adata():
    import anndata as ad

    obs = pd.DataFrame({"type": TYPES.to_numpy()}, index=[f"cell{i}" for i in range(300)])
    return ad.AnnData(np.abs(XY).astype(np.float32), obs=obs, var=pd.DataFrame(index=["CD3D", "LYZ"]))


def test_latent_of_a_model_and_an_anndata(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # an import of it fails
    vae, adata = Model(), small_adata()
    assert len(legend(pl.latent(vae, adata, color="type"))) == 3
    assert pl.latent(vae, adata, color="LYZ").get_title(loc="left") == "LYZ"
    assert vae.calls == 2
    adata.obsm["X_vae"] = XY
    pl.latent(vae, adata)
    assert vae.calls == 2
    with pytest.raises(InputError, match="did you mean 'type'"):
        pl.latent(vae, adata, color="typ")


# coordinates


def test_pca_keeps_the_largest_variances():
    z = RNG.normal(size=(200, 4)) * [1, 5, 3, 0.1]
    scores = pca2d(z)
    expected = np.linalg.eigvalsh(np.cov(z.T))[::-1][:2]
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (49, 3), (60, 2), (60, 1)])
def test_small_or_flat_embeddings_fall_to_pca(shape):
    xy, kind = pl.map2d(RNG.normal(size=shape))
    assert xy.shape == (shape[0], 2)
    assert kind == "PCA of z"
    assert np.isfinite(xy).all()


def test_umap_is_used_where_it_is_installed(monkeypatch):
    class Umap:
        def __init__(self, **how):
            self.how = how

        def fit_transform(self, z):
            assert self.how["n_jobs"] == 1
            return np.full((len(z), 2), float(self.how["random_state"]))

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    z = RNG.normal(size=(60, 5))
    first, kind = pl.map2d(z, 1)
    assert kind == "UMAP"
    assert (first == pl.map2d(z, 1)[0]).all()
    assert (first != pl.map2d(z, 2)[0]).all()
    monkeypatch.setitem(sys.modules, "umap", None)  # an import of it fails
    assert pl.map2d(z)[1] == "PCA of z"


def test_bad_embeddings_are_refused():
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        pl.map2d(np.zeros(3))
    with pytest.raises(InputError, match="in 2 of 5 observations"):
        pl.map2d(np.where(np.arange(5)[:, None] < 2, np.nan, np.zeros((5, 3))))


# colours


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("size", "least"), [(7, 15), (12, 14), (20, 11), (30, 8)])
def test_colours_stay_apart_for_every_vision(vision, size, least):
    assert separation(palette(size), vision) > least


def test_palettes_extend_each_other():
    assert palette(7) == OKABE_ITO
    assert all(palette(LONGEST)[:size] == palette(size) for size in range(LONGEST + 1))
    assert len(set(palette(LONGEST))) == LONGEST


# training curves


def test_best_epoch_waits_for_the_whole_objective():
    table = run_history()
    table.loc[1, "validation_elbo"] = 0.0  # while beta was small: not eligible
    table.loc[12, "validation_elbo"] = -600.0
    assert best_epoch(table) == 13
    assert best_epoch(table.assign(validation_elbo=np.nan)) is None


def test_history_draws_both_bounds_null_and_schedules():
    ax = pl.history(run_history(), null=-720.0)
    assert legend(ax) == ["training", "validation", "null: the same likelihood without z"]
    assert [a.get_ylabel() for a in ax.figure.axes[1:]] == ["beta", "rate"]
    assert any("best: epoch 20" in text.get_text() for text in ax.texts)
    low, high = ax.get_ylim()
    assert low < -720 < high  # the null is in sight, the first epochs need not be
    assert any("began at −884" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_histories_are_drawn(epochs):
    assert pl.png(pl.history(run_history(epochs)).figure).startswith(b"\x89PNG")


def test_imputation_tells_better_from_worse_and_level():
    ax = pl.imputation(imputation_frame())
    assert legend(ax) == ["the model", "worse", "better", "level"]
    points = {c.get_label(): len(c.get_offsets()) for c in ax.collections if c.get_label() in legend(ax)}
    assert points == {"the model": 2, "worse": 4, "better": 1, "level": 1}
    with pytest.raises(InputError, match="behind_se"):
        pl.imputation(imputation_frame().drop(columns="behind_se"))


def test_a_counterfactual_names_what_changes_most_and_shows_the_baseline():
    ax = pl.counterfactual(counterfactual_frame(), label=15)
    named = {text.get_text() for text in ax.texts}
    assert named
    assert named <= {f"gene{i}" for i in range(15)}
    assert "additive" in legend(ax)
    assert "before" in pl.counterfactual(counterfactual_frame(observed=False)).get_xlabel()
    with pytest.raises(InputError, match="additive"):
        pl.counterfactual(counterfactual_frame().drop(columns="additive"))


def test_history_without_its_columns_is_refused():
    with pytest.raises(InputError, match="validation_elbo"):
        pl.history(run_history().drop(columns="validation_elbo"))
    with pytest.raises(InputError, match="0 rows"):
        pl.history(run_history(0))


# the rest


def test_kl_is_sorted_and_unused_dimensions_are_marked():
    ax = pl.kl(np.array([1.0, 3.0, 0.01]), np.array([True, True, False]))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "0", "2"]
    assert legend(ax) == ["active (2)", "unused (1)"]
    assert [bar.get_hatch() for bar in ax.patches] == [None, None, "////"]


def test_pit_shows_uniform_and_a_tolerance_that_grows_for_few_values():
    few, many = (legend(pl.pit(RNG.random(n)))[1] for n in (200, 100_000))
    percent = [int(re.search(r"±(\d+)", text).group(1)) for text in (few, many)]
    assert percent[0] > percent[1] >= 10
    assert legend(pl.pit(np.array([])))[2] == "uniform"


def test_calibration_draws_what_there_is():
    axes = pl.calibration(RNG.random(100), (np.exp(-MEAN), np.exp(-MEAN)), (MEAN, MEAN, MEAN))
    assert len(axes) == 3
    assert len({ax.figure for ax in axes}) == 1
    assert len(pl.calibration(zeros=(np.exp(-MEAN), np.exp(-MEAN)))) == 1
    assert pl.calibration() == ()


def test_prototype_names_the_features_that_differ_most():
    ax = pl.prototype(prototype_frame(), label=4)
    named = {text.get_text() for text in ax.texts}
    assert named == {"gene0", "gene1", "gene58", "gene59"}
    assert ax.get_xscale() == "log"


def test_prototype_of_values_that_may_be_negative():
    frame = prototype_frame(-MEAN).assign(log2_fold_change=np.nan)  # a CLR protein has no fold change
    largest = frame["feature"].iloc[(frame["prototype"] - frame["mean"]).abs().argmax()]
    ax = pl.prototype(frame, label=1)
    assert [text.get_text() for text in ax.texts] == [largest]
    assert ax.get_xscale() == "linear"


def test_moments_of_values_that_may_be_negative():
    ax = pl.mean_variance(MEAN - 1, MEAN, MEAN)
    assert ax.get_xscale() == "linear"
    assert legend(ax) == ["observed", "expected"]
    assert len(ax.collections[0].get_offsets()) == len(MEAN)


def test_prototype_labels_do_not_overlap():
    ax = pl.prototype(prototype_frame())
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_differences_are_counted_by_side_and_the_surest_named_with_their_interval():
    frame = differential_frame()
    ax = pl.differential(frame, label=5)
    called = frame[frame["expected_fdr"] <= 0.05]
    lower, higher = (called["log2_fold_change"] < 0).sum(), (called["log2_fold_change"] > 0).sum()
    assert legend(ax) == [f"no call ({60 - lower - higher})", f"lower ({lower})", f"higher ({higher})"]
    assert {text.get_text() for text in ax.texts} <= {"gene0", "gene1", "gene2", "gene57", "gene58", "gene59"}
    intervals = np.array(ax.collections[-1].get_segments())
    assert intervals.shape == (5, 2, 2)
    np.testing.assert_allclose(np.diff(intervals[:, :, 0]), 0.6)


def test_differences_of_several_comparisons_are_not_drawn_into_one():
    both = pd.concat([differential_frame(), differential_frame().assign(group="other")])
    with pytest.raises(InputError, match="one comparison, found 2"):
        pl.differential(both)


def test_models_are_drawn_by_their_distance_from_the_best():
    found = choice()
    ax = pl.compare(found)
    frame = found.frame.iloc[::-1]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(frame["name"])
    assert legend(ax) == ["best", "as good, within two standard errors", "behind", "without a network"]
    drawn = {line.get_label(): line.get_xdata() for line in ax.lines}
    np.testing.assert_allclose(drawn["behind"], found.frame.set_index("name").loc[["poisson"], "difference"])
    behind = next(c for c in ax.collections if np.isclose(c.get_segments()[0][:, 0].mean(), drawn["behind"][0]))
    half = 2 * found.frame.set_index("name").loc["poisson", "difference_se"]
    np.testing.assert_allclose(np.diff(behind.get_segments()[0][:, 0]), 2 * half)
    assert {"score", "PIT off", "parameters", "0.020", "–"} <= {text.get_text() for text in ax.texts}


def test_holes_show_their_depth_and_interval():
    found = found_holes()
    ax = pl.holes(found, most=2)
    named = [text.get_text() for text in ax.get_yticklabels()]
    assert named == [f"{a} – {b}" for a, b in found.frame[["one", "other"]].head(2).to_numpy()]
    assert ax.get_xlim()[1] > found.frame["depth"].max()
    with pytest.raises(InputError, match="found none"):
        pl.holes(replace(found, frame=found.frame.head(0)))


def test_odd_observations_are_coloured_by_kind_and_counted():
    ax = pl.anomalies(found_anomalies())
    density, scores, trials = ax.child_axes
    assert legend(density) == ["surprise", "misfit", "depth", "support", "doublet", "ordinary"]
    called = found_anomalies().frame.filter(like="fdr_").le(0.1)
    assert sum(len(c.get_offsets()) for c in scores.collections) == 300
    assert legend(scores)[0] == f"no call ({300 - called.any(axis=1).sum():,})"
    assert [t.get_text() for t in trials.get_yticklabels()][::-1] == list(found_anomalies().trials["score"])
    assert len(pl.anomalies(found_anomalies(tried=False)).child_axes) == 2


@pytest.mark.parametrize(("counts", "unit"), [(True, "log2 fold change"), (False, "standard errors")])
def test_a_shift_names_what_z_does_not_explain(counts, unit):
    observations, features = pl.shift(found_shift(counts), label=4).child_axes
    assert legend(observations) == ["support", "surprise", "alike"]
    areas = [patch.get_data() for patch in observations.patches]
    assert all((area.values * np.diff(area.edges)).sum() == pytest.approx(1) for area in areas)
    assert unit in features.get_xlabel()
    assert [len(c.get_offsets()) for c in features.collections] == [54, 6]
    assert {text.get_text() for text in features.texts} <= {f"gene{i}" for i in range(4)}
    assert features.texts


def test_checks_of_counts_have_four_panels_and_of_reals_two():
    panels = pl.predictive_checks(found_checks()).child_axes
    assert len(panels) == 4
    np.testing.assert_allclose(np.asarray(panels[0].collections[0].get_offsets())[:, 0], MEAN)
    assert len(pl.predictive_checks(found_checks(counts=False)).child_axes) == 2


def test_paths_show_the_order_of_the_switches_and_the_support():
    ax = pl.path(*WALK, most=4)
    named = [text.get_text().split()[0] for text in ax.get_yticklabels()]
    assert named == sorted(named, key=lambda name: int(name[4:]))
    assert len(named) == 4
    assert len(ax.child_axes) == 1
    with pytest.raises(InputError, match="found none"):
        pl.path(ALONG, WALK[1].head(0))


def test_paths_of_reals_are_drawn_from_the_lowest_to_the_highest_value():
    along = 4 * ALONG - 2
    ax = pl.path(along, switches(along.to_numpy(), list(along), additive=True), WALK[2])
    drawn = np.asarray(ax.images[0].get_array())
    expected = ((along - along.min()) / (along.max() - along.min())).to_numpy().T
    np.testing.assert_allclose(drawn, expected[np.argsort([int(name[4:]) for name in along])], atol=1e-9)


@pytest.mark.parametrize("draw", [pl.comparison, pl.prototype, pl.differential])
def test_frames_without_their_columns_are_refused(draw):
    with pytest.raises(InputError, match="expected"):
        draw(pd.DataFrame({"unknown": [1]}))


# dimensions and sweeps


def test_dimensions_are_drawn_widest_first_and_unused_ones_left_out():
    ax = pl.dimensions(dimensions_found())
    left, right = ax.child_axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["1", "0"]
    names = [text.get_text() for text in left.texts]
    top = dimensions_found().top(1, 4)
    assert set(top["feature"]) <= set(names)
    assert [text.get_text() for text in right.texts] == ["30%"] * 4


def test_a_sign_that_changes_is_bracketed():
    found = dimensions_found()
    found.effects["sign"] = 0
    assert all(text.get_text().startswith("(") for text in pl.dimensions(found).child_axes[0].texts)


def test_a_traversal_draws_the_features_asked_for():
    found = dimensions_found()
    ax = pl.traversal(found, 2, ["gene3", "gene5"])
    assert legend(ax) == ["gene3", "gene5"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), found.traversal.mean[2, :, 5])
    assert ax.get_yscale() == "log"
    assert legend(pl.traversal(found, 2)) == [*found.top(2, 3)["feature"]]


def test_no_active_dimension_is_refused():
    with pytest.raises(InputError, match="collapsed"):
        pl.dimensions(dimensions_found(active=(False, False, False)))


def test_a_sweep_draws_every_beta_and_the_best_of_the_linear_methods():
    found = sweep_found(accuracy=[0.8, 0.9, 0.7], mig=[0.1, 0.3, 0.2])
    ax = pl.sweep(found)
    beside = ax.figure.axes[1]
    assert [tick.get_text() for tick in beside.get_xticklabels()] == ["0", "1", "4"]
    dashed = [line for line in beside.lines if line.get_linestyle() == "--"]
    assert sorted(float(line.get_ydata()[0]) for line in dashed) == [0.2, 0.28, 0.8]
    assert "for discovery" in legend(ax)


# stability


def test_the_least_stable_groups_come_first_and_are_told_apart():
    frame = pd.DataFrame(
        {"observations": [10, 20, 30], "neighbours": 0.5, "clusters": [0.9, 0.2, 0.8], "stable": [True, False, True]},
        index=["a", "b", "c"],
    )
    ax = pl.stability(frame)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a (10)", "c (30)", "b (20)"]
    assert legend(ax) == ["clusters", "clusters, not stable", "neighbours"]
    assert len(pl.stability(frame, most=2).get_yticklabels()) == 2
    named = pl.stability(frame.assign(apart=[0.9, 0.8, 0.1]))
    assert [label.get_text() for label in named.get_yticklabels()] == ["a (10)", "b (20)", "c (30)"]
    assert legend(named)[0] == "apart in the worst fit"
    with pytest.raises(InputError, match="stable"):
        pl.stability(frame.drop(columns="stable"))
