"""What was written comes back bit for bit; whatever else lies there is refused in one sentence, and never run."""

import errno
import hashlib
import json
import os
import pickle
import struct
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from biovae import artifact
from biovae.errors import InputError, ModelFileError

resource = pytest.importorskip("resource", reason="limits on files and memory are POSIX")

DOCUMENTS = {"config": {"latent": 10, "features": ["Gène/1", "<b>", ""]}, "history": {"elbo": [-1.5, -1.25]}}
TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    "double": torch.tensor([1e-300, -0.0], dtype=torch.float64),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "steps": torch.tensor(12),
    "mask": torch.tensor([True, False]),
    "nothing": torch.empty(0, 4),
}


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "sub dir ü" / "a.vae"
    artifact.write(path, DOCUMENTS, TENSORS, kind="model")
    return path


def reseal(path: Path, change) -> None:
    """Change the manifest as an attacker would: with a valid hash of its own."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_bytes(artifact._sealed(manifest))


def replace(path: Path, name: str, data: bytes) -> None:
    """Plant a file whose size and hash the manifest vouches for."""
    (path / name).write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(path, lambda manifest: manifest["files"].update({name: entry}))


def refused(path: Path, match: str, **options) -> None:
    with pytest.raises(ModelFileError, match=match) as caught:
        artifact.read(path, kind="model", **options)
    assert "\n" not in str(caught.value)


def test_everything_comes_back_bit_for_bit(saved):
    documents, tensors = artifact.read(saved, kind="model")
    assert documents == DOCUMENTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name].signbit(), tensor.signbit())
        assert torch.equal(tensors[name], tensor)


def test_the_same_content_gives_the_same_bytes(saved, tmp_path):
    artifact.write(tmp_path / "again", DOCUMENTS, dict(reversed(TENSORS.items())), kind="model")
    for name in os.listdir(saved):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_nothing_temporary_stays(saved):
    assert os.listdir(saved.parent) == [saved.name]
    assert sorted(os.listdir(saved)) == ["config.json", "history.json", "manifest.json", "weights.safetensors"]


def test_tensors_may_share_memory_and_be_views(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    artifact.write(tmp_path / "a", {}, {"base": base, "same": base, "turned": base.T}, kind="model")
    tensors = artifact.read(tmp_path / "a", kind="model")[1]
    assert torch.equal(tensors["turned"], base.T)
    tensors["base"].add_(1)
    assert torch.equal(tensors["same"], base)


def test_no_tensors_and_no_documents(tmp_path):
    artifact.write(tmp_path / "a", {}, {}, kind="model")
    assert artifact.read(tmp_path / "a", kind="model") == ({}, {})


# ------------------------------------------------------------------ what was damaged


@given(st.data())
def test_one_flipped_bit_anywhere_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a"
    artifact.write(path, DOCUMENTS, TENSORS, kind="model")
    file = path / data.draw(st.sampled_from(sorted(os.listdir(path))))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    refused(path, "expected .* found")


@given(st.data())
def test_a_truncated_file_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "a"
    artifact.write(path, DOCUMENTS, TENSORS, kind="model")
    file = path / data.draw(st.sampled_from(sorted(os.listdir(path))))
    os.truncate(file, data.draw(st.integers(0, file.stat().st_size - 1)))
    refused(path, "expected .* found")


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "manifest.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    refused(saved, name)


def test_no_folder_at_all(tmp_path):
    refused(tmp_path / "nowhere", "found nothing")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "found a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "an empty folder")


# ------------------------------------------------------------------ what was never ours


def planted_pickle(path: Path, name: str) -> Path:
    """A pickle that leaves a trace if anything ever opens it."""
    trace = path.parent / "executed"

    class Gadget:
        def __reduce__(self):
            return (Path.touch, (trace,))

    (path / name).write_bytes(pickle.dumps(Gadget()))
    return trace


@pytest.mark.parametrize("name", ["model.pt", "x.PKL", ".hidden.pickle", "weights.pth", "__0_0.distcp"])
def test_a_folder_with_a_pickle_is_refused(saved, name):
    trace = planted_pickle(saved, name)
    refused(saved, "run code")
    assert not trace.exists()


def test_a_pickle_in_the_place_of_weights_is_refused(saved):
    trace = planted_pickle(saved, "weights.safetensors")
    replace(saved, "weights.safetensors", (saved / "weights.safetensors").read_bytes())
    refused(saved, "safetensors")
    assert not trace.exists()


def test_an_unlisted_file_is_refused_but_not_the_system_s_own(saved):
    (saved / ".DS_Store").write_bytes(b"finder")
    artifact.read(saved, kind="model")
    (saved / "notes.json").write_text("{}")
    refused(saved, "notes.json")


@pytest.mark.parametrize(
    "name", ["../secret.json", "/etc/secret.json", "a/b.json", "..", "x.pt", "x.py", "a\\b.json", ".x.json", "a\n.json"]
)
def test_a_path_in_the_manifest_is_refused(saved, name):
    (saved.parent / "secret.json").write_text("{}")
    entry = {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    reseal(saved, lambda manifest: manifest["files"].update({name: entry}))
    refused(saved, "plain names")


def test_a_link_is_refused(saved):
    secret = saved.parent / "secret.json"
    (saved / "config.json").rename(secret)
    (saved / "config.json").symlink_to(secret)
    refused(saved, "a link")


def test_a_pipe_is_refused_and_not_waited_for(saved):
    (saved / "config.json").unlink()
    os.mkfifo(saved / "config.json")
    refused(saved, "regular file")


def test_another_kind_or_version_is_named(saved):
    with pytest.raises(ModelFileError, match="expected a checkpoint .* found a model"):
        artifact.read(saved, kind="checkpoint")
    reseal(saved, lambda manifest: manifest.update(schema_version=artifact.SCHEMA_VERSION + 1))
    refused(saved, "upgrade biovae")
    for version in (0, -1, "1", None, True, [1]):
        reseal(saved, lambda manifest, version=version: manifest.update(schema_version=version))
        refused(saved, "schema version")


@pytest.mark.parametrize("files", [None, [], {}, {"weights.safetensors": None}, {"weights.safetensors": {"bytes": {}}}])
def test_a_manifest_without_a_proper_list_is_refused(saved, files):
    reseal(saved, lambda manifest: manifest.update(files=files))
    refused(saved, "expected .* found")


BOMBS = {
    "nesting": b"[" * 10**6,
    "closed nesting": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "moderate nesting": b'{"a":' * 100 + b"1" + b"}" * 100,
    "huge integer": b'{"a": ' + b"9" * 10**6 + b"}",
    "infinite float": b'{"a": 1e999}',
    "NaN": b'{"a": NaN}',
    "a list": b"[]",
    "not JSON": b"\x80\x04cposix\nsystem\n",
    "empty": b"",
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_hostile_json_is_refused(saved, data):
    replace(saved, "config.json", data)
    refused(saved, "JSON")
    (saved / "manifest.json").write_bytes(data)
    refused(saved, "JSON")


def header(entries: object, length: int | None = None, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int = 0, end: int = 8, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "no header": b"",
    "short": b"\1\2\3",
    "header of exabytes": header({}, length=2**62),
    "header past the end": header({}, length=500),
    "negative header": struct.pack("<q", -1) + b"{}",
    "absurd shape": header({"a": entry([2**31, 2**31])}),
    "offsets outside": header({"a": entry([4], end=16)}),
    "overlap": header({"a": entry([2]), "b": entry([2])}),
    "hole": header({"a": entry([1], 4, 8)}),
    "trailing bytes": header({"a": entry([1], 0, 4)}),
    "unknown dtype": header({"a": entry([1], dtype="O")}),
    "complex": header({"a": entry([1], dtype="C64")}),
    "eight-bit float": header({"a": entry([8], dtype="F8_E4M3")}),
    "not a map": header([1, 2, 3]),
    "nested header": struct.pack("<Q", 10**5) + b"[" * 10**5,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_safetensors_are_refused(saved, data):
    replace(saved, "weights.safetensors", data)
    refused(saved, "expected .* found")


def test_a_file_of_absurd_size_is_refused_before_it_is_read(saved):
    os.truncate(saved / "weights.safetensors", 2**40)
    refused(saved, "at most")
    os.truncate(saved / "manifest.json", 2**40)
    refused(saved, "at most")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    bad = {"fine": torch.zeros(2), "bad": torch.tensor([0.0, value])}
    with pytest.raises(ModelFileError, match="bad"):
        artifact.write(tmp_path / "a", {}, bad, kind="model")
    artifact.write(tmp_path / "a", {}, bad, kind="model", finite=False)
    refused(tmp_path / "a", "NaN or infinity in 1 of 2: 'bad'")
    assert artifact.read(tmp_path / "a", kind="model", finite=False)[1].keys() == bad.keys()
    with pytest.raises(ModelFileError, match="finite numbers"):
        artifact.write(tmp_path / "b", {"metrics": {"elbo": value}}, {}, kind="model")


@pytest.mark.parametrize("name", ["manifest", "../x", "a/b", "", ".x", "a.b"])
def test_a_document_must_have_a_plain_name(tmp_path, name):
    with pytest.raises(ModelFileError, match="named by"):
        artifact.write(tmp_path / "a", {name: {}}, {}, kind="model")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------ what stands in the way of writing


def test_an_artifact_is_replaced_only_when_asked_to(saved):
    with pytest.raises(InputError, match="overwrite=True"):
        artifact.write(saved, {}, {}, kind="model")
    assert artifact.read(saved, kind="model")[0] == DOCUMENTS
    artifact.write(saved, {"other": {}}, {}, kind="model", overwrite=True)
    assert artifact.read(saved, kind="model") == ({"other": {}}, {})
    assert os.listdir(saved.parent) == [saved.name]


def test_nothing_but_an_artifact_is_ever_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name in ("thesis", "file", "link"):
        with pytest.raises(InputError, match="choose another name"):
            artifact.write(tmp_path / name, {}, {}, kind="model", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@contextmanager
def small_disk():
    """Inside, files of this process may hold 4 kB, as if the disk were full; no longer, since pytest may log to one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_one_intact(saved):
    with pytest.raises(OSError, match=r"expected to write .* nothing was changed") as caught, small_disk():
        artifact.write(saved, {}, {"large": torch.zeros(10_000)}, kind="model", overwrite=True)
    assert caught.value.errno == errno.EFBIG
    assert artifact.read(saved, kind="model")[0] == DOCUMENTS
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_folder_is_a_clear_error(saved):
    saved.parent.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="expected to write"):
            artifact.write(saved.parent / "b", {}, {}, kind="model")
    finally:
        saved.parent.chmod(0o755)


def test_a_parent_that_is_a_file_is_a_clear_error(saved):
    with pytest.raises(OSError, match="expected to write"):
        artifact.write(saved / "config.json" / "b", {}, {}, kind="model")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_brings_the_old_one_back(saved, monkeypatch, failing):
    calls, rename = [], os.replace

    def fail(*names):
        calls.append(names)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        rename(*names)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        artifact.write(saved, {}, {}, kind="model", overwrite=True)
    assert artifact.read(saved, kind="model")[0] == DOCUMENTS
    assert os.listdir(saved.parent) == [saved.name]
