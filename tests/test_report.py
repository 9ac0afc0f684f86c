"""The report: one page that loads nothing, shows what there is, and believes no text that it is given."""

import dataclasses
import re
import sys
import time
from enum import StrEnum
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from biovae.analysis import (
    Differential,
    Dimensions,
    Null,
    PriorSupport,
    Traversal,
    density,
    holes,
    stability,
    trajectory,
    trends,
)
from biovae.errors import InputError
from biovae.report import Report, render, write
from biovae.report.maps import MOST_LABELS, MOST_POINTS

EVIL = "<script>alert('x')</script>"
SIZE, FEATURES = 200, 30
RNG = np.random.default_rng(0)
MEAN = RNG.lognormal(-1, 1, FEATURES)
CLUSTERS = np.resize(["0", "1", "10"], SIZE)
PLACES = 9 * np.eye(3)[np.resize([0, 1, 2], SIZE)] + RNG.normal(size=(SIZE, 3))
STABLE = stability([PLACES, PLACES, RNG.permuted(PLACES, axis=0)], groups=CLUSTERS, references={"noise": [PLACES] * 2})


class State(StrEnum):
    OK = "ok"
    LOOK = "look"
    BROKEN = "broken"


def line(name, value, state, normal="above 0"):
    return SimpleNamespace(name=name, value=value, normal=normal, state=state, advice=f"Advice on {name}.")


def verdict(*states):
    lines = tuple(line(f"check {i}", i + 0.5, state) for i, state in enumerate(states))
    return SimpleNamespace(overall=max(states, key=list(State).index), lines=lines)


def history(epochs=6):
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {"epoch": epoch, "step": 10 * epoch, "seconds": 0.5 * epoch, "beta": 1.0, "learning_rate": 1e-3}
        | {"train_elbo": -700.0 + epoch, "validation_elbo": -702.0 + epoch}
        | {"validation_reconstruction": -690.0, "validation_kl": 10.0}
    )


def differential_found(*groups, name="gene"):
    frame = pd.DataFrame({"feature": [f"{name}{i}" for i in range(FEATURES)]})
    change = np.linspace(3, -3, FEATURES)
    probability = np.clip(np.abs(change) / 2, 0, 1 - 1e-9)
    frame = frame.assign(
        log2_fold_change=change, estimate=change, lower=change - 0.3, upper=change + 0.3, probability=probability
    )
    frame = frame.assign(expected_fdr=(1 - probability) / 2, detected=0.8, reference_detected=0.2)
    parts = [frame.assign(group=group, reference="rest") for group in groups]
    return Differential(pd.concat(parts, ignore_index=True), Null())


def dimensions_found(name="gene", column="type"):
    features = [f"{name}{i}" for i in range(FEATURES)]
    score = np.tile(np.linspace(-1, 1, FEATURES), 4)
    effects = pd.DataFrame(
        {"dimension": np.repeat(range(4), FEATURES), "feature": features * 4, "score": score, "sign": 1}
    )
    effects["sign"], effects["nearest"] = 1, 0.9 * score
    company = pd.DataFrame(
        {
            "dimension": range(4), "column": column, "kind": "categories", "strength": 0.4, "least": 0.3,
            "most": 0.5, "rho": np.nan, "highest": "B", "fdr": 0.0,
        }
    )  # fmt: skip
    summary = pd.DataFrame({"spread": [1.0, 0.8, 0.6, 0.0], "active": [True, True, True, False]})
    flat = np.ones((4, 2, FEATURES))
    return Dimensions(summary, effects, company, Traversal(np.zeros((4, 2)), flat, flat, flat, tuple(features)))


def holes_found(*names):
    mean = np.array([[-2.0, 0.0], [2.0, 0.0]]).repeat(60, axis=0) + 0.4 * RNG.normal(size=(120, 2))
    return holes(density(mean, np.full(mean.shape, 0.25)), np.repeat(names, 60), draws=20)


WALKED = RNG.normal(size=(SIZE, 4))
WAY = trajectory(WALKED, 0, draws=[WALKED])


def answers(name="gene", groups=("B", "T")):
    """What the tools found, as far as a report shows it."""
    return {
        "groups": "type",
        "differences": differential_found(*groups, name=name),
        "dimensions": dimensions_found(name),
        "holes": holes_found(*groups),
        "prior_support": PriorSupport(0.4, 0.38, 0.42, 2000),
        "looked_at": 150,
        "trajectory": WAY,
        "trends": trends(WALKED[:, :2], [f"{name}0", f"{name}1"], WAY),
    }


