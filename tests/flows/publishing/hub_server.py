"""A small Hugging Face Hub on the loopback interface: the requests of huggingface_hub's real upload and download."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors",)
"""Endings of files that go through the large file storage, as on the Hub."""


@dataclass
class Repository:
    """Revisions of one repository: the files of each commit, oldest first."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=list)

    @property
    def newest(self) -> str:
        return commit_hash(len(self.commits))

    def files(self, revision: str) -> dict[str, bytes] | None:
        """Files of a branch or a commit; None if there is none."""
        if revision == "main":
            revision = self.newest
        numbered = enumerate([{}, *self.commits])  # a new repository has an empty commit
        return {commit_hash(number): files for number, files in numbered}.get(revision)


def commit_hash(number: int) -> str:
    return f"{number:040x}"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories by name and large files by their hash."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.token = "hf_let_me_in"
        self.asked: list[str] = []
        self.fail_with: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def _read(self) -> None:
        path = self._begin()
        match path:
            case None:
                pass
            case ["api", "models", owner, name, "revision", revision]:
                if (repository := self._repository(f"{owner}/{name}", revision)) is not None:
                    sha = repository.newest if revision == "main" else revision
                    siblings = [{"rfilename": file} for file in repository.files(sha) or {}]
                    self._json({"id": f"{owner}/{name}", "sha": sha, "siblings": siblings, "tags": []})
            case ["api", "models", owner, name, "tree", revision]:
                if (repository := self._repository(f"{owner}/{name}", revision)) is not None:
                    files = repository.files(revision) or {}
                    self._json([self._entry(file, content) for file, content in files.items()])
            case [owner, name, "resolve", revision, file]:
                if (repository := self._repository(f"{owner}/{name}", revision)) is not None:
                    content = (repository.files(revision) or {}).get(file)
                    if content is None:
                        self._error(404, "EntryNotFound")
                    else:
                        self._content(content, revision)
            case _:
                self._error(404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self._body()
        path = self._begin()
        match path:
            case None:
                pass
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = "/".join(filter(None, [asked.get("organization", "me"), asked["name"]]))
                code = 409 if name in self.server.repositories else 200
                self.server.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
                self._json({"url": f"{self.server.url}/{name}", "id": name, "name": name}, code)
            case ["api", "models", owner, name, "preupload", _]:
                files = json.loads(body)["files"]
                modes = {f["path"]: "lfs" if f["path"].endswith(LARGE) else "regular" for f in files}
                answer = [{"path": p, "uploadMode": m, "shouldIgnore": False, "oid": None} for p, m in modes.items()]
                self._json({"files": answer})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                href = f"{self.server.url}/large"
                self._json(
                    {
                        "transfer": "basic",
                        "objects": [{**o, "actions": {"upload": {"href": f"{href}/{o['oid']}"}}} for o in objects],
                    }
                )
            case ["api", "models", owner, name, "commit", _]:
                number = self._commit(self.server.repositories[f"{owner}/{name}"], body)
                url = f"{self.server.url}/{owner}/{name}/commit/{commit_hash(number)}"
                self._json({"success": True, "commitOid": commit_hash(number), "commitUrl": url})
            case _:
                self._error(404, "RepoNotFound")

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.large[oid] = content
        self._json({})

    def _commit(self, repository: Repository, body: bytes) -> int:
        files = dict(repository.commits[-1]) if repository.commits else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        repository.commits.append(files)
        return len(repository.commits)

    def _begin(self) -> list[str] | None:
        """Return the parts of the path, None where the request has been refused."""
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.fail_with:
            self._error(self.server.fail_with, "")
            return None
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if len(parts) > 1 and parts[1].endswith(".git"):
            parts[1] = parts[1].removesuffix(".git")
        writes = self.command == "POST" and parts[:2] != ["api", "validate-yaml"]
        if writes and self.headers.get("authorization") != f"Bearer {self.server.token}":
            self._error(401, "")
            return None
        return parts

    def _repository(self, name: str, revision: str) -> Repository | None:
        found = self.server.repositories.get(name)
        trusted = self.headers.get("authorization") == f"Bearer {self.server.token}"
        if found is None or (found.private and not trusted):
            self._error(401, "RepoNotFound")
        elif found.files(revision) is None:
            self._error(404, "RevisionNotFound")
        else:
            return found
        return None

    def _entry(self, file: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": _blob(content)}
        if file.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, content: Any, code: int = 200) -> None:
        self._answer(code, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _content(self, content: bytes, revision: str) -> None:
        self._answer(200, content, {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": revision})

    def _error(self, code: int, name: str) -> None:
        self._answer(code, b"{}", {"X-Error-Code": name} if name else {})

    def _answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _blob(content: bytes) -> str:
    """The name that git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
