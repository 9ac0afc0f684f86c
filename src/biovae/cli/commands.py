"""Every command but the questions of `ask`: its options turned into recipes once, here; then straight lines."""

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biovae import __version__
from biovae.cli.asking import asking
from biovae.cli.guard import guarded, say
from biovae.cli.options import (
    AllowValues,
    BatchName,
    Covariates,
    Data,
    Features,
    Hidden,
    KindOfLikelihood,
    KindOfModality,
    KindOfObjective,
    Latent,
    Layer,
    Missing,
    Out,
    Passes,
    Root,
    Run,
    Seed,
    Transpose,
    Unseen,
    Workers,
)
from biovae.errors import InputError

if TYPE_CHECKING:
    from biovae.diagnostics import Verdict

app = typer.Typer(
    help="Variational autoencoders for biological data: a latent map, a generator, and a verdict on both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(asking, name="ask")


def _version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Variational autoencoders for biological data."""


@app.command()
@guarded
def fit(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    data: Data,
    out: Out = Path("run"),
    likelihood: KindOfLikelihood = None,
    layer: Layer = None,
    features: Features = "all",
    covariates: Covariates = "",
    size_factor: Annotated[str | None, typer.Option(help="Column of obs used as library size.")] = None,
    modality: KindOfModality = None,
    allow_values: AllowValues = False,
    latent: Latent = 10,
    hidden: Hidden = 128,
    depth: Annotated[int, typer.Option(min=0, help="Number of layers.")] = 1,
    beta: Annotated[float, typer.Option(help="Weight of the KL.")] = 1.0,
    prior: Annotated[str, typer.Option(help="standard_normal, gaussian_mixture, vamp, flow.")] = "standard_normal",
    objective: KindOfObjective = "elbo",
    epochs: Passes = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Observations per step.")] = None,
    seed: Seed = 0,
    ensemble: Annotated[int, typer.Option(min=1, help="Fits with seeds from --seed upwards: what is stable?")] = 1,
    workers: Workers = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    validation: Annotated[str, typer.Option(help="A fraction, or a boolean column of obs.")] = "0.1",
    test: Annotated[str | None, typer.Option(help="Boolean column of obs: never seen in training.")] = None,
    root: Root = None,
    batch: BatchName = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if the verdict is broken.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    transpose: Transpose = False,
) -> None:
    """Fit a model, judge it, and write RUN/ with its report."""
    given = {name: value for name, value in locals().items() if name not in ("context", "config")}
    from biovae.run.command import configured, fit_from_options

    options = configured(given, config, _typed(context))
    verdict = fit_from_options(options, shlex.join(["biovae", *sys.argv[1:]]), say)
    _finish(verdict, Path(options["out"]), strict=options["strict"])


def _typed(context: typer.Context) -> set[str]:
    """The options that were typed: they win over a configuration file."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}


def _finish(verdict: "Verdict", out: Path, *, strict: bool) -> None:
    print(verdict)
    say(f"wrote {out}: open {out / 'report.html'}")
    if strict and str(verdict.overall) == "broken":
        raise typer.Exit(1)


@app.command()
@guarded
def demo(out: Out = Path("demo"), seed: Seed = 0) -> None:
    """Simulate cells with known truth, fit, judge against the truth, report."""
    from biovae.run.demo import demo_run

    verdict = demo_run(out, seed, shlex.join(["biovae", *sys.argv[1:]]), say)
    _finish(verdict, out, strict=False)


@app.command()
@guarded
def sweep(  # noqa: PLR0913 - the options of a command
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for sweep.csv and sweep.png.")] = Path("sweep"),
    betas: Annotated[str, typer.Option(help="Weights of the KL, separated by commas; default: 0.03 to 16.")] = "",
    labels: Annotated[str | None, typer.Option(help="Column of obs: accuracy of neighbours, MIG, DCI, SAP.")] = None,
    factors: Annotated[str, typer.Option(help="Further columns for MIG, DCI, SAP, separated by commas.")] = "",
    likelihood: KindOfLikelihood = None,
    layer: Layer = None,
    features: Features = "all",
    covariates: Covariates = "",
    modality: KindOfModality = None,
    allow_values: AllowValues = False,
    latent: Latent = 10,
    hidden: Hidden = 128,
    objective: KindOfObjective = "elbo",
    epochs: Passes = "auto",
    seeds: Annotated[int, typer.Option(min=1, help="Fits of every beta.")] = 1,
    workers: Workers = None,
    batch: BatchName = None,
    transpose: Transpose = False,
) -> None:
    """Fit a model at several betas, and say which to take for imputation and for discovery."""
    given = locals()
    from biovae.run.sweep import sweep_from_options

    print(sweep_from_options(given, say))
    say(f"wrote {out / 'sweep.csv'} and {out / 'sweep.png'}")


@app.command()
@guarded
def compare(  # noqa: PLR0913 - the options of a command
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for compare.csv and compare.png.")] = Path("compare"),
    likelihoods: Annotated[str, typer.Option(help="Kinds, separated by commas; default: four for counts.")] = "",
    latents: Annotated[str, typer.Option(help="Dimensions of z, separated by commas; default: 10.")] = "",
    layer: Layer = None,
    features: Features = "all",
    covariates: Covariates = "",
    modality: KindOfModality = None,
    allow_values: AllowValues = False,
    hidden: Hidden = 128,
    epochs: Passes = "auto",
    test: Annotated[float, typer.Option(min=0, max=1, help="Fraction that no fit sees, and that is scored.")] = 0.2,
    seeds: Annotated[int, typer.Option(min=1, help="Fits of every candidate.")] = 1,
    workers: Workers = None,
    batch: BatchName = None,
    transpose: Transpose = False,
) -> None:
    """Fit several likelihoods and sizes to one split, and say which to take."""
    given = locals()
    from biovae.run.compare import compare_from_options

    print(compare_from_options(given, say))
    say(f"wrote {out / 'compare.csv'} and {out / 'compare.png'}")


@app.command()
@guarded
def embed(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="The .h5ad to write.")] = Path("embedded.h5ad"),
    missing: Missing = "error",
    unseen: Unseen = "error",
    transpose: Transpose = False,
) -> None:
    """Posterior means of new data, into obsm["X_vae"]."""
    from biovae.run.command import embed_file

    embed_file(run, data, out, {"missing": missing, "unseen": unseen, "transpose": transpose})
    say(f'wrote {out} with obsm["X_vae"]')


