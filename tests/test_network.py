"""The network: modalities that some observations lack, encoders that are left out, libraries that are inferred."""

import numpy as np
import pytest
import torch

from biovae.batch import Observations, SparseMatrix
from biovae.likelihoods import Gaussian, PoissonCounts
from biovae.modalities.experts import ModalityNetwork, Sizes
from biovae.modalities.modality import Modality
from biovae.modalities.views import RootCounts, Standardised
from biovae.network import Network
from biovae.nn import MLP
from biovae.noise import Noise
from biovae.objective import elbo
from biovae.posteriors import Diagonal, DiagonalNormal, LowRank
from biovae.priors import StandardNormal, VampPrior

OBS, GENES, PROTEINS, LATENT = 40, 8, 3, 2
DIAGONAL, STANDARD = Diagonal(), StandardNormal()
ALL = torch.arange(OBS)
ONLY_RNA, ONLY_PROTEIN = slice(0, 10), slice(10, 20)


def observations(scale: float = 1.0, *, everybody: bool = False) -> Observations:
    """RNA and proteins; the first ten have no protein, the next ten no RNA; `scale` is what the empty rows hold."""
    noise = Noise(0)
    rna = torch.poisson(10 * noise.uniform(OBS, GENES) + 1, generator=noise.generator)
    protein = 5 + 2 * noise.normal(OBS, PROTEINS)
    has_rna, has_protein = torch.ones(2, OBS, dtype=torch.bool)
    exposure = rna.sum(1, keepdim=True)
    if not everybody:
        has_rna[ONLY_PROTEIN], has_protein[ONLY_RNA] = False, False
        rna[ONLY_PROTEIN], protein[ONLY_RNA], exposure[ONLY_PROTEIN] = 0, scale, 1
    covariates = torch.nn.functional.one_hot(ALL % 2, 2).float()
    x = (SparseMatrix.from_scipy(rna.numpy()), protein)
    return Observations(x, (exposure, None), (has_rna, has_protein), covariates)


def network(*, posterior=DIAGONAL, prior=STANDARD, library="observed", drop=0.0) -> Network:
    noise = Noise(1)
    rna = Modality(name="rna", likelihood=PoissonCounts(), view=RootCounts(), library=library)
    protein = Modality(name="protein", likelihood=Gaussian(), view=Standardised())
    parts = [
        ModalityNetwork(
            recipe,
            (MLP(hidden=6), MLP(hidden=6)),
            posterior,
            Sizes(width, LATENT, 2, 2, levels=None, library_levels=slice(0, 2), alone=False),
            noise,
        )
        for recipe, width in [(rna, GENES), (protein, PROTEINS)]
    ]
    module = Network(parts, prior.build(LATENT, [GENES, PROTEINS], noise), columns=(ALL[:2], ALL[:2]), drop=drop)
    module.start(observations(), ALL, noise)
    return module


posteriors = pytest.mark.parametrize("posterior", [Diagonal(), LowRank()], ids=lambda p: p.kind)


@posteriors
def test_what_an_observation_lacks_changes_nothing(posterior):
    module = network(posterior=posterior)
    first, second = (module.terms(observations(s).batch(ALL), Noise(2), train=True) for s in (1.0, 1e4))
    torch.testing.assert_close(elbo(first), elbo(second))
    assert elbo(first).isfinite().all()


@posteriors
def test_a_missing_modality_leaves_the_other_expert_alone(posterior):
    module, batch = network(posterior=posterior).eval(), observations().batch(ALL)
    joint = module.encode(batch).z
    for m, rows in [(0, ONLY_RNA), (1, ONLY_PROTEIN)]:
        part = module.modalities[m]
        alone, _, _ = part.encode(
            part.view(batch.x[m], batch.exposure[m]), batch.covariates, alone=torch.ones(len(batch), dtype=bool)
        )
        torch.testing.assert_close(joint.mean[rows], alone.mean[rows], rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(joint.variance[rows], alone.variance[rows])


def test_every_parameter_gets_a_finite_gradient():
    module = network(library="latent", prior=VampPrior(components=5))
    elbo(module.terms(observations().batch(ALL), Noise(2), train=True)).sum().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in module.parameters())


def test_the_start_reads_only_the_carriers():
    module = network(library="latent")
    data = observations()
    rna, protein = module.modalities
    carriers = data.present[0] & (data.covariates[:, 0] == 1)
    torch.testing.assert_close(rna.library.location[0], data.exposure[0][carriers].log().mean())
    torch.testing.assert_close(protein.view.mean, data.x[1][data.present[1]].mean(0))
    strange = network()
    strange.start(observations(1e4), ALL, Noise(1))
    expected = network().state_dict()
    learned = {n: v for n, v in strange.state_dict().items() if "likelihood" in n or "view" in n}
    torch.testing.assert_close(learned, {n: expected[n] for n in learned})


@pytest.mark.parametrize("drop", [0.5, 1.0])
def test_dropping_encoders_never_leaves_an_observation_without(drop):
    module, batch = network(drop=drop), observations().batch(ALL)
    present = torch.stack(batch.present)
    spoken = []
    for step in range(50):
        used = torch.stack(module._encoders_used(batch, Noise(3, 0, step)))
        assert (used.sum(0) >= 1).all()
        assert not (used & ~present).any()
        spoken.append(used[:, 20:].float().mean(1))
    torch.testing.assert_close(torch.stack(spoken).mean(0), torch.full((2,), 1 - drop / 2), atol=0.05, rtol=0)
    assert torch.equal(torch.stack(module._encoders_used(batch, None)), present)


