"""Fetching a file: from a mirror or its home, resumed where it stopped, kept only if its content is right."""

import gzip
import hashlib
import http.client
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from acf.data.download.progress import transferring
from acf.data.prepared.manifest import prepare_hint
from acf.errors import ConfigError, DataError
from acf.extras import needed_by
from acf.runs.files import discard, writing

MIRROR_VARIABLE = "ACF_MIRROR"
CHUNK_BYTES = 2**20
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of the answer
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Remote:
    """One file of a data set.

    Attributes:
        name: its file name.
        url: its home; empty where a person has to fetch it.
        sha256: of its bytes or, if `gzipped`, of what it unpacks to, since packing may differ; empty if not known.
        md5: of its bytes, where that is what the publisher gives; empty if not known.
        gzipped: whether it is a gzip file.
        hint: another way to get it, added to the message when it cannot be fetched.
    """

    name: str
    url: str = ""
    sha256: str = ""
    md5: str = ""
    gzipped: bool = False
    hint: str = ""


class _UnavailableError(Exception):
    """This place does not have the file; asking again would not help."""


class _InterruptedError(Exception):
    """The transfer broke off; asking again may help."""


def fetch(remote: Remote, dataset: str, folder: Path, *, attempts: int = 4, wait: float = 1.0) -> Path:
    """Return the path of a verified copy of `remote`.

    Looked for in this order: `folder/<name>`, kept from before or put there by hand;
    `<mirror>/<dataset>/<name>` and `<mirror>/<name>`, the mirror being the environment variable ACF_MIRROR
    (a folder, or a file:// or http(s):// URL); `remote.url`. A file in a mirror folder is used where it
    lies. A download grows in `folder/<name>.part`, from which the next run resumes, and gets its name when
    verified.

    Args:
        remote: the file.
        dataset: the data set it belongs to.
        folder: where downloads are kept.
        attempts: how often in a row a server may fail without sending anything.
        wait: seconds before the second attempt, doubled before each later one.

    Raises:
        ConfigError: ACF_MIRROR is a URL of a kind that is not read.
        DataError: no place has the file, its content is wrong, or it cannot be written.
        MissingPackageError: it has to be fetched, and requests is not installed.
    """
    target = folder / remote.name
    if target.is_file():
        _require(target, remote, f"delete it, then {prepare_hint(dataset)}")
        return target
    tried = []
    for place in _places(remote, dataset):
        if isinstance(place, Path):
            if place.is_file():
                _require(place, remote, f"replace it, or unset {MIRROR_VARIABLE}")
                print(f"using {place}")
                return place
            tried.append(f"{place}: no such file")
            continue
        try:
            _download(place, target, remote, attempts, wait)
        except _UnavailableError as error:
            tried.append(f"{place}: {error}")
        else:
            print(f"fetched {target} from {place}")
            return target
    raise DataError(
        f"cannot get {remote.name} of data set {dataset} (tried {'; '.join(tried)}); "
        f"put the file at {target}, or set {MIRROR_VARIABLE} to a folder or URL that holds "
        f"{dataset}/{remote.name} or {remote.name}, then {prepare_hint(dataset)}"
        + (f"; {remote.hint}" if remote.hint else "")
    )


def _places(remote: Remote, dataset: str) -> list[Path | str]:
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    home: list[Path | str] = [remote.url] if remote.url else []
    if not mirror:
        return home
    scheme = mirror.partition("://")[0].lower() if "://" in mirror else ""
    if scheme in ("http", "https"):
        base = mirror.rstrip("/")
        return [f"{base}/{dataset}/{remote.name}", f"{base}/{remote.name}", *home]
    if scheme not in ("", "file"):
        raise ConfigError(f"{MIRROR_VARIABLE}={mirror}: must be a folder, or a file://, http:// or https:// URL")
    folder = Path(url2pathname(urlsplit(mirror).path)) if scheme else Path(os.path.expanduser(mirror))
    return [folder / dataset / remote.name, folder / remote.name, *home]


def lies_there(remote: Remote, dataset: str, folder: Path) -> bool:
    """Return whether the file is in `folder`, or in the mirror if that is a folder, without reading it."""
    places = [folder / remote.name, *_places(remote, dataset)]
    return any(isinstance(place, Path) and place.is_file() for place in places)


