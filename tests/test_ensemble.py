"""Several fits of one recipe: their seeds, their files, one after another or side by side, and how they end early."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import biovae as bv
from biovae.batch import Observations, SparseMatrix
from biovae.datasets import Scenario, Technical, simulate
from biovae.errors import InputError, ModelFileError
from biovae.model.shared import lay_out, pick_up

EPOCHS = 6


@pytest.fixture(scope="module")
def cells():
    return simulate(Scenario(technical=Technical(batches=1)), cells=240, genes=50, seed=0)


def model(**change):
    return bv.VAE(bv.rna(), **({"latent": 3, "hidden": 16} | change))


@pytest.fixture(scope="module")
def fitted(cells):
    return model().fit(cells, epochs=EPOCHS, ensemble=3, seed=4, progress=False)


def weights(vae):
    return {name: value.clone() for name, value in vae.network.state_dict().items()}


def same(one, other):
    return all(bool((other[name] == value).all()) for name, value in one.items())


def test_members_are_the_fits_of_seeds_in_a_row_to_one_split(cells, fitted):
    assert [m.fitted.record["seed"] for m in fitted.members] == [4, 5, 6]
    alone = model().fit(cells, epochs=EPOCHS, seed=4, progress=False)
    assert same(weights(fitted), weights(alone))
    assert same(weights(fitted.members[0]), weights(alone))
    np.testing.assert_array_equal(fitted.embed(cells), alone.embed(cells))
    prepared = model().prepare(cells)
    roles = model().roles(cells, prepared, seed=4)
    from biovae.model.fitting import Options

    second = model().fit_prepared(prepared, roles, Options(epochs=EPOCHS, seed=5, progress=False))
    assert same(weights(fitted.members[1]), weights(second))
    assert not same(weights(fitted.members[1]), weights(fitted.members[2]))
    assert "3 fits" in repr(fitted)
    assert "fits" not in repr(alone)


def test_a_single_fit_has_itself_as_member_and_forgets_an_earlier_ensemble(cells):
    vae = model().fit(cells, epochs=1, ensemble=2, progress=False)
    assert len(vae.members) == 2
    vae.fit(cells, epochs=1, progress=False)
    (only,) = vae.members
    assert same(weights(vae), weights(only))
    with pytest.raises(InputError, match="call fit"):
        _ = model().members


def test_an_ensemble_of_none_is_refused(cells):
    with pytest.raises(InputError, match="1 fit or more"):
        model().fit(cells, ensemble=0, progress=False)


def test_an_ensemble_comes_back_from_disk_whole(cells, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again = bv.load(tmp_path / "model")
    assert len(again.members) == 3
    for one, other in zip(fitted.members, again.members, strict=True):
        assert same(weights(one), weights(other))
        pd.testing.assert_frame_equal(one.history, other.history)
        assert one.fitted.record == other.fitted.record
    fitted.members[1].save(tmp_path / "one")
    assert len(bv.load(tmp_path / "one").members) == 1


def test_a_member_without_its_weights_is_refused(fitted, tmp_path):
    from biovae import artifact

    fitted.save(tmp_path / "model")
    documents, tensors = artifact.read(tmp_path / "model", kind="model")
    lost = {name: t for name, t in tensors.items() if not name.startswith("others.1.")}
    artifact.write(tmp_path / "broken", documents, lost, kind="model")
    with pytest.raises(ModelFileError, match="missing"):
        bv.load(tmp_path / "broken")
    documents["config"]["others"][0] = 7
    artifact.write(tmp_path / "strange", documents, tensors, kind="model")
    with pytest.raises(ModelFileError, match="recipe"):
        bv.load(tmp_path / "strange")


def test_each_fit_says_which_it_is(cells, capsys):
    model().fit(cells, epochs=1, ensemble=2)
    said = capsys.readouterr().err
    assert "fit 1 of 2, seed 0" in said
    assert "fit 2 of 2, seed 1" in said
    model().fit(cells, epochs=1)
    assert "fit 1" not in capsys.readouterr().err


INTERRUPTED = """
import os, signal, sys, threading, time
import biovae as bv
from biovae.datasets import simulate
from biovae.model import ensemble
once = ensemble.fit
def fit(recipe, prepared, roles, options):
    if options.seed == 2:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        options = ensemble.replace(options, epochs=100_000)
    return once(recipe, prepared, roles, options)
