"""A loopback Hub: repositories, commits, LFS, settings and downloads, kept in memory.

It speaks enough of the Hub's interface for the real client: create, settings, preupload, LFS,
commit, tree, paths-info, revision, refs, resolve with ranges. Reads of a private or gated
repository and every write need the one right token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_loopback"
LFS_SUFFIXES = (".parquet", ".safetensors")
START_SECONDS = 20.0


@dataclass
class Repo:
    """One repository: its commits, newest last, each a whole tree of contents."""

    kind: str
    name: str
    private: bool
    gated: str | bool = False
    history: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The newest commit: 40 hex digits."""
        return self.history[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        """The newest tree."""
        return self.history[-1][1]

    def url(self, host: str) -> str:
        """Its page."""
        return f"{host}/datasets/{self.name}" if self.kind == "datasets" else f"{host}/{self.name}"

    def tree(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit by its branch or id."""
        if revision == "main":
            return self.history[-1]
        return next((commit for commit in self.history if commit[0] == revision), None)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a tree to the history."""
        parent = self.head if self.history else ""
        listing = json.dumps([parent, {path: blob_id(path, files[path]) for path in sorted(files)}])
        self.history.append((hashlib.sha1(listing.encode()).hexdigest(), files))
        return self.head


def is_lfs(path: str) -> bool:
    """Whether the Hub keeps a file outside of git."""
    return path.endswith(LFS_SUFFIXES)


def blob_id(path: str, data: bytes) -> str:
    """The content id that the Hub names: sha256 of an LFS file, git's sha1 of any other."""
    if is_lfs(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def refuse(status: int, message: str, code: str = "") -> JSONResponse:
    """An error as the Hub sends it."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return JSONResponse({"error": message}, status_code=status, headers=headers)


class Hub:
    """The server's state, and its answers."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        """Method and path of everything asked."""
        self.ignore_gating = False
        """Answer settings without gating anything, as a plan without the feature would."""
        self.unwritable = ""
        """A repository that refuses every commit."""
        self.forbidden_owner = "somebody-else"
        self.url = ""

    def app(self) -> Starlette:
        """The routes; `kind` is `models` or `datasets`."""
        api = "/api/{kind}/{owner}/{name}"
        routes = [
            Route("/api/whoami-v2", self.whoami),
            Route("/api/validate-yaml", self.validate_yaml, methods=["POST"]),
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route(f"{api}/settings", self.settings, methods=["PUT"]),
            Route(f"{api}/preupload/{{revision}}", self.preupload, methods=["POST"]),
            Route(f"{api}/commit/{{revision}}", self.commit, methods=["POST"]),
            Route(f"{api}/paths-info/{{revision}}", self.paths_info, methods=["POST"]),
            Route(f"{api}/tree/{{revision}}", self.list_tree),
            Route(f"{api}/tree/{{revision}}/{{path:path}}", self.list_tree),
            Route(f"{api}/refs", self.refs),
            Route(f"{api}/revision/{{revision}}", self.info),
            Route(api, self.info),
            Route("/objects/{oid}", self.store, methods=["PUT"]),
        ]
        for prefix in ("/datasets", ""):
            repo = prefix + "/{owner}/{name}"
            routes += [
                Route(f"{repo}/info/lfs/objects/batch", self.batch, methods=["POST"]),
                Route(f"{repo}/resolve/{{revision}}/{{path:path}}", self.resolve),
            ]
        return Starlette(routes=routes)

    async def whoami(self, request: Request) -> Response:
        """Who the token belongs to."""
        self._note(request)
        if not self._authorised(request):
            return refuse(401, "Invalid username or password.")
        return JSONResponse({"type": "user", "name": "me", "orgs": []})

    async def validate_yaml(self, request: Request) -> Response:
        """Accept a card whose front matter is there."""
        self._note(request)
        content = (await request.json())["content"]
        if not content.startswith("---\n"):
            return refuse(400, "no front matter")
        return JSONResponse({"errors": [], "warnings": []})

    async def create(self, request: Request) -> Response:
        """Make a repository with one empty commit."""
        self._note(request)
        if not self._authorised(request):
            return refuse(401, "Invalid username or password.")
        asked = await request.json()
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.startswith(self.forbidden_owner):
            return refuse(403, f"You have no write access to {self.forbidden_owner}.")
        kind = asked.get("type", "model") + "s"
        if (kind, name) in self.repos:
            url = self.repos[kind, name].url(self.url)
            return JSONResponse({"error": "You already created this repo", "url": url}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = Repo(kind, name, private)
        repo.commit({".gitattributes": b"*.parquet filter=lfs\n"})
        self.repos[kind, name] = repo
        return JSONResponse({"url": repo.url(self.url)})

    async def settings(self, request: Request) -> Response:
        """Set visibility and gating."""
        repo = self._open(request, write=True)
        if isinstance(repo, Response):
            return repo
        asked = await request.json()
        if "visibility" in asked:
            repo.private = asked["visibility"] == "private"
        if "gated" in asked and not self.ignore_gating:
            repo.gated = asked["gated"]
        return JSONResponse({})

    async def preupload(self, request: Request) -> Response:
        """Say how each file is to be sent, and which content is already there."""
        repo = self._open(request, write=True)
        if isinstance(repo, Response):
            return repo
        return JSONResponse(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_lfs(file["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": blob_id(file["path"], repo.files[file["path"]])
                        if file["path"] in repo.files
                        else None,
                    }
                    for file in (await request.json())["files"]
                ]
            }
        )

    async def batch(self, request: Request) -> Response:
        """Say where LFS objects go."""
        self._note(request)
        if not self._authorised(request):
            return refuse(401, "Invalid username or password.")
        answers = []
        for item in (await request.json())["objects"]:
            upload = {"upload": {"href": f"{self.url}/objects/{item['oid']}", "header": {}}}
            there = item["oid"] in self.objects
            answers.append({**item, **({} if there else {"actions": upload})})
        return JSONResponse({"transfer": "basic", "objects": answers})

    async def store(self, request: Request) -> Response:
        """Keep an LFS object, if it is what its name says."""
        self._note(request)
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != request.path_params["oid"]:
            return refuse(400, "the content is not what its id says")
        self.objects[request.path_params["oid"]] = data
        return Response()

    async def commit(self, request: Request) -> Response:
        """Apply one commit; a stale parent is refused."""
        repo = self._open(request, write=True)
        if isinstance(repo, Response):
            return repo
        if repo.name == self.unwritable:
            return refuse(403, f"{repo.name} accepts no commit.")
        files = dict(repo.files)
        for line in (await request.body()).splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                if value.get("parentCommit") not in (None, repo.head):
                    return refuse(412, "the parent commit is stale")
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return refuse(400, f"unknown operation {item['key']}")
        oid = repo.commit(files)
        url = f"{self.url}/{repo.name}/commit/{oid}"
        return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url})

    async def info(self, request: Request) -> Response:
        """Describe a repository at a revision."""
        repo = self._open(request)
        if isinstance(repo, Response):
            return repo
        found = repo.tree(request.path_params.get("revision", "main"))
        if found is None:
            return refuse(404, "Revision not found", "RevisionNotFound")
        sha, files = found
        return JSONResponse(
            {
                "_id": sha[:24],
                "id": repo.name,
                "sha": sha,
                "private": repo.private,
                "gated": repo.gated,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    async def refs(self, request: Request) -> Response:
        """The branches."""
        repo = self._open(request)
        if isinstance(repo, Response):
            return repo
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}
        return JSONResponse({"branches": [main], "converts": [], "tags": []})

    async def list_tree(self, request: Request) -> Response:
        """Files and folders below a path."""
        repo = self._open(request)
        if isinstance(repo, Response):
            return repo
        found = repo.tree(request.path_params["revision"])
        if found is None:
            return refuse(404, "Revision not found", "RevisionNotFound")
        root = PurePosixPath(request.path_params.get("path", ""))
        deep = request.query_params.get("recursive", "").lower() in ("true", "1")
        entries = [
            entry
            for entry in describe_tree(found[1])
            if root in (parents := PurePosixPath(entry["path"]).parents)
            and (deep or parents[0] == root)
        ]
        if not entries and str(root) != ".":
            return refuse(404, "Entry not found", "EntryNotFound")
        return JSONResponse(entries)

    async def paths_info(self, request: Request) -> Response:
        """What the named paths are."""
        repo = self._open(request)
        if isinstance(repo, Response):
            return repo
        found = repo.tree(request.path_params["revision"])
        if found is None:
            return refuse(404, "Revision not found", "RevisionNotFound")
        body = await request.body()
        if request.headers.get("content-type", "").startswith("application/json"):
            paths = json.loads(body)["paths"]
        else:
            paths = (await request.form()).getlist("paths")
        return JSONResponse([e for e in describe_tree(found[1]) if e["path"] in paths])

    async def resolve(self, request: Request) -> Response:
        """The content of a file, whole or in part."""
        repo = self._open(request)
        if isinstance(repo, Response):
            return repo
        found = repo.tree(request.path_params["revision"])
        if found is None:
            return refuse(404, "Revision not found", "RevisionNotFound")
        sha, files = found
        path = request.path_params["path"]
        if path not in files:
            return refuse(404, "Entry not found", "EntryNotFound")
        return send(
            files[path],
            {"ETag": f'"{blob_id(path, files[path])}"', "X-Repo-Commit": sha},
            request.headers.get("range"),
        )

    def _note(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url.path}")

    def _authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {TOKEN}"

    def _open(self, request: Request, *, write: bool = False) -> Repo | Response:
        """The repository that a request is about, or the refusal."""
        self._note(request)
        at = request.path_params
        kind = at.get("kind") or ("datasets" if request.url.path[:10] == "/datasets/" else "models")
        repo = self.repos.get((kind, f"{at['owner']}/{at['name']}"))
        authorised = self._authorised(request)
        if not authorised and (write or "authorization" in request.headers):
            return refuse(401, "Invalid username or password.")
        if repo is None or (repo.private and not authorised):
            return refuse(401 if not authorised else 404, "Repository not found", "RepoNotFound")
        if repo.gated and not authorised and "/resolve/" in request.url.path:
            return refuse(401, "Access to this repository is restricted.", "GatedRepo")
        return repo


def describe_tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Every file and every folder, as the Hub lists them."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders
    ]
    for path, data in files.items():
        oid = blob_id(path, data)
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": oid[:40], "size": len(data)}
        if is_lfs(path):
            entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
        entries.append(entry)
    return sorted(entries, key=lambda entry: str(entry["path"]))


def send(data: bytes, headers: dict[str, str], span: str | None) -> Response:
    """Some bytes; with a range, that part alone."""
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if span is None:
        return Response(data, headers=headers)
    first, _, last = span.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], status_code=206, headers=headers)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A Hub on a free port of this machine, for as long as the block runs."""
    hub = Hub()
    config = uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the loopback Hub did not start")
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join()
