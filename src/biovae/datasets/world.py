"""The true parameters of a simulation, and the mean counts that follow from them.

    a    activity of each programme, 0 to 1       (cells, programmes)
    f    log expression                           (cells, genes)     f = baseline + a loadings' [+ batch + hidden]
    rho  composition                              (cells, genes)     softmax of f
    l    library size                             (cells,)
    mu   mean counts                              (cells, genes)     mu = l rho, then partner and soup are added

Programmes answer to the place u of a cell on the map in two ways, both smooth and saturating: the programme of a state
is a Hill function of the distance to its piece, a gradient is a logistic function of the position along a direction.

`World` is drawn once, written to an AnnData by `simulate`, and read back by `truth`: both compute with the same record.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from biovae.datasets.landscape import Landscape, distance, lay_out
from biovae.datasets.scenarios import Programmes, Scenario

CHUNK = 2**21  # entries that are dense at one time
HILL = 4  # exponent: at a third of the half-way distance a programme is 99 % on
NEAR = 1.2  # half-way distance of the programme of a state


def stream(seed: int, purpose: str, chunk: int = 0) -> np.random.Generator:
    """Draws for one purpose alone: switching another effect on or off does not move them."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), chunk])


@dataclass(frozen=True)
class Cells:
    """What is true of each droplet.

    `partner` is the row of the second cell in it, or -1; `library` counts both.
    """

    latent: Float[np.ndarray, "cells 2"]
    batch: Int[np.ndarray, "cells"]
    library: Float[np.ndarray, "cells"]
    hidden: Float[np.ndarray, "cells rank"]
    partner: Int[np.ndarray, "cells"]
    ambient: Float[np.ndarray, "cells"]
    outlier: Bool[np.ndarray, "cells"]


