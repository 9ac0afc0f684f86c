"""What ensembles are worth and what they cost: `python -m benchmarks.ensemble WAY [DATA]`.

`types`: clear types, and how often intervals hold the truth, of one fit and of all. `nothing`: cells that are all
alike. `real`: files with labels. `ways`: seconds of two fits one after the other, and in two processes at once.
"""

import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd

import biovae as bv
import biovae.analysis
from benchmarks.common import load, spread
from biovae.datasets import expected, scenarios, simulate

SEEDS, FITS, CELLS, GENES = (0, 1, 2), 3, 400, 200
TYPES = scenarios.TYPES.but(technical={"batches": 1})
NOTHING = scenarios.NOTHING.but(technical={"batches": 1})
SHOWN = 50  # genes whose expression is looked at, spread over the upper 70 % of means
FILES = ("pbmc3k_hvg2000", "pancreas_endocrinogenesis_velocity", "worm_neurons")
ONE = """
import os, sys, time
import benchmarks.ensemble as e
adata = e.load(sys.argv[1], e.FILES[0])[0]
vae = e.bv.VAE(e.bv.rna())
vae.fit(adata, epochs=2, progress=False)
print("ready", flush=True)
sys.stdin.readline()
vae.fit(adata, epochs=int(sys.argv[2]), seed=int(sys.argv[3]), progress=False)
print("done", flush=True)
"""


def ensemble(adata, seed, fits=FITS):
    return bv.VAE(bv.rna()).fit(adata, seed=100 * seed, ensemble=fits, progress=False)


def types():
    """Five clear types: agreement, and shares of true values inside the intervals of the first fit and of all fits."""
    rows = []
    for seed in SEEDS:
        adata = simulate(TYPES, cells=CELLS, genes=GENES, seed=seed)
        vae = ensemble(adata, seed)
        tell(bv.tl.stability(vae, adata, groups="cell_type"))
        rows.append({"seed": seed} | expression_coverage(vae, adata) | differential_coverage(vae, adata))
        print(pd.DataFrame(rows).round(3).T.to_string(), flush=True)


def nothing():
    """Agreement where all cells are alike."""
    for seed in SEEDS:
        adata = simulate(NOTHING, cells=CELLS, genes=GENES, seed=seed)
        tell(bv.tl.stability(ensemble(adata, seed), adata))


def tell(found):
    own = ["observations", "neighbours", "clusters", "together", "mixes_with", "mixed", "stable"]
    print(f"{found.summary.round(3).to_string()}\n{found.groups[own].round(2).to_string()}\n{found}\n", flush=True)


def expression_coverage(vae, adata):
    """Nominal 90 %; truth is the composition that the simulated biology asks for."""
    order = np.argsort(adata.var["baseline_true"].to_numpy())
    genes = np.sort(order[np.linspace(0.3 * len(order), len(order) - 1, SHOWN).astype(int)])
    names, true = list(adata.var_names[genes]), expected(adata)[:, genes] * 1e4
    one = vae.expression(adata, features=names, samples=25)
    every = bv.tl.ensemble_expression(vae, adata, names)

    def inside(told):
        return float(((told.lower <= true) & (true <= told.upper)).to_numpy().mean())

    errors = [np.abs(np.log(told.mean.to_numpy() / true)).mean() for told in (one, every)]
    width = [float(np.log(told.upper / told.lower).to_numpy().mean()) for told in (one, every)]
    return {
        "expression, one": inside(one), "all": inside(every), "width, one": width[0], "width, all": width[1],
        "error, one": errors[0], "error, all": errors[1],
    }  # fmt: skip


def differential_coverage(vae, adata):
    """Nominal 95 %; truth is the log2 ratio of mean compositions."""
    share, kind = expected(adata), adata.obs["cell_type"].astype(str).to_numpy()
    found = bv.tl.stability(vae, adata, contrasts="cell_type").calls
    one = bv.tl.differential(vae, adata, "cell_type").frame.set_index(["group", "feature"])
    held = false = first = first_false = 0
    hits = []
    for name, rows in found.groupby("group"):
        inside = kind == name
        true = pd.Series(np.log2(share[inside].mean(0) / share[~inside].mean(0)), adata.var_names)
        rows = rows.set_index("feature").dropna()
        own, at = one.loc[name].loc[rows.index], true[rows.index]
        hits.append(
            pd.DataFrame(
                {name: (told["lower"] <= at) & (at <= told["upper"]) for name, told in (("one", own), ("all", rows))}
            )
        )
        in_all = rows["called"] == len(vae.members)
        wrong = at.abs() <= 0.25
        held, false = held + int(in_all.sum()), false + int((in_all & wrong).sum())
        first, first_false = first + int(rows["first"].sum()), first_false + int((rows["first"] & wrong).sum())
    share_inside = pd.concat(hits).mean()
    return {
        "fold changes, one": share_inside["one"], "fold changes, all": share_inside["all"], "calls of the first": first,
        "false": first_false / max(first, 1), "held in all": held, "false of those": false / max(held, 1),
    }  # fmt: skip


def real(folder, *names):
    """Files with labels: clusters, and labels."""
    for name in names or FILES:
        adata, _, labels = load(folder, name)
        adata.obs["label"] = labels
        start = time.perf_counter()
        vae = ensemble(adata, 0)
        fitted = time.perf_counter()
        root = {"label": "Ductal"} if name.startswith("pancreas") else None
        found = bv.tl.stability(vae, adata, contrasts="label", root=root)
        print(f"\n{name}: {fitted - start:.0f} s to fit, {time.perf_counter() - fitted:.0f} s to compare", flush=True)
        tell(found)
        labelled = bv.tl.stability(vae, adata, groups="label")
        tell(labelled)
        each = [bv.analysis.label_accuracy(z, labels) for z in found.aligned]
        mean = bv.analysis.label_accuracy(found.aligned.mean(0), labels)
        print(f"label accuracy: fits {spread(each, 3)}, mean of the aligned fits {mean:.3f}", flush=True)


def ways(folder, epochs=30, repeats=3):
    """Two fits, in turns: one after the other with all cores, and at once with one core each, imports not counted."""
    found = {"one after the other": [], "two processes": []}
    for _ in range(repeats):
        with_all = [worker(folder, epochs, 0, os.cpu_count())]
        found["one after the other"].append(timed(with_all) + timed([worker(folder, epochs, 1, os.cpu_count())]))
        found["two processes"].append(timed([worker(folder, epochs, seed, 1) for seed in (0, 1)]))
        print({name: spread(seconds, 2) for name, seconds in found.items()}, flush=True)


def worker(folder, epochs, seed, threads):
    """A process that has imported, read and compiled everything, and waits for the word."""
    number = str(threads)
    environment = os.environ | {"OMP_NUM_THREADS": number, "NUMBA_NUM_THREADS": number}
    words = [sys.executable, "-c", ONE, folder, str(epochs), str(seed)]
    process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    return process


def timed(processes):
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.stdout.readline()
    seconds = time.perf_counter() - start
    for process in processes:
        process.communicate()
    return seconds


if __name__ == "__main__":
    {"types": types, "nothing": nothing, "real": real, "ways": ways}[sys.argv[1]](*sys.argv[2:])
