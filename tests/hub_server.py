"""A stand-in for the Hugging Face hub on loopback. It speaks what the hub's client asks for, and notes each request."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """The repositories, and what was asked for."""

    url: str = ""
    repositories: dict = field(default_factory=dict)
    """Folder of each repository by its id; `None` for a gated one."""
    fetched: list = field(default_factory=list)
    """Files whose content was asked for."""
    asked: list = field(default_factory=list)
    """All requests."""


def files_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def is_large(name):
    return name.endswith((".safetensors", ".bin"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        model = f"{owner}/{name}"
        if model not in self.hub.repositories:
            return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if rest[1:2] and rest[1] not in ("main", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        folder = self.hub.repositories[model]
        if is_api:
            return self.describe(model, {} if folder is None else files_of(folder), "tree" in rest)
        if folder is None:
            return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        file = "/".join(rest[2:])
        data = (folder / file).read_bytes()
        if self.command == "GET":
            self.hub.fetched.append(file)
        etag = hashlib.sha256(data).hexdigest() if is_large(file) else hashlib.sha1(data).hexdigest()
        self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def describe(self, model, files, is_tree):
        if not files:
            files = {"model_index.json": b"{}"}
        entries = []
        for name, data in files.items():
            sha = hashlib.sha256(data).hexdigest()
            blob = hashlib.sha1(data).hexdigest()
            large = {"size": len(data), "pointerSize": 130} if is_large(name) else None
            if is_tree:
                lfs = {} if large is None else {"lfs": {**large, "oid": sha}}
                entries.append({"type": "file", "path": name, "size": len(data), "oid": blob, **lfs})
            else:
                lfs = {} if large is None else {"lfs": {**large, "sha256": sha}}
                entries.append({"rfilename": name, "size": len(data), "blobId": blob, **lfs})
        body = entries if is_tree else {"id": model, "sha": COMMIT, "siblings": entries}
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")


@contextmanager
def serve_hub():
    """Serve a hub without repositories until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
