"""Files come whole and right, or not at all. The only server is this machine."""

import hashlib
import http.server
import threading

import pytest

from biovae.datasets import fetch
from biovae.errors import InputError

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a file.bin"
    path.write_bytes(CONTENT)
    return path.as_uri()


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, and at most `most` bytes of it; honours ranges if `ranges`."""

    most, ranges, asked = len(CONTENT), True, None

    def do_GET(self):
        asked = type(self).asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler, f"http://127.0.0.1:{served.server_port}/data.bin"
        served.shutdown()
        thread.join()


def test_a_file_comes_whole_and_leaves_no_trace(source, tmp_path):
    seen = []
    path = fetch(source, tmp_path / "new" / "data.bin", SHA.upper(), progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_here_is_not_fetched(tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert fetch((tmp_path / "absent").as_uri(), tmp_path / "data.bin", SHA) == tmp_path / "data.bin"


def test_another_file_is_never_overwritten(source, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"data\.bin to have sha256 .* delete it"):
        fetch(source, tmp_path / "data.bin", SHA)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_other_bytes_than_promised_are_thrown_away(source, tmp_path):
    with pytest.raises(InputError, match=f"sha256 {'0' * 64}, found {SHA}"):
        fetch(source, tmp_path / "new" / "data.bin", "0" * 64)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("ftp://example.org/x", SHA, "'https', 'http', 'file'"),
        ("data.bin", SHA, "give the whole address"),
        ("file:///x", SHA[:-1], "64 hexadecimal digits"),
        ("file:///no/such/file", SHA, "expected to read file:///no/such/file"),
    ],
)
def test_unusable_addresses_are_refused(url, sha256, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fetch(url, tmp_path / "data.bin", sha256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on(server, ranges, tmp_path):
    handler, url = server
    handler.ranges, handler.most = ranges, 4000
    with pytest.raises(InputError, match=f"the end after 4000 of {len(CONTENT)} bytes.*4000 bytes are kept"):
        fetch(url, tmp_path / "data.bin", SHA)
    handler.most = len(CONTENT)
    assert fetch(url, tmp_path / "data.bin", SHA).read_bytes() == CONTENT
    assert handler.asked == "bytes=4000-"


def test_a_transfer_that_only_lacked_its_name_is_finished(server, tmp_path):
    _, url = server
    (tmp_path / f"data.bin.{SHA[:8]}.part").write_bytes(CONTENT)
    assert fetch(url, tmp_path / "data.bin", SHA).read_bytes() == CONTENT


def test_progress_is_silent_without_a_terminal(source, tmp_path, capsys):
    fetch(source, tmp_path / "data.bin", SHA)
    assert capsys.readouterr() == ("", "")
