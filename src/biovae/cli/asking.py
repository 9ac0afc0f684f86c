"""`biovae ask QUESTION`: a command for each question of `biovae.run.questions`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from biovae.cli.guard import guarded, say
from biovae.cli.options import Answers, Groups, Missing, Own, Run, Unseen

asking = typer.Typer(
    help="Ask a fitted model: words on the screen; tables (CSV) and pictures (PNG) in a folder.", no_args_is_help=True
)


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
    _ask("holes", (run, data, out), groups=groups, run=run)


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
    stage: Annotated[list[str] | None, typer.Option(help="Known order, to judge by: GROUP[,GROUP]; repeat.")] = None,
    features: Annotated[str, typer.Option(help="To draw, separated by commas; those that change most.")] = "",
    draws: Annotated[int, typer.Option(min=0, help="Posterior draws that tell how sure all this is.")] = 20,
    out: Answers = None,
) -> None:
    """Pseudotime from a root, its branches and ends, and the features that change on the way."""
    order = [_listed(each) or [] for each in stage or []]
    how = {"root": root, "groups": groups, "ends": end, "order": order, "features": _listed(features), "draws": draws}
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


@asking.command()
@guarded
def expression(
    run: Run,
    features: Annotated[str, typer.Option(help="Names, separated by commas.")],
    data: Own = None,
    library: Annotated[float, typer.Option(help="Counts per observation.")] = 1e4,
    own: Annotated[bool, typer.Option("--own", help="At the observations' covariates, not averaged.")] = False,
    out: Answers = None,
) -> None:
    """What every observation would show without noise, at one depth, averaged over batches, between limits."""
    _ask("expression", (run, data, out), features=_listed(features) or [], library=library, own=own)


@asking.command()
@guarded
def imputation(
    run: Run,
    data: Own = None,
    epochs: Annotated[str, typer.Option("--epochs", help="Of each of the two fits: a number, or 'auto'.")] = "auto",
    out: Answers = None,
) -> None:
    """Whether the model fills in hidden counts better than gene means, PCA and diffusion do; fits it twice."""
    _ask("imputation", (run, data, out), epochs=epochs)


@asking.command()
@guarded
def anomalies(
    run: Run,
    data: Own = None,
    groups: Groups = None,
    normal: Annotated[
        str | None, typer.Option(help="Boolean column of obs: ordinary observations that training has not seen.")
    ] = None,
    fdr: Annotated[float, typer.Option(help="Expected share of false calls.")] = 0.1,
    out: Answers = None,
) -> None:
    """Odd observations: surprising, damaged, unsupported, two cells in one; with p-values."""
    _ask("anomalies", (run, data, out), groups=groups, normal=normal, fdr=fdr)


@asking.command()
@guarded
def shift(
    run: Run,
    new: Annotated[list[Path], typer.Argument(help="Files with the new observations.")],
    reference: Annotated[
        list[Path] | None, typer.Option(help="What they are compared with; observations of the run, held out if many.")
    ] = None,
    missing: Missing = "error",
    unseen: Unseen = "error",
    out: Answers = None,
) -> None:
    """Whether new observations are like those of the run, and which observations and features are not."""
    how = {"new": new, "run": None if reference else run, "missing": missing, "unseen": unseen}
    _ask("shift", (run, reference, out), **how)


@asking.command()
@guarded
def counterfactual(  # noqa: PLR0913 - the options of a command
    run: Run,
    column: Annotated[str, typer.Option(help="Column of obs with the condition (or donor, or batch).")],
    source: Annotated[str, typer.Option("--from", help="The condition that the group was seen in.")],
    target: Annotated[str, typer.Option("--to", help="The one that is asked about.")],
    group: Annotated[str, typer.Option(help="COLUMN=GROUP; the other groups of the column are learned from.")],
    data: Own = None,
    observed: Annotated[list[Path] | None, typer.Option(help="The truth, where it is known: it is scored.")] = None,
    out: Answers = None,
) -> None:
    """What a group of observations would look like in the other condition, beside the additive baseline."""
    how = {"column": column, "source": source, "target": target, "group": group, "observed": observed}
    _ask("counterfactual", (run, data, out), **how)


@asking.command()
@guarded
def stability(
    run: Run,
    data: Own = None,
    groups: Groups = None,
    contrasts: Annotated[str | None, typer.Option(help="Column of obs whose levels every fit compares.")] = None,
    root: Annotated[list[str] | None, typer.Option(help="Start of a trajectory that every fit repeats.")] = None,
    out: Answers = None,
) -> None:
    """What the other fits of an ensemble find again, and which claims not to make."""
    _ask("stability", (run, data, out), groups=groups, contrasts=contrasts, root=root)


def _ask(name: str, where: tuple[Path, list[Path] | None, Path | None], **how: Any) -> None:
    from functools import partial

    from biovae.run import questions
    from biovae.run.ask import Asked, ask

    asked = Asked(name, *where, shlex.join(["biovae", *sys.argv[1:]]))
    print(ask(asked, partial(getattr(questions, name), **how), say))


def _listed(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None