def full(**changes):
    z = RNG.normal(size=(SIZE, 4))
    names = [f"gene{i}" for i in range(FEATURES)]
    prototype = MEAN * np.linspace(0.2, 4, FEATURES)
    fields = {
        "title": "cells.h5ad",
        "verdict": verdict(State.OK, State.LOOK, State.OK),
        "history": history(),
        "null_elbo": -720.0,
        "embedding": z,
        "coordinates": z[:, :2],
        "labels": pd.DataFrame({"type": np.resize(["B", "T"], SIZE), "depth": RNG.lognormal(7, 1, SIZE)}),
        "clusters": np.resize([0, 1, 10], SIZE),
        "markers": pd.DataFrame(
            {
                "cluster": ["0", "1", "10"],
                "feature": ["CD3D", "LYZ", "MS4A1"],
                "log2_fold_change": [2.0, 3.0, 1.5],
                "fraction_in": [0.9, 0.8, 0.7],
                "fraction_out": [0.1, 0.2, 0.1],
            }
        ),
        "kl_per_dimension": np.array([3.0, 2.0, 1.0, 0.0]),
        "active": np.array([True, True, True, False]),
        "pit": RNG.random(1_000),
        "zero_fraction": (np.exp(-MEAN), np.exp(-MEAN)),
        "mean_variance": (MEAN, MEAN, 2 * MEAN),
        "pca_comparison": pd.DataFrame({"measure": ["reconstruction"], "pca": [-720.0], "vae": [-690.5]}),
        "prototype": pd.DataFrame(
            {"feature": names, "prototype": prototype, "mean": MEAN, "log2_fold_change": np.log2(prototype / MEAN)}
        ),
        "prototype_sentence": "The prototype is a quiet cell.",
        "leakage": pd.DataFrame({"variable": ["library size"], "r2": [0.01]}),
        "presence": pd.DataFrame({"rna": np.ones(SIZE, bool), "protein": np.arange(SIZE) < 50}),
        "stability": STABLE,
        "notices": ["Counts were read from X."],
        "metrics": {"seconds": 12.5, "epochs": 6, "validation_elbo": -696.0, "test_elbo": None, "own_number": 7},
        "command": "biovae fit cells.h5ad --out run",
        "seed": 3,
        "versions": {"torch": "2.13.0"},
        "data_sha256": "ab" * 32,
    }
    return Report(**(fields | answers() | changes))


