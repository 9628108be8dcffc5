import gzip
import hashlib
import socket
import time
from pathlib import Path

import pytest

from acf.data.download.fetch import Remote, fetch
from acf.errors import ConfigError, DataError

NAME = "images.bin"
CONTENT = bytes(range(256)) * 20000  # several blocks of the transfer
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def remote(url: str, **changes: object) -> Remote:
    return Remote(**{"name": NAME, "url": url, "sha256": SHA256, **changes})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def home(server):
    """The file's home: the server, with the file in it."""
    server.files["/home/" + NAME] = CONTENT
    return server


def get(home, folder: Path, **changes: object) -> Path:
    return fetch(remote(f"{home.url}/home/{NAME}", **changes), "toy", folder, wait=0.001)


def test_downloads_verifies_and_keeps(home, tmp_path, capfd):
    path = get(home, tmp_path / "deep" / "down")
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {NAME}
    out, err = capfd.readouterr()
    assert err == "", "no progress bar where there is no terminal"
    assert f"{home.url}/home/{NAME}" in out

    assert get(home, path.parent) == path
    assert len(home.asked) == 1, "a kept file is not fetched again"


def test_resumes_from_the_partial_file(home, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert home.asked == [(f"/home/{NAME}", "bytes=1000-")]
    assert names(tmp_path) == {NAME}


def test_resumes_within_one_run_when_the_connection_breaks(home, tmp_path):
    home.cut_after = [3_000_000, 1_500_000]
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in home.asked] == [None, "bytes=3000000-", "bytes=4500000-"]


def test_partial_file_that_is_already_complete(home, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert len(home.asked) == 1


def test_partial_file_longer_than_the_file(home, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert get(home, tmp_path).read_bytes() == CONTENT


def test_partial_file_of_something_else(home, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in home.asked] == ["bytes=1000-", None]


def test_server_without_ranges(home, tmp_path):
    home.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert len(home.asked) == 1


def test_compressed_file_declared_as_compressed_transfer(home, tmp_path):
    home.files[f"/home/{NAME}"] = packed = gzip.compress(CONTENT)
    home.headers = {"Content-Encoding": "gzip"}
    assert get(home, tmp_path, gzipped=True).read_bytes() == packed


def test_busy_server_is_asked_again(home, tmp_path):
    home.statuses = [503, 429, 500]
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert len(home.asked) == 4


def test_server_that_stays_busy_is_given_up(home, tmp_path):
    home.statuses = [503] * 10
    with pytest.raises(DataError, match=r"503 .*\(4 attempts\)"):
        get(home, tmp_path)
    assert len(home.asked) == 4
    assert names(tmp_path) == set()


def test_wrong_checksum(home, tmp_path):
    with pytest.raises(DataError) as error:
        get(home, tmp_path, sha256="0" * 64)
    for part in (NAME, home.url, "0" * 64, SHA256, "removed"):
        assert part in str(error.value)
    assert names(tmp_path) == set(), "neither under its name nor to resume from"


def test_truncated_gzip(home, tmp_path):
    home.files[f"/home/{NAME}"] = gzip.compress(CONTENT)[:-100]
    with pytest.raises(DataError, match="truncated"):
        get(home, tmp_path, gzipped=True)
    assert names(tmp_path) == set()


def test_gzip_with_wrong_check_sum_of_its_own(home, tmp_path):
    packed = bytearray(gzip.compress(CONTENT))
    packed[-6] ^= 1
    home.files[f"/home/{NAME}"] = bytes(packed)
    with pytest.raises(DataError, match="CRC"):
        get(home, tmp_path, gzipped=True)


def test_differently_packed_gzip_of_the_same_content(home, tmp_path):
    for level in (1, 9):
        home.files[f"/home/{NAME}"] = packed = gzip.compress(CONTENT, level, mtime=level)
        assert get(home, tmp_path / str(level), gzipped=True).read_bytes() == packed


def test_not_found_lists_places_and_remedies(home, tmp_path, monkeypatch):
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(DataError) as error:
        fetch(remote(f"{home.url}/gone/{NAME}", hint="ask the library"), "toy", tmp_path / "kept")
    for part in (
        f"{tmp_path}/mirror/toy/{NAME}: no such file",
        f"{tmp_path}/mirror/{NAME}: no such file",
        f"{home.url}/gone/{NAME}: HTTP 404",
        f"{tmp_path}/kept/{NAME}",
        "ACF_MIRROR",
        "acf prepare --dataset toy",
        "ask the library",
    ):
        assert part in str(error.value)
    assert len(home.asked) == 1, "404 is final"


def test_no_server(tmp_path):
    with pytest.raises(DataError, match="Connection refused"):
        fetch(remote(f"http://127.0.0.1:{closed_port()}/{NAME}"), "toy", tmp_path, attempts=2, wait=0.001)


@pytest.mark.parametrize("place", [f"toy/{NAME}", NAME])
@pytest.mark.parametrize("form", ["folder", "file", "http"])
def test_mirror(server, tmp_path, monkeypatch, place, form):
    file = tmp_path / "my mirror" / place
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    server.files[f"/m/{place}"] = CONTENT
    mirror = {
        "folder": str(tmp_path / "my mirror"),
        "file": (tmp_path / "my mirror").as_uri(),
        "http": server.url + "/m/",
    }
    monkeypatch.setenv("ACF_MIRROR", mirror[form])
    found = fetch(remote(f"http://127.0.0.1:{closed_port()}/{NAME}"), "toy", tmp_path / "kept")
    assert found.read_bytes() == CONTENT
    if form == "http":
        assert found == tmp_path / "kept" / NAME
        assert server.asked[-1][0] == f"/m/{place}"
    else:
        assert found == file, "a local file is used where it lies"


def test_mirror_without_the_file_falls_back_to_its_home(home, tmp_path, monkeypatch):
    monkeypatch.setenv("ACF_MIRROR", home.url + "/mirror")
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in home.asked] == [f"/mirror/toy/{NAME}", f"/mirror/{NAME}", f"/home/{NAME}"]


def test_mirror_with_a_wrong_file_is_named(home, tmp_path, monkeypatch):
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match="wrong content") as error:
        get(home, tmp_path / "kept")
    assert str(tmp_path / NAME) in str(error.value)
    assert (tmp_path / NAME).exists(), "the user's own file is left alone"


