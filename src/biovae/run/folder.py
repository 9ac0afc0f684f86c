"""What a run leaves in its folder, and the order in which it is written.

model/  embedding.npy  obs_names.txt  embedded.h5ad  split.csv  metrics.json  history.csv  report.html  checkpoints/
"""

import json
import shutil
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from anndata import AnnData
from mudata import MuData

from biovae.analysis import Differential, Stability
from biovae.batch import plain
from biovae.data import Prepared, Role, flags, quiet
from biovae.diagnostics import Verdict
from biovae.errors import InputError
from biovae.model import VAE
from biovae.model.evidence import Evidence
from biovae.model.fitting import Options
from biovae.model.judge import verdict as judge
from biovae.report import write as write_report
from biovae.run.collect import report, versus_pca
from biovae.run.findings import LEVELS, OWN, findings, marking
from biovae.run.metrics import agreement, metrics
from biovae.tools.stability import compared
from biovae.training.checkpoints import Checkpoints
from biovae.training.working import working

Say = Callable[[str], None]
KNOWN = frozenset(("checkpoints", "metrics.json", "model", "report.html", "split.csv", "history.csv"))


@dataclass(frozen=True)
class Request:
    """A fit as the command line asks for it."""

    data: AnnData | MuData
    vae: VAE
    out: Path
    options: Options
    validation: float | str = 0.1
    test: str | None = None
    title: str = "biovae"
    command: str = ""
    data_sha256: str = ""
    notices: tuple[str, ...] = ()
    root: tuple[str, ...] = ()


def fit_run(request: Request, say: Say) -> Verdict:
    """Fit, judge, and write the folder; nothing but checkpoints is written before the fit has succeeded."""
    vae, out = request.vae, request.out
    held = None if request.test is None else flags(request.data, request.test)
    prepared = vae.prepare(request.data, held_out=held)
    roles = vae.roles(request.data, prepared, validation=request.validation, held_out=held, seed=request.options.seed)
    for sentence in (*request.notices, *prepared.places, *prepared.notices, _sizes(prepared, roles)):
        say(sentence)
    claim(out, resume=request.options.resume)
    vae.fit_prepared(prepared, roles, request.options)
    say(_summary(vae))
    found = judged(request, prepared, roles, say)
    write_run(found, vae, out)
    if old := answered(out):
        say(f"{', '.join(old)}: answers of an earlier fit, left as they are; ask again")
    return found.verdict


@dataclass(frozen=True)
class Judged:
    """A model and what was found about it: all that a folder and its page are made of."""

    evidence: Evidence
    verdict: Verdict
    roles: np.ndarray
    obs: pd.DataFrame
    about: dict[str, Any]  # see `collect.report`


@working("judging the model")
def judged(request: Request, prepared: Prepared, roles: np.ndarray, say: Say) -> Judged:
    """Judge a fitted model on the observations it has not learned from."""
    vae = request.vae
    evidence = Evidence(vae, vae.fitted, prepared, held_out(roles), vae.fitted.record["seed"])
    obs = request.data.obs.loc[prepared.obs_names] if request.data.obs_names.is_unique else request.data.obs
    comparison = _compare(evidence, roles, obs, say)
    verdict = judge(evidence, None if comparison is None else comparison.explained)
    numbers = metrics(evidence, roles, str(verdict.overall), request.data_sha256)
    found = findings(vae, request.data, evidence, request.root, say)
    others = _stability(vae, evidence)
    if others is not None:
        say(str(others))
        numbers |= agreement(others)
    about = {
        "title": request.title,
        "metrics": numbers,
        "command": request.command,
        "notices": [*request.notices, *prepared.places, *prepared.notices],
        "comparison": comparison,
        "findings": found,
        "stability": others,
    }
    return Judged(evidence, verdict, roles, obs, about)


def write_run(found: Judged, vae: VAE, out: Path) -> None:
    """Write the folder; what a program reads comes before what a person looks at."""
    evidence, about = found.evidence, found.about
    names = evidence.prepared.obs_names
    vae.save(out / "model", overwrite=True)
    np.save(out / "embedding.npy", evidence.moments.mean)
    (out / "obs_names.txt").write_text("\n".join(map(str, names)) + "\n")
    pd.DataFrame({"observation": names, "role": found.roles}).to_csv(out / "split.csv", index=False)
    vae.history.to_csv(out / "history.csv", index=False)
    (out / "metrics.json").write_text(json.dumps(about["metrics"], indent=2, allow_nan=False) + "\n")
    with quiet():
        adata = embedded(evidence, found.obs, about["findings"].markers, about["stability"])
        adata.write_h5ad(out / "embedded.h5ad", compression="gzip")
    write_page(found, out / "report.html")