ensemble.fit = fit
adata = simulate(cells=150, genes=20, seed=0)
vae = bv.VAE(bv.rna(), latent=2, hidden=8).fit(adata, epochs=3, ensemble=4, progress=False)
print(len(vae.members), vae.fitted.record["interrupted"], vae.fitted.record["events"])
"""


def test_an_interrupt_keeps_the_fits_that_are_whole():
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.startswith("2 False"), found.stdout + found.stderr
    assert "interrupted in fit 3 of 4: it was dropped" in found.stdout


def test_an_ensemble_with_checkpoints_resumes_to_the_same_weights(cells, tmp_path):
    whole = model().fit(cells, epochs=3, ensemble=2, progress=False)
    kept = model().fit(cells, epochs=3, ensemble=2, checkpoints=tmp_path / "c", progress=False)
    assert {p.name for p in (tmp_path / "c").iterdir() if p.is_dir()} >= {"fit-2"}
    again = model().fit(cells, epochs=3, ensemble=2, checkpoints=tmp_path / "c", resume=True, progress=False)
    longer = model().fit(cells, epochs=3, ensemble=3, checkpoints=tmp_path / "c", resume=True, progress=False)
    for a, b, c, d in zip(whole.members, kept.members, again.members, longer.members, strict=False):
        assert same(weights(a), weights(b))
        assert same(weights(a), weights(c))
        assert same(weights(a), weights(d))
    assert len(longer.members) == 3


# side by side


def test_fits_side_by_side_are_those_of_one_after_another(cells, capfd):
    batches = cells.copy()
    batches.obs["batch"] = np.where(np.arange(len(cells)) % 3, "a", "b")
    vae, threads = model(covariates=["batch"]), torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # as each of two workers has: among more of them sums have other bits
    turns = vae.fit(batches, epochs=EPOCHS, ensemble=3, seed=4, progress=False).members
    torch.set_num_threads(threads)
    capfd.readouterr()
    beside = vae.fit(batches, epochs=EPOCHS, ensemble=3, seed=4, workers=2).members
    said = capfd.readouterr().err
    assert "3 fits, 2 at a time" in said
    assert "fit 3 of 3 done: seed" in said
    assert "fitting" not in said
    for one, other in zip(turns, beside, strict=True):
        assert same(weights(one), weights(other))
        assert same(one.fitted.null.state_dict(), other.fitted.null.state_dict())
        pd.testing.assert_frame_equal(one.history.drop(columns="seconds"), other.history.drop(columns="seconds"))
        known = one.fitted.record | {"seconds": None}
        assert known == other.fitted.record | {"seconds": None}
    np.testing.assert_array_equal(beside[1].embed(batches), turns[1].embed(batches))


def test_one_worker_and_one_fit_need_no_process(cells, monkeypatch):
    from biovae.model import ensemble

    monkeypatch.setattr(ensemble, "several", None)
    assert len(model().fit(cells, epochs=1, ensemble=2, workers=1, progress=False).members) == 2
    assert len(model().fit(cells, epochs=1, workers=8, progress=False).members) == 1


def test_workers_that_cannot_be_are_refused(cells):
    with pytest.raises(InputError, match="workers of at least 1, found 0"):
        model().fit(cells, ensemble=2, workers=0, progress=False)
    with pytest.raises(InputError, match="one fit at a time on 'mps', found 2"):
        model().fit(cells, ensemble=2, workers=2, device="mps", progress=False)


def test_observations_come_back_from_their_files(tmp_path):
    rng = np.random.default_rng(0)
    counts = SparseMatrix.from_scipy(rng.poisson(0.3, (20, 7)).astype(np.float32))
    nothing = SparseMatrix.from_scipy(np.zeros((20, 3), np.float32))
    reals = torch.from_numpy(rng.normal(size=(20, 4)).astype(np.float32))
    exposure = torch.from_numpy(rng.gamma(2, 1, (20, 1)).astype(np.float32))
    present = torch.from_numpy(rng.random(20) < 0.5)
    given = Observations((counts, reals, nothing), (exposure, None, None), (None, present, None), torch.zeros(20, 0))
    lay_out(given, tmp_path)
    found = pick_up(tmp_path, 3)
    rows = torch.tensor([3, 0, 19, 3])
    for one, other in zip(parts(given.batch(rows)), parts(found.batch(rows)), strict=True):
        assert one is other is None or (one.dtype == other.dtype and torch.equal(one, other))
    assert found.nbytes == given.nbytes
    found.x[1][0, 0] = 7.0  # a page of its own: the file, and who else reads it, keep their value
    assert torch.equal(pick_up(tmp_path, 3).x[1], reals)


def parts(batch):
    x = [tensor for x in batch.x for tensor in ((x.row, x.column, x.value) if hasattr(x, "row") else (x,))]
    return [*x, *batch.exposure, *batch.present, batch.covariates]


SIDE_BY_SIDE = """
import hashlib, os, signal, sys, threading, time
from pathlib import Path
import biovae as bv
from biovae.datasets import simulate
from biovae.model import ensemble, fitting