@app.command()
@guarded
def sample(
    run: Run,
    n: Annotated[int, typer.Option("--n", min=1, help="How many observations.")] = 1000,
    out: Annotated[Path, typer.Option(help="The .h5ad (or .h5mu) to write.")] = Path("sample.h5ad"),
    seed: Seed = 0,
) -> None:
    """New observations from the prior."""
    from biovae.run.command import check_parent
    from biovae.run.opening import open_model

    check_parent(out)
    open_model(run).sample(n, seed=seed).write(out)
    say(f"wrote {out} with {n} observations")


@app.command()
@guarded
def check(  # noqa: PLR0913 - the options of a command
    data: Data,
    layer: Layer = None,
    modality: KindOfModality = None,
    allow_values: AllowValues = False,
    batch: BatchName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    transpose: Transpose = False,
) -> None:
    """Look at every value once, as fit would, and say what was found."""
    from biovae.run.command import check_file

    try:
        how = {"layer": layer, "modality": modality, "allow_values": allow_values}
        found = check_file(data, how | {"batch": batch, "transpose": transpose})
    except InputError as error:
        if as_json:
            print(json.dumps({"ok": False, "error": str(error), "notices": []}))
        raise
    print(json.dumps({"ok": True, "error": None, "notices": found}) if as_json else "\n".join(found))


@app.command()
@guarded
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path | None, typer.Argument(help="The data, if other than those of the run.")] = None,
    root: Root = None,
) -> None:
    """Write the HTML report again."""
    from biovae.run.command import report_again

    say(f"wrote {report_again(run, data, say, root or ())}")


def main() -> None:
    """Entry point of `biovae`."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # a sentence, not a line of code
    app()