def write_page(found: Judged, path: Path) -> None:
    """Write the report."""
    write_report(report(found.evidence, found.verdict, found.roles, found.obs, found.about), path)


def held_out(roles: np.ndarray) -> np.ndarray:
    """The observations that judge: the test set, else the validation set, else all there are."""
    for role in (Role.TEST, Role.VALIDATION):
        if (roles == role).any():
            return np.flatnonzero(roles == role)
    return np.arange(len(roles))


def claim(out: Path, *, resume: bool) -> None:
    """Make the folder, or take over the folder of an earlier run; anything else is left alone."""
    check_free(out, KNOWN)
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for folder in [*{step.parent for step in (out / "checkpoints").rglob("step-*")}]:
            with Checkpoints(folder).lock():  # another process may be at work on them
                for step in folder.glob("step-*"):
                    shutil.rmtree(step, ignore_errors=True)


def answered(out: Path) -> list[str]:
    """Folders in a run that hold the answer to a question (`ask`)."""
    return sorted(f"{path.parent.name}/" for path in out.glob("*/answer.txt"))


def check_free(out: Path, known: Set[str]) -> None:
    """Refuse a folder that holds other things than an earlier run left, which are `known`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder for the run, found the file {out}: choose another --out.")
    inside = {p.name for p in out.iterdir()} if out.exists() else set()
    if inside and not inside & known:
        raise InputError(
            f"expected a new or empty folder, or that of an earlier run, found {len(inside)} other files in {out}: "
            "choose another --out."
        )


def embedded(
    evidence: Evidence, obs: pd.DataFrame, markers: Differential | None, others: Stability | None = None
) -> AnnData:
    """The first modality's values with z in `obsm["X_vae"]`, clusters in `obs`, their markers in `uns`.

    Of an ensemble `obs` says, too, which clusters are found again in every fit.
    """
    x = evidence.observations.x[0]
    names = list(evidence.fitted.schema.modalities[0].features)
    matrix = plain(x)
    matrix = scipy.sparse.csr_matrix(matrix) if scipy.sparse.issparse(matrix) else matrix
    table = writable(obs)
    table[OWN] = pd.Categorical(evidence.clusters)
    if others is not None:
        table["vae_cluster_stable"] = others.groups["stable"].reindex(evidence.clusters, fill_value=False).to_numpy()
    adata = AnnData(matrix, obs=table, var=pd.DataFrame(index=pd.Index(names)))
    adata.obsm["X_vae"] = evidence.moments.mean
    if markers is not None:
        found = marking(markers)
        adata.uns["vae_markers"] = found.astype({"cluster": str, "feature": str})
    return adata


def writable(obs: pd.DataFrame) -> pd.DataFrame:
    """The same columns as a file can hold them: where values of several types meet, as text."""
    table = obs.copy()
    table.index = table.index.astype(str)
    for name in table.select_dtypes(object):
        known = table[name].notna()
        if table.loc[known, name].map(type).nunique() > 1:
            table[name] = table[name].astype(str).where(known)
    return table


def _compare(evidence: Evidence, roles: np.ndarray, obs: pd.DataFrame, say: Say) -> Any:
    covariates = [c.name for c in evidence.recipe.covariates]
    labels = next((obs[name] for name in obs if name not in covariates and _names_groups(obs[name])), None)
    try:
        return versus_pca(evidence, roles, labels)
    except InputError as error:  # too few observations for a PCA: the run itself is fine
        say(f"no comparison with PCA: {error}")
        return None


def _names_groups(values: pd.Series) -> bool:
    return values.dtype.name in ("category", "object", "string") and 1 < values.nunique() <= LEVELS


def _sizes(prepared: Prepared, roles: np.ndarray) -> str:
    sizes = ", ".join(f"{len(m.features):,} features of {m.name}" for m in prepared.schema.modalities)
    counts = ", ".join(f"{int((roles == role).sum()):,} {role}" for role in Role)
    return f"{len(roles):,} observations ({counts}); {sizes}"


def _summary(vae: VAE) -> str:
    record, history = vae.fitted.record, vae.history
    bound = history["validation_elbo"].dropna().max() if len(history) else float("nan")
    found = "nothing was held out" if np.isnan(bound) else f"validation bound {bound:.1f} nats per observation"
    return (
        f"fitted in {record['seconds']:.1f} s: {record['epochs']} epochs, {found}, final beta {record['final_beta']:g}"
    )


def _stability(vae: VAE, evidence: Evidence) -> Stability | None:
    """What the fits of an ensemble agree on, cluster by cluster of the first; None for one fit."""
    members = vae.members
    if len(members) < 2:
        return None
    found = evidence.clusters
    return compared(members, evidence.observations, found, clusters=True, seed=evidence.seed, progress=True)