def digest(vae):
    tensors = [t.numpy().tobytes() for m in vae.members for t in m.network.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()

def fit(**how):
    adata = simulate(cells=150, genes=20, seed=0)
    return bv.VAE(bv.rna(), latent=2, hidden=8).fit(adata, progress=False, ensemble=2, workers=2, **how)
"""

AT_ONCE = (
    SIDE_BY_SIDE
    + """
if __name__ == "__main__":
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        fit(epochs=10**6, checkpoints="kept")
    except bv.Interrupted as error:
        print(error.exit_code, error)
"""
)

ONE_IS_DONE = (
    SIDE_BY_SIDE
    + """
once, several = ensemble.fit, ensemble.several
def endless(recipe, prepared, roles, options):  # runs in the workers
    return once(recipe, prepared, roles, ensemble.replace(options, epochs=[3, 10**6][options.seed]))
def and_interrupt(*given, **how):  # runs here, once the first fit is there
    for each in several(*given, **how):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        yield each
ensemble.fit, ensemble.several = endless, and_interrupt
if __name__ == "__main__":
    vae = fit(epochs=3)
    print(len(vae.members), vae.fitted.record["seed"], vae.fitted.record["events"])
"""
)

TERMINATED = (
    SIDE_BY_SIDE
    + """
watch = fitting.watch
def and_wait(*given, **how):  # in the workers: whoever is second at the third step ends them both
    for p in watch(*given, **how):
        if "TERMINATE" in os.environ and p.step >= 3:
            Path(f"{os.getpid()}.waits").touch()
            if p.step == 3 and len(list(Path().glob("*.waits"))) == 2:
                os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.3)
        yield p
fitting.watch = and_wait
if __name__ == "__main__":
    try:
        print(digest(fit(epochs=30, checkpoints="kept", resume="TERMINATE" not in os.environ)))
    except bv.Interrupted as error:
        print(error.exit_code, error, sorted(str(path) for path in Path("kept").rglob("step-*")))
    if "TERMINATE" not in os.environ:
        print(digest(fit(epochs=30)))
"""
)

KILLED = (
    SIDE_BY_SIDE
    + """
once = ensemble.fit
def told(*given):  # in the workers
    print(os.getpid(), flush=True)
    return once(*given)
ensemble.fit = told
if __name__ == "__main__":
    fit(epochs=10**6)
"""
)


def script(text, folder, **environment):
    path = folder / "script.py"
    path.write_text(text)
    (folder / "temporary").mkdir(exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name != "TERMINATE"}
    own |= {"TMPDIR": str(folder / "temporary")} | environment
    return subprocess.Popen(
        [sys.executable, path], cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(process):
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out


def test_an_interrupt_keeps_those_fits_side_by_side_that_are_whole(tmp_path):
    assert outcome(script(ONE_IS_DONE, tmp_path)) == "1 0 ['interrupted with 1 of 2 fits done: others were dropped']\n"
    assert not list((tmp_path / "temporary").glob("biovae-*"))


def test_fits_side_by_side_write_checkpoints_when_they_are_ended_and_resume(tmp_path):
    said = outcome(script(TERMINATED, tmp_path, TERMINATE="1"))
    assert said.startswith("143 interrupted with 0 of 2 fits done: checkpoints were written"), said
    assert "'kept/step-" in said
    assert "kept/fit-2/step-" in said
    assert not list((tmp_path / "temporary").glob("biovae-*"))
    resumed, anew = outcome(script(TERMINATED, tmp_path)).split()
    assert resumed == anew


def test_nothing_is_promised_before_there_is_a_checkpoint(tmp_path):
    said = outcome(script(AT_ONCE, tmp_path))
    assert said == "143 interrupted with 0 of 2 fits done: nothing was written yet.\n"


def test_workers_end_when_their_parent_is_killed(tmp_path):
    process = script(KILLED, tmp_path)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(lives, workers))
    process.kill()
    process.wait()
    patience = time.monotonic() + 30
    while any(map(lives, workers)) and time.monotonic() < patience:
        time.sleep(0.2)
    assert not any(map(lives, workers))
    process.stdout.close()
    process.stderr.close()


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
