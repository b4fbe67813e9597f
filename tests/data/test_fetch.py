"""Downloads from a real HTTP server on this machine, with small archives in place of the public ones."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from public_data import write_camvid, write_pets

from autoseg.cli import main
from autoseg.data.camvid import camvid
from autoseg.data.fetch import fetch
from autoseg.data.pets import pets
from autoseg.data.sources import SOURCES, Archive, Source
from autoseg.errors import UserError
from autoseg.progress import Progress


@dataclass
class Server:
    """What the server gives out, and how."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: int | None = None  # send so many bytes of a file and close the connection
    slow: bool = False  # wait between pieces
    tells_length: bool = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known.asked.append(self.path)
            content = known.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            if known.tells_length:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            content = content[: known.cut]
            step = max(1, len(content) // 50) if known.slow else len(content)
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                if known.slow:
                    time.sleep(0.2)

        def log_message(self, *arguments: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    known = Server(f"http://127.0.0.1:{running.server_port}")
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield known
    running.shutdown()
    running.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def _archive(folder: Path, kind: str) -> bytes:
    return Path(shutil.make_archive(str(folder) + "-archive", kind, folder)).read_bytes()


@pytest.fixture
def road(server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """camvid on the server: a zip without a published checksum, with other files beside the data."""
    write_camvid(tmp_path / "repository" / "repo-1" / "CamVid", counts=(3, 1, 2))
    (tmp_path / "repository" / "repo-1" / "README").write_text("hello")
    server.files["/repo-1.zip"] = _archive(tmp_path / "repository", "zip")
    source = replace(
        SOURCES["camvid"],
        archives=(Archive(f"{server.url}/repo-1.zip", folder="repo-1/CamVid"),),
        counts={"train": 3, "val": 1, "test": 2},
        image_size=(36, 48),
    )
    monkeypatch.setitem(SOURCES, "camvid", source)
    return source


@pytest.fixture
def animals(server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """pets on the server: two tar archives with published checksums."""
    folder = write_pets(tmp_path / "made") / "oxford-iiit-pet"
    archives = []
    for part in ("images", "annotations"):
        (tmp_path / part).mkdir()
        shutil.move(folder / part, tmp_path / part / part)
        content = server.files[f"/{part}.tar.gz"] = _archive(tmp_path / part, "gztar")
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        archives.append(Archive(f"{server.url}/{part}.tar.gz", checksum, into="oxford-iiit-pet"))
    source = replace(SOURCES["pets"], archives=tuple(archives), counts={"train": 10, "val": 2, "test": 12})
    monkeypatch.setitem(SOURCES, "pets", source)
    return source


def _left(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def test_the_command_says_the_terms_and_fetches(
    road: Source, server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "camvid"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{home / 'camvid'}\n"
    assert road.archives[0].url in told.err and "licence: CC BY-NC 4.0" in told.err
    assert "please cite: G. Brostow" in told.err
    assert told.err.index("licence") < told.err.index("repo-1.zip: ")  # the progress comes after the terms
    data = camvid()
    assert (len(data.train), len(data.val), len(data.test)) == (3, 1, 2)
    assert _left(home) == ["camvid", "checksums.json"] and not (home / "camvid" / "README").exists()
    digest = hashlib.sha256(server.files["/repo-1.zip"]).hexdigest()
    assert json.loads((home / "checksums.json").read_text()) == {road.archives[0].url: f"sha256:{digest}"}
    facts = json.loads((home / "camvid" / "fetched.json").read_text())
    assert facts["archives"] == {road.archives[0].url: f"sha256:{digest}"} and "CC BY-NC" in facts["licence"]


def test_what_is_there_is_kept(road: Source, server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("camvid").new
    (home / "camvid" / "mine.txt").write_text("mine")
    assert main(["fetch", "camvid"]) == 0
    told = capsys.readouterr()
    assert "camvid is already here and is kept" in told.err and told.out == f"{home / 'camvid'}\n"
    assert (home / "camvid" / "mine.txt").exists() and server.asked == ["/repo-1.zip"]
    again = fetch("camvid")
    assert not again.new and again.folder == home / "camvid"


def test_another_folder(road: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["fetch", "camvid", "--to", str(tmp_path / "empty")]) == 0
    assert f"--set data.options.path={tmp_path / 'empty'}" in capsys.readouterr().err
    assert len(camvid(path=tmp_path / "empty").train) == 3
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"something else than the data set 'camvid'\n  -> choose another"):
        fetch("camvid", tmp_path / "full")
    assert _left(tmp_path / "full") == ["letter.txt"]


def test_archives_with_checksums(animals: Source, home: Path) -> None:
    class Seen(Progress):
        totals: list[float] = []  # noqa: RUF012
        done: list[float] = []  # noqa: RUF012

        def begin(self, label: str, total: float, unit: str = "") -> None:
            self.totals.append(total)

        def update(self, label: str, done: float, text: str = "") -> None:
            self.done.append(done)

    assert fetch("pets", progress=Seen()).folder == home / "pets"
    assert len(Seen.totals) == 2 and max(Seen.done) in Seen.totals
    data = pets()
    assert (len(data.train), len(data.val), len(data.test)) == (10, 2, 12)
    assert _left(home) == ["pets"]  # published checksums need no record


@pytest.mark.parametrize("broken", ["images", "annotations"])
def test_a_wrong_checksum_leaves_nothing(animals: Source, server: Server, home: Path, broken: str) -> None:
    server.files[f"/{broken}.tar.gz"] += b"x"
    with pytest.raises(UserError, match="does not have the published checksum md5:") as caught:
        fetch("pets")
    assert caught.value.problems[0].where == f"{server.url}/{broken}.tar.gz"
    assert _left(home) == []


def test_an_archive_that_has_changed_since_last_time(road: Source, server: Server, home: Path, tmp_path: Path) -> None:
    fetch("camvid")
    shutil.rmtree(home / "camvid")
    (tmp_path / "repository" / "repo-1" / "README").write_text("changed")
    server.files["/repo-1.zip"] = _archive(tmp_path / "repository", "zip")
    with pytest.raises(UserError, match="not the one of last time") as caught:
        fetch("camvid")
    assert str(home / "checksums.json") in caught.value.problems[0].fix
    assert _left(home) == ["checksums.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": {"train": 3, "val": 1, "test": 3}}, "holds {'train': 3, 'val': 1, 'test': 2} images in place of"),
        ({"image_size": (36, 40)}, r"the images are \[\(36, 48\)\] high and wide in place of \(36, 40\)"),
    ],
)
def test_contents_are_counted_and_measured(
    road: Source, home: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setitem(SOURCES, "camvid", replace(road, **changes))
    with pytest.raises(UserError, match=said):
        fetch("camvid")
    assert _left(home) == []


def test_contents_that_cannot_be_used(road: Source, server: Server, home: Path, tmp_path: Path) -> None:
    (tmp_path / "repository" / "repo-1" / "CamVid" / "valannot" / "val_000.png").write_bytes(b"nothing")
    server.files["/repo-1.zip"] = _archive(tmp_path / "repository", "zip")
    with pytest.raises(UserError, match=r"repo-1.zip: in the archive: .*file is no image"):
        fetch("camvid")
    server.files["/repo-1.zip"] = b"<html>Sign in</html>"
    with pytest.raises(UserError, match="the download is no archive, or damaged"):
        fetch("camvid")
    assert _left(home) == []


def test_a_server_that_cannot_be_reached(road: Source, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/repo-1.zip"
    monkeypatch.setitem(SOURCES, "camvid", replace(road, archives=(Archive(url, folder="repo-1/CamVid"),)))
    with pytest.raises(UserError) as caught:
        fetch("camvid")
    (problem,) = caught.value.problems
    assert (problem.what, problem.where) == ("the server cannot be reached", url)
    assert f"download {url} elsewhere, and unpack so that {home / 'camvid'} holds train, trainannot" in problem.fix
    assert _left(home) == []


def test_a_file_that_is_gone_and_a_connection_that_breaks(road: Source, server: Server, home: Path) -> None:
    server.cut = len(server.files["/repo-1.zip"]) // 2
    with pytest.raises(UserError, match="the connection broke off"):
        fetch("camvid")
    server.tells_length = False  # the end of the connection is then the end of the file
    with pytest.raises(UserError, match="the download is no archive, or damaged"):
        fetch("camvid")
    server.files.clear()
    with pytest.raises(UserError, match="the server answers 404 Not Found"):
        fetch("camvid")
    assert _left(home) == []


def test_a_server_that_does_not_tell_the_length(road: Source, server: Server) -> None:
    server.tells_length = False
    assert fetch("camvid").new


def _refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["fetch", "camvid", *options]) == 2
    told = capsys.readouterr().err
    assert "internal error" not in told
    return " ".join(told.split())


def test_folders_that_cannot_be_written_to_are_found_before_the_download(
    road: Source, server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fix = "-> choose another folder with --to, or by the variable AUTOSEG_DATA"
    assert re.search(rf"cannot write to /proc/x: \w+.* {fix}", _refused(capsys, "--to", "/proc/x"))
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}: there is something else" in _refused(capsys, "--to", str(tmp_path / "file"))
    told = _refused(capsys, "--to", str(tmp_path / "file" / "inside"))
    assert f"cannot write to {tmp_path / 'file' / 'inside'}: Not a directory {fix}" in told
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path / "file"))
    assert f"cannot write to {tmp_path / 'file' / 'checksums.json'}: " in _refused(capsys)
    assert f"{tmp_path / 'file' / 'checksums.json'}: " in _refused(capsys, "--to", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("AUTOSEG_DATA", str(home))
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "disk")
    told = _refused(capsys, "--to", str(tmp_path / "disk"))
    assert f"choose a folder in it: --to {tmp_path / 'disk' / 'camvid'}" in told
    assert server.asked == []


def test_a_linked_folder_is_filled(road: Source, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "link").symlink_to("large-disk")
    assert fetch("camvid", tmp_path / "link").folder == tmp_path / "large-disk"
    assert (tmp_path / "link").is_symlink() and len(camvid(path=tmp_path / "link").train) == 3


def test_a_full_disk(road: Source, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip  # noqa: E501
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.retrieve", full)
    assert f"cannot write to {home / 'camvid'}: No space left on device -> make room there; or" in _refused(capsys)
    assert _left(home) == []


@pytest.mark.parametrize("content", ["{", "[1]", '{"http://a": 3}'])
def test_broken_checksums(road: Source, server: Server, home: Path, content: str) -> None:
    home.mkdir()
    (home / "checksums.json").write_text(content)
    with pytest.raises(UserError, match=r"checksums.json: these are no checksums of downloads\n  -> remove the file"):
        fetch("camvid")
    assert server.asked == [] and (home / "checksums.json").read_text() == content


CODE = """
import sys
from dataclasses import replace
from autoseg.cli import main
from autoseg.data.sources import SOURCES, Archive
SOURCES["camvid"] = replace(SOURCES["camvid"], archives=(Archive(sys.argv[1], folder="repo-1/CamVid"),))
main(["fetch", "camvid"]) == 0 or sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_downloads_are_begun_anew(road: Source, server: Server, home: Path, number: signal.Signals) -> None:
    server.slow = True
    process = subprocess.Popen([sys.executable, "-c", CODE, road.archives[0].url], stderr=subprocess.DEVNULL)
    _until(lambda: server.asked and any(home.glob(".camvid.fetching/*") if home.exists() else []))
    with pytest.raises(UserError, match="another process is downloading to here"):
        fetch("camvid")
    process.send_signal(number)
    assert process.wait(20) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (home / "camvid").exists()
    if number == signal.SIGTERM:
        assert _left(home) == []
    server.slow = False
    assert fetch("camvid").new and _left(home) == ["camvid", "checksums.json"]


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_names_that_cannot_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "petz"]) == 2
    assert "nothing to download for a data set called 'petz'\n  -> did you mean 'pets'?" in capsys.readouterr().err


def test_the_public_addresses_are_the_ones_torchvision_knows() -> None:
    from torchvision.datasets import OxfordIIITPet

    ours = [(archive.url, str(archive.checksum).removeprefix("md5:")) for archive in SOURCES["pets"].archives]
    assert ours == list(OxfordIIITPet._RESOURCES)