class Page(HTMLParser):
    """Every tag with its attributes, and the visible text."""

    VOID = {"meta", "br", "hr", "img", "link", "input", "path", "circle", "use", "image", "rect"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def sections(self):
        return [attributes["id"] for attributes in self.all("section")]


@pytest.fixture(autouse=True)
def without_umap(monkeypatch):
    """The map is a PCA: UMAP takes its time, and is tested with the coordinates."""
    monkeypatch.setitem(sys.modules, "umap", None)  # an import of it fails


@pytest.fixture(scope="module")
def source():
    return render(full())


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


ALL = [
    "verdict", "training", "map", "clusters", "stability", "differences", "dimensions", "holes", "trajectory",
    "calibration", "pca", "prototype", "leakage", "modalities",
    "data", "metrics", "reproduce",
]  # fmt: skip


def test_every_section_is_there_in_reading_order(page):
    assert page.sections == ALL
    assert [a["href"] for a in page.all("a")] == [f"#{key}" for key in ALL[1:]]
    assert not page.open  # every element is closed


def test_nothing_is_loaded_from_anywhere(source, page):
    assert not re.search(r"https?://", source)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\((?!#)", source)


def test_the_policy_forbids_everything_else(page):
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_every_picture_has_words_for_those_who_cannot_see_it(page):
    drawn = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(drawn) == len(page.all("figure")) == 15
    assert all(len(a["aria-label"]) > 20 for a in drawn)
    assert all(a.get("aria-hidden") for a in page.all("svg") if a.get("role") != "img")


@pytest.mark.parametrize(("test", "gain"), [(None, "+24.0"), (-705.0, "+15.0")])
def test_the_gain_is_that_of_the_observations_that_the_null_was_measured_on(test, gain):
    page = Page(render(full(metrics={"validation_elbo": -696.0, "test_elbo": test, "versions": {}, "seed": 0})))
    assert f"gain over the null {gain} nats per obs." in page.text


def test_ids_are_unique_and_headings_step_down(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    headings = [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    assert set(headings[1:]) == {"h2", "h3"}


def test_numbers_are_where_a_reader_looks_for_them(page):
    for words in (
        "gain over the null +24.0 nats per obs.", "active dimensions 3 of 4", "observations 200",
        "bound, validation set -696 nats per observation", "bound, test set - nats", "own number 7",
        "The prototype is a quiet cell.", "● ○ 150 75.0 %", "● ● 50 25.0 %", "reconstruction -720 -690.5",
        "biovae fit cells.h5ad --out run", "seed 3", "torch 2.13.0", "ab" * 32, "Kingma and Welling 2014",
        "What sets each type apart", "more than 1.19 times", "40% (38% to 42%) of 2,000 samples from the prior",
        "Looked at are 150 of 200 observations", "cannot prove a state forbidden", "A trajectory of 200 observations",
    ):  # fmt: skip
        assert words in page.text


@pytest.mark.parametrize("state", list(State))
def test_the_verdict_is_said_in_words_shape_and_colour(state):
    text = render(Report(title="t", verdict=verdict(State.OK, state)))
    page = Page(text)
    assert f"Verdict: {state}" in page.text
    assert f"verdict {state}" in text
    assert sum(a.get("class") == f"icon {state}" for a in page.all("svg")) >= 3


def test_the_worst_lines_come_first():
    text = Page(render(Report(title="t", verdict=verdict(State.OK, State.LOOK, State.BROKEN, State.LOOK)))).text
    order = [text.index(f"check {i} ") for i in (2, 1, 3, 0)]
    assert order == sorted(order)
    assert "1 ok 2 look 1 broken" in re.sub(r"\s+", " ", text)


# what is missing

OPTIONAL = [f.name for f in dataclasses.fields(Report) if f.name != "title"]


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_part_may_stand_alone(name):
    page = Page(render(Report(title="t", **{name: getattr(full(), name)})))
    assert not page.open
    assert "None" not in page.text
    assert len(page.sections) <= 2


def test_a_bare_report_is_a_clean_page(tmp_path):
    page = Page(render(Report(title="nothing yet")))
    assert page.sections == ["reproduce"]
    assert not page.all("figure")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_data_are_drawn(size):
    z = RNG.normal(size=(size, 3))
    labels = pd.DataFrame({"constant": np.ones(size), "missing": [None] * size})
    report = Report(title="t", embedding=z, labels=labels, clusters=np.zeros(size))
    page = Page(render(report))
    assert page.sections == ["map", "clusters", "reproduce"]
    assert "UMAP needs at least 50 observations" in page.text


def test_the_caption_says_which_map_it_is():
    text = Page(render(Report(title="t", embedding=RNG.normal(size=(60, 4))))).text
    assert "first two principal components of z" in text
    assert "pip install 'biovae[umap]'" in text
    assert "McInnes" not in text
    assert "UMAP of z" in Page(render(full())).text
    assert "McInnes" in Page(render(full())).text


def test_a_prototype_without_fold_changes_is_ranked_by_difference():
    frame = full().prototype.assign(log2_fold_change=np.nan, mean=-MEAN)
    frame["difference"] = frame["prototype"] - frame["mean"]
    text = Page(render(Report(title="t", prototype=frame, prototype_unit="CLR"))).text
    assert "differ most (CLR)" in text
    assert "feature f(0) mean difference" in text
    largest = frame.loc[frame["difference"].idxmax(), "feature"]
    assert f"difference {largest}" in text


def test_the_groups_are_told_apart_by_what_is_higher_and_what_is_lower():
    text = Page(render(Report(title="t", groups="type", differences=differential_found("B")))).text
    called = np.abs(np.linspace(3, -3, FEATURES)) >= 1.8 - 1e-9  # an expected FDR of 0.05 is a probability of 0.9
    assert f"B {called.sum()} of {FEATURES} gene0, gene1" in text
    assert f"gene{FEATURES - 1}" in text
    assert "differ by construction" in text


def test_what_most_features_share_is_said_to_come_from_a_few():
    found = differential_found("B", "NK")
    falling = found.frame["estimate"].where(found.frame["group"] == "B", found.frame["estimate"] - 1)
    shared = Differential(found.frame.assign(estimate=falling), Null())
    text = Page(render(Report(title="t", groups="type", differences=shared))).text
    assert "most of them go the same way in NK (0.50 times): a few strong features" in text
    assert "go the same way" not in Page(render(Report(title="t", groups="type", differences=found))).text


def test_what_the_tools_did_not_find_leaves_no_trace():
    nothing = differential_found("B").frame.assign(expected_fdr=1.0)
    quiet = Report(title="t", differences=Differential(nothing, Null()), groups="type")
    assert f"B 0 of {FEATURES} none none" in Page(render(quiet)).text
    asleep = dimensions_found().summary.assign(active=False)
    still = Report(title="t", dimensions=dataclasses.replace(dimensions_found(), summary=asleep))
    assert Page(render(still)).sections == ["reproduce"]


def test_a_trajectory_is_drawn_with_the_observations_that_are_drawn(monkeypatch):
    monkeypatch.setattr("biovae.report.maps.MOST_POINTS", 120)
    page = Page(render(full(embedding=WALKED, coordinates=None)))
    assert "trajectory" in page.sections
    assert "Drawn are 120 of 200 observations" in page.text


def test_clusters_that_other_seeds_do_not_find_are_marked():
    upon = PLACES - 9 * np.where(CLUSTERS == "10", 1, 0)[:, None] * (np.eye(3)[2] - np.eye(3)[1])
    found = stability([PLACES, PLACES, upon], groups=CLUSTERS)
    page = Page(render(full(stability=found)))
    assert "stable clusters 1 of 3" in page.text
    assert page.text.count("NO: not stable (0.") == 2
    assert page.text.count("yes (1)") == 1
    assert "Not found again: 1, 10." in page.text
    assert "Hennig 2007" in page.text
    assert "The model was fitted 3 times" in page.text
    assert "Hennig" not in Page(render(full(stability=None))).text
    assert "found again" not in Page(render(full(stability=None))).text


def test_leakage_falls_back_on_the_verdict():
    spoken = SimpleNamespace(overall=State.LOOK, lines=(line("leakage of library size", 0.3, State.LOOK),))
    page = Page(render(Report(title="t", verdict=spoken)))
    assert "leakage" in page.sections


# what is hostile or wrong


def test_everything_from_outside_is_escaped():
    evil = np.array([EVIL] * SIZE, dtype=object)
    hostile = full(
        title=EVIL,
        verdict=SimpleNamespace(overall=State.LOOK, lines=(line(EVIL, EVIL, State.LOOK, normal=EVIL),)),
        labels=pd.DataFrame({EVIL: evil, "depth": np.arange(SIZE) / 3}),
        clusters=evil,
        markers=full().markers.assign(cluster=EVIL, feature=EVIL),
        **answers(EVIL, ("A" + EVIL, "B" + EVIL)) | {"groups": EVIL, "dimensions": dimensions_found(EVIL, EVIL)},
        pca_comparison=full().pca_comparison.assign(measure=EVIL, unit=EVIL),
        prototype=full().prototype.assign(feature=EVIL),
        prototype_sentence=EVIL,
        leakage=pd.DataFrame({EVIL: [EVIL]}),
        presence=full().presence.rename(columns={"rna": EVIL}),
        stability=stability([PLACES, PLACES], groups=evil),
        notices=[EVIL, '"><img src=x onerror=alert(1)>'],
        metrics={EVIL: EVIL},
        command=EVIL,
        versions={EVIL: EVIL},
        data_sha256=EVIL,
        citations=[EVIL],
        unit=EVIL,
    )
    text = render(hostile)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    assert not {"script", "img"} & {tag for tag, _ in Page(text).tags}


def test_labels_of_other_observations_are_refused():
    with pytest.raises(InputError, match="for all 200 observations of the embedding, found 3"):
        render(full(labels=pd.DataFrame({"type": ["a", "b", "c"]})))
    with pytest.raises(InputError, match="clusters"):
        render(full(clusters=np.zeros(3)))


def test_many_labels_and_many_observations_are_limited_aloud():
    labels = pd.DataFrame({f"column{i}": np.resize(["a", "b"], SIZE) for i in range(MOST_LABELS + 2)})
    page = Page(render(full(labels=labels)))
    assert f"beyond the first {MOST_LABELS} columns: column12, column13" in page.text
    size = MOST_POINTS + 5
    large = Report(title="t", embedding=np.zeros((size, 2)), coordinates=RNG.normal(size=(size, 2)))
    assert f"Drawn are {MOST_POINTS:,} of {size:,} observations" in Page(render(large)).text


# the file


def test_write_replaces_the_page_whole(tmp_path):
    path = tmp_path / "run" / "report.html"
    assert write(Report(title="first"), path) == path
    write(Report(title="second \ud800 surrogate"), path)
    assert "second" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = write(Report(title="old"), tmp_path / "report.html")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write(Report(title="new"), path)
    assert "old" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_gives_the_same_page():
    report = full()
    assert render(report) == render(report)


def test_ten_times_the_cells_do_not_take_five_times_as_long():
    def rendered(cells: int) -> tuple[str, float]:
        labels = pd.DataFrame({"type": np.resize(list("abcdefghi"), cells), "depth": RNG.lognormal(7, 1, cells)})
        z, clusters = RNG.normal(size=(cells, 10)), np.resize(np.arange(9), cells)
        report = full(
            embedding=z, coordinates=None, labels=labels, clusters=clusters, presence=None, trajectory=None
        )  # fmt: skip
        start = time.process_time()
        return render(report), time.process_time() - start

    rendered(400)  # whatever is imported at first
    few, (text, many) = rendered(400)[1], rendered(4_000)
    assert many < 5 * few
    assert len(text) < 3e6
