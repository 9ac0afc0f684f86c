"""From the words of the command line to recipes and files."""

import json
import tomllib
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from pydantic import ValidationError

from biovae.data import quiet, recognise, stem
from biovae.diagnostics import Verdict
from biovae.errors import InputError, closest
from biovae.modalities import Modality, binary, continuous, rna
from biovae.model import VAE
from biovae.model.fitting import Options
from biovae.model.several import cores
from biovae.run.findings import OWN
from biovae.run.folder import Request, Say, fit_run, judged, writable, write_page
from biovae.run.metrics import sha256
from biovae.run.opening import data_of, open_data, open_model, opened, roles_of
from biovae.tools.pp import check
from biovae.training.plan import Epochs

LARGE = 2**22  # values: a fit of fewer is done before a process for it has begun
BATCH = "batch"  # the covariate that tells files apart
USUAL = {
    "size_factor": None, "depth": 1, "beta": 1.0, "prior": "standard_normal", "latent": 10, "likelihood": None,
    "objective": "elbo",
}  # of the options of `fit` that another command may lack  # fmt: skip
KINDS: dict[str, Callable[..., Modality]] = {"rna": rna, "continuous": continuous, "binary": binary}


def fit_from_options(o: dict[str, Any], command: str, say: Say) -> Verdict:
    """Run `biovae fit`."""
    data, vae, notices = described(o)
    options = Options(
        epochs=epochs_of(o["epochs"]),
        batch_size=o["batch_size"],
        seed=o["seed"],
        device=o["device"],
        checkpoints=Path(o["out"]) / "checkpoints",
        resume=o["resume"],
        ensemble=o["ensemble"],
        workers=workers_of(o["workers"], data, o["ensemble"], o["device"]),
    )
    request = Request(
        data=data,
        vae=vae,
        out=Path(o["out"]),
        options=options,
        validation=_fraction_or_column(o["validation"]),
        test=o["test"],
        title=" + ".join(p.name for p in map(Path, o["data"])),
        command=command,
        data_sha256="+".join(sha256(Path(p)) for p in o["data"]),
        notices=tuple(notices),
        root=(o["root"],) if isinstance(o["root"], str) else tuple(o["root"] or ()),
    )
    return fit_run(request, say)


def workers_of(asked: int | None, data: AnnData | MuData, fits: int, device: str = "cpu") -> int:
    """As many fits side by side as there are cores, unless told otherwise; one at a time where processes cost more."""
    pays = device == "cpu" and data.n_obs * data.n_vars >= LARGE
    return min(asked or (cores() if pays else 1), max(fits, 1))


def described(o: dict[str, Any]) -> tuple[AnnData | MuData, VAE, list[str]]:
    """The data and the model that the options describe, and what there is to say about joining files."""
    batch = o["batch"] or BATCH
    data, notices = open_data(o["data"], batch, transpose=o["transpose"])
    covariates = words(o["covariates"])
    if len(o["data"]) > 1:
        covariates = [batch, *(name for name in covariates if name != batch)]  # first: see `run.opening.opened`
    elif o["batch"] is not None:
        raise InputError(
            f"expected several files for --batch, which names the covariate that tells them apart, found one: for a "
            f"column of obs give --covariates {batch}."
        )
    return data, build(o, data, covariates), notices