def _fault(path: Path, remote: Remote) -> str:
    """Return what is wrong with the content of `path`; an empty text if nothing is."""
    if not (remote.sha256 or remote.md5 or remote.gzipped):
        return ""
    algorithm, wanted = ("SHA-256", remote.sha256) if remote.sha256 else ("MD5", remote.md5)
    digest = hashlib.sha256() if remote.sha256 else hashlib.md5(usedforsecurity=False)
    try:
        with gzip.open(path) if remote.gzipped else path.open("rb") as file:
            while block := file.read(CHUNK_BYTES):
                digest.update(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"is truncated or not a gzip file ({error})"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if digest.hexdigest() == wanted or not wanted:
        return ""
    what = " of the uncompressed content" if remote.gzipped else ""
    return f"has the wrong content: expected {algorithm}{what} {wanted}, found {digest.hexdigest()}"


def _require(path: Path, remote: Remote, remedy: str) -> None:
    if fault := _fault(path, remote):
        raise DataError(f"{path} {fault}; {remedy}")


def _download(url: str, target: Path, remote: Remote, attempts: int, wait: float) -> None:
    part = target.with_name(f"{target.name}.part")
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    resumed = _size(part) > 0
    checked = bool(remote.sha256 or remote.md5)
    _transfer(url, part, checked, attempts, wait)
    if resumed and _fault(part, remote):
        # The earlier piece may have come from another mirror or another version: once more, from the start.
        discard(part)
        _transfer(url, part, checked, attempts, wait)
    if fault := _fault(part, remote):
        discard(part)
        _Version(part).forget()
        raise DataError(
            f"{target.name} from {url} {fault}; it was removed. Run again to fetch it anew; if that "
            f"does not help, the server is wrong: put the right file at {target}, or set {MIRROR_VARIABLE}"
        )
    with writing(target):
        part.replace(target)
    _Version(part).forget()


def _transfer(url: str, part: Path, checked: bool, attempts: int, wait: float) -> None:
    """Append to `part` until it is complete, asking again after a pause when the server fails."""
    with needed_by("fetching files"):
        from requests import RequestException
        from urllib3.exceptions import HTTPError

    failures, most = 0, _size(part)
    while True:
        try:
            _request(url, part, checked)
            return
        except ValueError as error:  # what requests raises for a malformed URL
            raise _UnavailableError(str(error)) from None
        except (RequestException, HTTPError, _InterruptedError) as error:
            # A server that starts anew each time makes no progress, however much it sends.
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= attempts:
                raise _UnavailableError(f"{_wording(error)} ({attempts} attempts)") from None
            time.sleep(wait * 2 ** max(failures - 1, 0))


def _request(url: str, part: Path, checked: bool) -> None:
    """Ask for what is missing of `part`; `checked` says that the whole will be compared with a known checksum."""
    import requests

    version = _Version(part)
    if not checked and not version.known:
        # Nothing would tell if the pieces were of two versions of the file.
        discard(part)
    have = _size(part)
    # Bytes as stored: some servers declare a .gz file as a compressed transfer, which requests would unpack.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    if have and version.known:
        headers["If-Range"] = version.known
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        content_range = answer.headers.get("Content-Range", "")
        if answer.status_code == 416 and content_range == f"bytes */{have}":
            return  # all of it was there already
        if answer.status_code == 416 or (answer.status_code == 206 and not content_range.startswith(f"bytes {have}-")):
            discard(part)
            raise _InterruptedError("the server does not continue where the partial file ends")
        if answer.status_code in TRANSIENT:
            raise _InterruptedError(f"HTTP {answer.status_code} {answer.reason}")
        if answer.status_code not in (200, 206):
            raise _UnavailableError(f"HTTP {answer.status_code} {answer.reason}")
        # With 200 the server sends all of it, whatever was asked.
        start = have if answer.status_code == 206 else 0
        if not start:
            discard(part)  # before it would be taken for a part of the version that begins now
            version.keep(answer.headers)
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        with _opened(part, start) as file, transferring(url, start, total) as advance:
            for block in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                with writing(part):
                    file.write(block)
                    file.flush()
                advance(len(block))
        if total is not None and _size(part) < total:
            raise _InterruptedError(f"connection closed after {_size(part)} of {total} bytes")


class _Version:
    """Which version of a file the bytes in `part` are of, in the words of the server, kept beside it."""

    def __init__(self, part: Path) -> None:
        self._path = part.with_name(f"{part.name}.version")
        self.known = self._path.read_text(encoding="latin1") if self._path.is_file() else ""

    def keep(self, headers: Mapping[str, str]) -> None:
        """Remember the version that an answer with these headers begins; weak tags do not vouch for bytes."""
        tag = headers.get("ETag", "")
        self.known = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        if not self.known:
            self.forget()
            return
        with writing(self._path):
            self._path.write_text(self.known, encoding="latin1")

    def forget(self) -> None:
        """Remove the note."""
        discard(self._path)


@contextmanager
def _opened(part: Path, start: int) -> Iterator[BinaryIO]:
    with writing(part):
        file = part.open("ab" if start else "wb")
    try:
        yield file
        with writing(part):
            os.fsync(file.fileno())
    finally:
        with writing(part):  # what could not be written is tried once more
            file.close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _wording(error: Exception) -> str:
    """Return the cause of a failed request, without the layers of wrapping around it."""
    from requests import Timeout

    if isinstance(error, Timeout):
        return "the server does not answer in time"
    if any(isinstance(cause, http.client.IncompleteRead) for cause in (error, *error.args)):
        return "connection closed before the end"
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return str(cause).rpartition(": ")[2] or type(error).__name__