def test_a_latent_library_has_its_own_cost_and_draw():
    module, batch = network(library="latent"), observations().batch(ALL)
    terms = module.terms(batch, Noise(4), samples=3)
    assert [draw.shape for draw in terms.draws] == [(3, OBS, LATENT), (3, OBS, 1)]
    q, prior = module.encode(batch).libraries[0], module.modalities[0].library.prior(batch.covariates)
    expected = q.log_prob(terms.draws[1]) - prior.log_prob(terms.draws[1])
    expected[:, ONLY_PROTEIN] = 0
    assert terms.library.shape == (3, OBS)
    assert (terms.library[:, ONLY_PROTEIN] == 0).all()
    assert (terms.library[:, ONLY_RNA] != 0).all()
    many = module.eval().terms(batch, Noise(5), samples=4_000)
    q = module.encode(batch).libraries[0]
    kl = torch.distributions.kl_divergence(*(torch.distributions.Normal(p.mean, p.variance.sqrt()) for p in (q, prior)))
    torch.testing.assert_close(many.library.mean(0)[ONLY_RNA], kl[ONLY_RNA, 0], atol=0.3, rtol=0.05)


def test_a_latent_library_starts_at_laplaces_approximation():
    library = network(library="latent").modalities[0].library
    library.location[:], library.variance[:] = torch.tensor([2.0, 4.0]), torch.tensor([0.5, 0.1])
    nothing = DiagonalNormal(torch.zeros(2, 1), torch.zeros(2, 1))
    n = torch.tensor([[10.0], [1_000.0]])
    q = library.place(nothing, n, n, torch.eye(2))
    for i, (n, location, v) in enumerate([(10.0, 2.0, 0.5), (1_000.0, 4.0, 0.1)]):
        t = np.linspace(location - 4, location + 5, 200_001)  # log l; n counts of rate l
        density = np.exp((n * t - np.exp(t)) - (n * np.log(n) - n) - (t - location) ** 2 / (2 * v))
        density /= density.sum()
        mean = (t * density).sum()
        assert abs(q.mean[i, 0] - mean) < 0.5 * ((t - mean) ** 2 * density).sum() ** 0.5
        assert q.variance[i, 0] == pytest.approx(((t - mean) ** 2 * density).sum(), rel=0.1)


def test_a_latent_library_of_nobody_is_at_its_prior():
    library = network(library="latent").modalities[0].library
    library.location[:], library.variance[:] = torch.tensor([2.0, 4.0]), torch.tensor([0.5, 0.1])
    nothing = DiagonalNormal(torch.zeros(2, 1), torch.zeros(2, 1))
    q, prior = library.place(nothing, torch.zeros(2, 1), torch.ones(2, 1), torch.eye(2)), library.prior(torch.eye(2))
    torch.testing.assert_close(q.mean, prior.mean)
    torch.testing.assert_close(q.variance, prior.variance)


def test_a_latent_library_saved_before_it_heard_of_the_row_sum_stays_deaf():
    library = network(library="latent").modalities[0].library
    saved = {name: value for name, value in library.state_dict().items() if name != "heard"}
    library.load_state_dict(saved)
    nothing = DiagonalNormal(torch.zeros(2, 1), torch.zeros(2, 1))
    for n in (torch.ones(2, 1), torch.full((2, 1), 1_000.0)):
        q = library.place(nothing, n, n, torch.eye(2))
        torch.testing.assert_close(q.mean, library.location.unsqueeze(1))
        torch.testing.assert_close(q.log_variance, torch.full((2, 1), -2.0))


def test_an_observation_of_no_known_level_has_the_average_library():
    library = network(library="latent").modalities[0].library
    levels, unknown = library.prior(torch.eye(2)), library.prior(torch.zeros(1, 2))
    torch.testing.assert_close(unknown.mean, levels.mean.mean(0, keepdim=True))
    torch.testing.assert_close(unknown.variance, levels.variance.mean(0, keepdim=True))


def test_scores_under_a_detached_posterior_are_the_same_numbers():
    module, batch = network(library="latent"), observations().batch(ALL)
    module.eval()
    plain, doubly = (module.terms(batch, Noise(6), samples=2, doubly=d) for d in (False, True))
    torch.testing.assert_close(plain.log_weight, doubly.log_weight)


def test_pseudo_inputs_teach_the_normalisation_nothing():
    module = network(prior=VampPrior(components=5))
    before = {name: value.clone() for name, value in module.named_buffers()}
    q = module.pseudo(list(module.prior.inputs))
    assert isinstance(q, DiagonalNormal)
    assert q.mean.shape == (5, LATENT)
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())


def test_the_sum_over_modalities_is_the_reconstruction():
    module, batch = network().eval(), observations(everybody=True).batch(ALL)
    terms = module.terms(batch, Noise(7))
    parts = [module.decode(terms.draws[0], batch, m).log_prob(batch.x[m]) for m in (0, 1)]
    torch.testing.assert_close(terms.log_px, sum(parts))


def test_the_lesson_teaches_the_solo_heads_and_nothing_else():
    module = network()
    module.terms(observations().batch(ALL), Noise(2), train=True).lesson.sum().backward()
    taught = {name for name, w in module.named_parameters() if w.grad is not None and w.grad.abs().sum() > 0}
    assert taught == {name for name, _ in module.named_parameters() if ".solo." in name}