def build(o: dict[str, Any], data: AnnData | MuData, covariates: Sequence[str]) -> VAE:
    """The recipe that the options describe; what pydantic refuses becomes one sentence."""
    try:
        return VAE(
            *_modalities(o, data),
            covariates=covariates,
            latent=o["latent"],
            hidden=o["hidden"],
            depth=o["depth"],
            beta=o["beta"],
            prior=o["prior"],
            objective=o["objective"],
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(
            f"expected options that make a model, found {where} = {problem['input']!r}: {problem['msg']}."
        ) from error


def _modalities(o: dict[str, Any], data: AnnData | MuData) -> list[Modality]:
    words = [o["modality"]] if isinstance(o["modality"], str) else o["modality"] or []
    if isinstance(data, AnnData):
        return [_modality(_kind(words), o)]
    asked = dict(_pair(text) for text in words)
    unknown = [name for name in asked if name not in data.mod]
    if unknown:
        raise InputError(f"expected a modality of the file, found {unknown[0]!r}: {closest(unknown[0], data.mod)}")
    kinds = recognise(data, o["layer"]) | asked
    given = _given(o) | {n: o[n] for n in ("layer", "features") if o[n] not in (None, "all")}
    if "rna" not in kinds.values() and given:
        raise InputError(
            f"expected a modality of counts for {_option(given)}, found {', '.join(kinds.values())}: leave it out, or "
            "name one by --modality NAME=rna."
        )
    # The other options speak of counts where there are several modalities: no two share layers and likelihoods.
    return [
        _modality(kind, o, name=name, mod=name) if kind == "rna" else KINDS[kind](name=name, mod=name)
        for name, kind in kinds.items()
    ]


def _given(o: dict[str, Any]) -> dict[str, Any]:
    """The options of a modality that not every kind has, as far as they were typed."""
    return {name: o[name] for name in ("likelihood", "size_factor", "allow_values") if o[name]}


def _option(given: dict[str, Any]) -> str:
    return "--" + next(iter(given)).replace("_", "-")


def _modality(kind: str, o: dict[str, Any], **names: str) -> Modality:
    """The recipe of one kind of measurement with the options that it knows.

    Raises:
        InputError: An option was given that only another kind has.
    """
    features = o["features"] if o["features"] == "all" else _whole(o["features"], "features")
    given = _given(o)
    if unknown := {name: given[name] for name in given if name not in signature(KINDS[kind]).parameters}:
        raise InputError(f"expected options of a {kind} modality, found {_option(unknown)}: leave it out.")
    return KINDS[kind](o["layer"], features=features, **given, **names)


def _kind(words: Sequence[str]) -> str:
    """What the values of a file without named modalities are: counts, unless told otherwise."""
    if not words:
        return "rna"
    if len(words) > 1 or words[0] not in KINDS:
        raise InputError(
            f"expected one --modality KIND, since this file holds a single matrix, found {' '.join(words)!r}: "
            + closest(words[0].rpartition("=")[2], KINDS)
        )
    return words[0]


def _pair(text: str) -> tuple[str, str]:
    name, _, kind = text.partition("=")
    if kind not in KINDS:
        raise InputError(
            f"expected --modality NAME=KIND, since this file holds several, found {text!r}: "
            + closest(kind or name, KINDS)
        )
    return name, kind


def embed_file(run: Path, paths: Sequence[Path], out: Path, how: dict[str, Any]) -> None:
    """Run `biovae embed`."""
    vae = open_model(run)
    check_parent(out)
    data = opened(vae, paths, transpose=how["transpose"])
    z = vae.embed(data, missing=how["missing"], unseen=how["unseen"])
    data.obsm["X_vae"] = z
    with quiet():
        if isinstance(data, MuData):
            data = AnnData(np.zeros((data.n_obs, 0), np.float32), obs=data.obs.copy(), obsm={"X_vae": z})
        data.obs = writable(data.obs)
        data.write_h5ad(out)


def check_file(paths: Sequence[Path], how: dict[str, Any]) -> list[str]:
    """Run `biovae check`: the sentences of the data gate."""
    data, notices = open_data(paths, how["batch"] or BATCH, transpose=how["transpose"])
    found = check(data, *_modalities({"features": "all", "size_factor": None, "likelihood": None} | how, data))
    return [*notices, *found, "nothing stands in the way of a fit"]


def report_again(run: Path, data: Path | None, say: Say, root: Sequence[str] = ()) -> Path:
    """Run `biovae report`: the model judged once more, on the run's own observations or on others; one page is written.

    Observations that the run trained on keep their roles; all others it has never seen.
    """
    vae = open_model(run)
    adata = data_of(vae, run, None if data is None else [data])
    adata.obs = adata.obs.drop(columns=OWN, errors="ignore")  # found again below
    prepared = vae.observe(adata)
    roles, own = roles_of(run, prepared.obs_names)
    request = Request(
        data=adata,
        vae=vae,
        out=run,
        options=Options(),
        title=(data or run / "embedded.h5ad").name,
        command=f"biovae report {run}" if data is None else f"biovae report {run} {data}",
        data_sha256="" if data is None else sha256(data),
        root=tuple(root),
    )
    found = judged(request, prepared, roles, say)
    if own and (run / "metrics.json").exists():
        found.about["metrics"] |= json.loads((run / "metrics.json").read_text())  # those of the fit
    page = run / ("report.html" if own or data is None else f"report-{stem(data)}.html")
    write_page(found, page)
    return page


def configured(given: dict[str, Any], config: Path | None, explicit: set[str]) -> dict[str, Any]:
    """The options of fit: what was typed wins over the configuration file, which wins over the defaults."""
    if config is None:
        return given
    try:
        table = tomllib.loads(config.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"expected a TOML file of options in {config}, found: {error}.") from error
    options = {name.replace("-", "_"): value for name, value in table.items()}
    for name in options:
        if name not in given:
            raise InputError(f"expected options of fit in {config}, found {name!r}: {closest(name, given)}")
    text = {n: ",".join(v) if n == "covariates" and isinstance(v, list) else v for n, v in options.items()}
    for name in ("epochs", "validation", "features"):
        if name in text:
            text[name] = str(text[name])
    return given | {name: value for name, value in text.items() if name not in explicit}


def words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def check_parent(out: Path) -> None:
    """Refuse a file in a folder that is not there, before hours of work are lost on it."""
    if not out.absolute().parent.is_dir():
        raise InputError(f"expected a folder for {out.name}, found no {out.absolute().parent}: make it first.")


def epochs_of(text: str) -> Epochs:
    """A number of passes, or "auto"."""
    return "auto" if text == "auto" else _whole(text, "epochs")


def _whole(text: str, name: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"expected a whole number above 0 for --{name} or its word, found {text!r}.")
    return int(text)


def _fraction_or_column(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
