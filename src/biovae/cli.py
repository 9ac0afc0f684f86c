"""The command line: options turned into recipes once, here; then straight lines.

biovae demo | fit | sweep | embed | sample | check | report | ask QUESTION
"""

import errno
import json
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biovae import __version__
from biovae.errors import BiovaeError, InputError

if TYPE_CHECKING:
    from biovae.diagnostics import Verdict

app = typer.Typer(
    help="Variational autoencoders for biological data: a latent map, a generator, and a verdict on both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

asking = typer.Typer(
    help="Ask a fitted model: words on the screen; tables (CSV) and pictures (PNG) in a folder.", no_args_is_help=True
)
app.add_typer(asking, name="ask")

DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR}


def say(sentence: str) -> None:
    """One line for a person, on standard error, so that standard output stays for results."""
    print(sentence, file=sys.stderr, flush=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """One sentence and an exit code for everything that can go wrong."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BiovaeError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            say(
                "error: expected enough memory, found none left: model fewer features (--features 2000), take smaller "
                "steps (--batch-size), or close other programs."
            )
            raise typer.Exit(InputError.exit_code) from error
        except OSError as error:
            if error.errno not in DISK:
                raise
            say(f"error: expected to be able to write, found: {error}; free some space or choose another folder.")
            raise typer.Exit(7) from error

    return run


def _is_out_of_memory(error: Exception) -> bool:
    """What numpy raises, and what torch does: an error of its own on a GPU, on a CPU its allocator's word."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or of_torch


def _version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Variational autoencoders for biological data."""


Data = Annotated[list[Path], typer.Argument(help=".h5ad .h5mu .zarr, 10x .h5 or folder, .loom, .csv; several: batches")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Transpose = Annotated[bool, typer.Option("--transpose", help="CSV rows are features.")]
Root = Annotated[
    list[str] | None,
    typer.Option(help="Where a trajectory starts: COLUMN=GROUP, or the name of an observation; may be repeated."),
]
KindOfLikelihood = Annotated[str | None, typer.Option("--likelihood", help="negative_binomial, poisson, ...")]
Layer = Annotated[str | None, typer.Option(help="Layer that holds the counts.")]
Features = Annotated[str, typer.Option(help="How many features to model, or 'all'.")]
Covariates = Annotated[str, typer.Option(help="Columns of obs, separated by commas.")]
Latent = Annotated[int, typer.Option(min=1, help="Dimensions of z.")]
Hidden = Annotated[int, typer.Option(min=1, help="Width of the layers.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
KindOfModality = Annotated[
    list[str] | None,
    typer.Option("--modality", help="rna, continuous or binary; NAME=KIND, repeated, where a file holds several."),
]
AllowValues = Annotated[bool, typer.Option("--allow-values", help="Fit counts that are not whole numbers.")]
KindOfObjective = Annotated[str, typer.Option("--objective", help="elbo, iwae, total_correlation.")]
Passes = Annotated[str, typer.Option("--epochs", help="A number, or 'auto'.")]
BatchName = Annotated[
    str | None, typer.Option("--batch", help="Name of the covariate that tells several files apart; 'batch'.")
]


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
    workers: Annotated[int, typer.Option(min=1, help="Fits side by side, in processes of their own.")] = 1,
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
def embed(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The .h5ad to write.")] = Path("embedded.h5ad"),
    missing: Annotated[str, typer.Option(help="Features that the data lack: error or zero.")] = "error",
    unseen: Annotated[str, typer.Option(help="Unknown covariate levels: error or zero.")] = "error",
    transpose: Transpose = False,
) -> None:
    """Posterior means of new data, into obsm["X_vae"]."""
    from biovae.run.command import embed_file

    embed_file(run, data, out, {"missing": missing, "unseen": unseen, "transpose": transpose})
    say(f'wrote {out} with obsm["X_vae"]')


@app.command()
@guarded
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many observations.")] = 1000,
    out: Annotated[Path, typer.Option(help="The .h5ad (or .h5mu) to write.")] = Path("sample.h5ad"),
    seed: Seed = 0,
) -> None:
    """New observations from the prior."""
    from biovae.run.command import check_parent, open_model

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


Run = Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")]
Own = Annotated[list[Path] | None, typer.Argument(help="Files, if other than the observations of the run.")]
Answers = Annotated[Path | None, typer.Option("--out", help="Folder of the answer; RUN/QUESTION where not given.")]
Groups = Annotated[str | None, typer.Option(help="Column of obs; clusters of the latent space where not given.")]


@asking.command()
@guarded
def differential(  # noqa: PLR0913 - the options of a command
    run: Run,
    data: Own = None,
    groups: Annotated[str, typer.Option(help="Column of obs whose groups are compared.")] = "vae_cluster",
    group: Annotated[str | None, typer.Option(help="One of its groups; each in turn where not given.")] = None,
    reference: Annotated[str | None, typer.Option(help="The group to compare with; all others.")] = None,
    delta: Annotated[float, typer.Option(help="|log2 fold change| up to here counts as none.")] = 0.25,
    out: Answers = None,
) -> None:
    """Which features differ between groups, at a stated false discovery rate."""
    _ask("differential", (run, data, out), groups=groups, group=group, reference=reference, delta=delta)


@asking.command()
@guarded
def dimensions(
    run: Run,
    data: Own = None,
    columns: Annotated[str, typer.Option(help="Columns of obs, separated by commas; all that vary.")] = "",
    sets: Annotated[Path | None, typer.Option(help="GMT file of feature sets, to test each dimension for.")] = None,
    out: Answers = None,
) -> None:
    """What each latent dimension moves, and what it goes with."""
    _ask("dimensions", (run, data, out), columns=_listed(columns), sets=sets)


@asking.command()
@guarded
def holes(run: Run, data: Own = None, groups: Groups = None, out: Answers = None) -> None:
    """Where the data support a state between two groups, and where not."""
    _ask("holes", (run, data, out), groups=groups)


@asking.command()
@guarded
def path(  # noqa: PLR0913 - the options of a command
    run: Run,
    start: Annotated[str, typer.Option("--from", help="A group of --groups, or the name of an observation.")],
    end: Annotated[str, typer.Option("--to", help="The same.")],
    data: Own = None,
    groups: Annotated[str | None, typer.Option(help="Column of obs that --from and --to are groups of.")] = None,
    direct: Annotated[bool, typer.Option("--direct", help="Straight, even where no data are.")] = False,
    out: Answers = None,
) -> None:
    """The way from one state to another that keeps to the data, and the features that switch on it."""
    _ask("path", (run, data, out), start=start, end=end, groups=groups, direct=direct)


@asking.command()
@guarded
def trajectory(  # noqa: PLR0913 - the options of a command
    run: Run,
    root: Annotated[list[str], typer.Option(help="COLUMN=GROUP, or the name of an observation; may be repeated.")],
    data: Own = None,
    groups: Annotated[str | None, typer.Option(help="Column of obs that names the ends; that of --root.")] = None,
    end: Annotated[list[str] | None, typer.Option(help="A group that is an end; may be repeated.")] = None,
    features: Annotated[str, typer.Option(help="To draw, separated by commas; those that change most.")] = "",
    draws: Annotated[int, typer.Option(min=0, help="Posterior draws that tell how sure all this is.")] = 20,
    out: Answers = None,
) -> None:
    """Pseudotime from a root, its branches and ends, and the features that change on the way."""
    how = {"root": root, "groups": groups, "ends": end, "features": _listed(features), "draws": draws}
    _ask("trajectory", (run, data, out), **how)


@asking.command()
@guarded
def prototype(
    run: Run,
    data: Own = None,
    groups: Annotated[str | None, typer.Option(help="Column of obs whose groups it is compared with.")] = None,
    out: Answers = None,
) -> None:
    """What the model holds to be typical, and which groups it is like."""
    _ask("prototype", (run, data, out), groups=groups)


@asking.command()
@guarded
def archetypes(
    run: Run,
    count: Annotated[int, typer.Option(min=2, help="How many archetypes.")],
    data: Own = None,
    groups: Groups = None,
    out: Answers = None,
) -> None:
    """The corners between which observations lie, each observation a mixture of them."""
    _ask("archetypes", (run, data, out), count=count, groups=groups)


def _ask(name: str, where: tuple[Path, list[Path] | None, Path | None], **how: Any) -> None:
    from functools import partial

    from biovae.run import questions
    from biovae.run.ask import Asked, ask

    asked = Asked(name, *where, shlex.join(["biovae", *sys.argv[1:]]))
    print(ask(asked, partial(getattr(questions, name), **how), say))


def _listed(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None


def main() -> None:
    """Entry point of `biovae`."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # a sentence, not a line of code
    app()