def test_mirror_of_an_unknown_kind(home, tmp_path, monkeypatch):
    monkeypatch.setenv("ACF_MIRROR", "s3://bucket/folder")
    with pytest.raises(ConfigError, match="s3://bucket/folder"):
        get(home, tmp_path)


def test_file_put_by_hand_is_checked(home, tmp_path):
    (tmp_path / NAME).write_bytes(b"something else")
    with pytest.raises(DataError, match="delete it"):
        get(home, tmp_path)
    assert home.asked == []


def test_folder_that_cannot_be_written(home, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        get(home, tmp_path / "file" / "folder")


def test_server_that_falls_silent(home, tmp_path, monkeypatch):
    monkeypatch.setattr("acf.data.download.fetch.TIMEOUT", (0.5, 0.2))
    home.hang = [2.0, 2.0]
    start = time.monotonic()
    assert get(home, tmp_path).read_bytes() == CONTENT
    assert time.monotonic() - start < 2
    assert home.asked[0][1] is None
    assert all(asked is not None for _, asked in home.asked[1:]), "it goes on where it stopped"


def test_a_server_that_starts_anew_each_time_is_given_up(home, tmp_path):
    home.cut_after = [1_500_000] * 20
    home.ranges = False
    with pytest.raises(DataError, match="connection closed before the end"):
        get(home, tmp_path)
    assert len(home.asked) <= 6


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_without_a_checksum_pieces_are_of_one_version(home, tmp_path, header):
    one, two = '"one"' if header == "ETag" else "Mon, 01 Jan 2024 00:00:00 GMT", '"two"'
    home.headers = {header: one}
    home.cut_after = [1_500_000, 100, 0, 0, 0, 0]
    with pytest.raises(DataError):
        get(home, tmp_path, sha256="")
    part = tmp_path / f"{NAME}.part"
    assert part.read_bytes() == CONTENT[:1_500_100]
    assert get(home, tmp_path, sha256="").read_bytes() == CONTENT
    assert home.asked[-1][1] == "bytes=1500100-"
    assert names(tmp_path) == {NAME}
    # The file changes between two runs: nothing of the first is kept.
    (tmp_path / NAME).rename(part)
    part.write_bytes(CONTENT[:1000])
    (tmp_path / f"{NAME}.part.version").write_text(one)
    home.headers, home.files["/home/" + NAME] = {header: two}, CONTENT[::-1]
    assert get(home, tmp_path, sha256="").read_bytes() == CONTENT[::-1]


def test_without_checksum_or_version_a_download_starts_anew(home, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert get(home, tmp_path, sha256="").read_bytes() == CONTENT
    assert home.asked[-1][1] is None


def test_checksum_as_md5(home, tmp_path):
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert get(home, tmp_path, sha256="", md5=md5).read_bytes() == CONTENT
    with pytest.raises(DataError, match=f"expected MD5 {'0' * 32}, found {md5}"):
        get(home, tmp_path / "again", sha256="", md5="0" * 32)