@dataclass(frozen=True)
class World:
    """What is true of the genes. Programmes that belong to an anchor come first, gradients last."""

    landscape: Landscape
    anchors: Float[np.ndarray, "anchored 2 2"]
    halfway: Float[np.ndarray, "anchored"]
    directions: Float[np.ndarray, "gradients 2"]
    thresholds: Float[np.ndarray, "gradients"]
    baseline: Float[np.ndarray, "genes"]
    outlier: Bool[np.ndarray, "genes"]
    loadings: Float[np.ndarray, "genes programmes"]
    dispersion: Float[np.ndarray, "genes"]
    batch_effect: Float[np.ndarray, "genes batches"]
    hidden: Float[np.ndarray, "genes rank"]
    ambient: Float[np.ndarray, "genes batches"]
    dropout: float

    def activity(self, u: Float[np.ndarray, "cells 2"]) -> Float[np.ndarray, "cells programmes"]:
        """1 / (1 + (distance / halfway)^4) for anchored programmes, logistic(direction u - threshold) for gradients."""
        anchored = 1 / (1 + (distance(u, self.anchors) / self.halfway) ** HILL)
        graded = 1 / (1 + np.exp(self.thresholds - u @ self.directions.T))
        return np.hstack([anchored, graded])

    def log_expression(self, u: Float[np.ndarray, "cells 2"]) -> Float[np.ndarray, "cells genes"]:
        """Baseline and programmes, without batch, library or noise."""
        f = self.activity(u).astype(np.float32) @ self.loadings.T.astype(np.float32)
        f += self.baseline.astype(np.float32)
        return f

    def composition(self, cells: Cells, rows: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows genes"]:
        """Mean shares of counts in single cells, batch and hidden factors included."""
        f = self.log_expression(cells.latent[rows])
        f += self.batch_effect.T.astype(np.float32)[cells.batch[rows]]
        if self.hidden.any():
            f += cells.hidden[rows].astype(np.float32) @ self.hidden.T.astype(np.float32)
        f[cells.outlier[rows]] *= 0.5
        return softmax(f)

    def mean_counts(self, cells: Cells, rows: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows genes"]:
        """Mean counts before dropout: mu = (1 - ambient) (l rho + l' rho' of a partner) + ambient total soup."""
        partner = cells.partner[rows]
        doublet = partner >= 0
        library = cells.library[rows].astype(np.float32)
        own = library - np.where(doublet, cells.library[partner], 0).astype(np.float32)
        mu = self.composition(cells, rows)
        mu *= own[:, None]
        if doublet.any():
            partner = partner[doublet]
            mu[doublet] += cells.library[partner].astype(np.float32)[:, None] * self.composition(cells, partner)
        ambient = cells.ambient[rows].astype(np.float32)
        if ambient.any():
            mu *= (1 - ambient)[:, None]
            mu += (ambient * library)[:, None] * self.ambient.T.astype(np.float32)[cells.batch[rows]]
        return mu

    def kept(self, mu: Float[np.ndarray, "rows genes"]) -> Float[np.ndarray, "rows genes"]:
        """Probability mu / (mu + dropout) that an entry survives dropout, logistic in log mu.

        Source: Andrews & Hemberg 2019, doi:10.1093/bioinformatics/bty1044 (Michaelis-Menten dropout).
        """
        return mu / (mu + self.dropout) if self.dropout else np.ones_like(mu)


def chunks(rows: np.ndarray, genes: int) -> list[np.ndarray]:
    """Cut rows so that a dense piece holds at most `CHUNK` entries."""
    most = max(1, CHUNK // genes)
    return [rows[i : i + most] for i in range(0, len(rows), most)]


def softmax(f: Float[np.ndarray, "cells genes"]) -> Float[np.ndarray, "cells genes"]:
    """Shares that sum to 1 over genes; overwrites `f`."""
    f -= f.max(1, keepdims=True)
    np.exp(f, out=f)
    f /= f.sum(1, keepdims=True)
    return f


def draw_world(scenario: Scenario, genes: int, seed: int) -> World:
    """Draw the true parameters. The soup is still empty: it is made of cells."""
    landscape = lay_out(scenario.states)
    anchors, halfway = _anchors(landscape)
    rng = stream(seed, "gradients")
    gradients = scenario.programmes.gradients
    angle = np.pi * (np.arange(gradients) + rng.random(gradients)) / max(gradients, 1)
    size = np.abs(landscape.pieces).max()
    violations, technical = scenario.violations, scenario.technical
    hidden = stream(seed, "hidden").normal(size=(genes, violations.rank))
    baseline, outlier = _baseline(scenario, genes, seed)
    log_dispersion = scenario.programmes.dispersion_spread * stream(seed, "dispersion").normal(size=genes)
    return World(
        landscape=landscape,
        anchors=anchors,
        halfway=halfway,
        directions=np.column_stack([np.cos(angle), np.sin(angle)]),
        thresholds=rng.uniform(-0.5, 0.5, gradients) * size,
        baseline=baseline,
        outlier=outlier,
        loadings=_loadings(scenario.programmes, genes, len(anchors) + gradients, seed),
        dispersion=scenario.programmes.dispersion * np.exp(log_dispersion),
        batch_effect=technical.batch_effect * stream(seed, "batches").normal(size=(genes, technical.batches)),
        hidden=violations.correlation / np.sqrt(violations.rank) * hidden,
        ambient=np.zeros((genes, technical.batches)),
        dropout=technical.dropout,
    )


def _anchors(landscape: Landscape) -> tuple[np.ndarray, np.ndarray]:
    """Every state; and of a trajectory the root and the tips, whose programmes fade over half of it."""
    timed = landscape.pseudotime
    root = landscape.pieces[timed[:, 0] == 0][:, [0, 0]]
    tips = landscape.pieces[timed[:, 1] == 1][:, [1, 1]]
    anchors = np.concatenate([landscape.pieces, root, tips])
    wide = 0.5 * np.linalg.norm(tips[:, 0], axis=-1).max(initial=0)
    halfway = np.where(np.arange(len(anchors)) < len(landscape.pieces), NEAR, wide)
    return anchors, halfway


def _baseline(scenario: Scenario, genes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log means of genes, lognormal, a few of them raised far above the rest.

    Source: Zappia et al. 2017, doi:10.1186/s13059-017-1305-0 (expression outliers in Splatter).
    """
    rng = stream(seed, "baseline")
    baseline = scenario.programmes.tail * rng.normal(size=genes)
    outlier = rng.random(genes) < scenario.violations.outlier_genes
    return baseline + outlier * rng.normal(4.0, 0.5, size=genes), outlier


def _loadings(programmes: Programmes, genes: int, count: int, seed: int) -> np.ndarray:
    """Log fold changes: each programme moves a random set of genes, four fifths of them up."""
    rng = stream(seed, "programmes")
    chosen = rng.random((count, genes)).argsort(1)[:, : max(1, round(programmes.markers * genes))]
    change = rng.normal(1.0, 0.3, chosen.shape) * np.where(rng.random(chosen.shape) < 0.8, 1, -1)
    loadings = np.zeros((genes, count))
    np.put_along_axis(loadings.T, chosen, programmes.strength * change, axis=1)
    return loadings
