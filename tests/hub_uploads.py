"""A stand-in for the hub on loopback that takes uploads as the hub's client makes them, and gives them back."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretTokenOfATest"
LARGE = (".parquet", ".safetensors", ".png")


@dataclass
class Repository:
    files: dict = field(default_factory=lambda: {".gitattributes": b"*.parquet filter=lfs\n"})
    private: bool = False


@dataclass
class UploadHub:
    """What was pushed."""

    url: str = ""
    repositories: dict = field(default_factory=dict)
    """By kind, id and branch, as `datasets/owner/name@main`."""
    objects: dict = field(default_factory=dict)
    """Content of large files by SHA-256."""
    puts: list = field(default_factory=list)
    """SHA-256 of each large file that was sent."""
    commits: list = field(default_factory=list)
    """Paths of each commit."""
    asked: list = field(default_factory=list)
    """All requests: method and path."""
    breaks_after: int | None = None
    """Large files after which the server takes no more."""

    def files(self, kind, name, revision="main"):
        return self.repositories[f"{kind}/{name}@{revision}"].files


def commit_id(repository):
    return hashlib.sha1(repr(sorted(repository.files.items())).encode()).hexdigest()


class UploadHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: UploadHub

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return path.strip("/").split("/")

    def has_token(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def find(self, kind, name, revision="main"):
        """The repository at a branch or a commit; None where there is none."""
        branches = {key: value for key, value in self.hub.repositories.items() if key.startswith(f"{kind}/{name}@")}
        exact = branches.get(f"{kind}/{name}@{revision}")
        return exact or next((found for found in branches.values() if commit_id(found) == revision), None)

    def do_PUT(self):
        (_, oid), hub = self.begin(), self.hub
        if hub.breaks_after is not None and len(hub.puts) >= hub.breaks_after:
            return self.answer(400)
        assert hashlib.sha256(self.body).hexdigest() == oid
        hub.puts.append(oid)
        hub.objects[oid] = self.body
        return self.answer(200)

    def do_POST(self):
        parts = self.begin()
        if parts[0] == "api" and "paths-info" in parts:
            return self.tell_paths(parts)
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if not self.has_token():
            return self.answer(401, {"error": "Invalid username or password."})
        if parts == ["api", "repos", "create"]:
            return self.create()
        if parts[-1] == "batch":
            return self.batch()
        kind, name, verb, revision = parts[1], "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
        if verb == "branch":
            self.hub.repositories.setdefault(f"{kind}/{name}@{revision}", Repository(dict(self.find(kind, name).files)))
            return self.answer(200, {})
        repository = self.find(kind, name, revision)
        return self.preupload(repository) if verb == "preupload" else self.commit(repository, kind, name)

    def create(self):
        asked = json.loads(self.body)
        key = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
        is_new = f"{key}@main" not in self.hub.repositories
        self.hub.repositories.setdefault(f"{key}@main", Repository(private=asked.get("visibility") == "private"))
        prefix = "" if asked["type"] == "model" else f"{asked['type']}s/"
        name = f"{asked['organization']}/{asked['name']}"
        return self.answer(200 if is_new else 409, {"url": f"{self.hub.url}/{prefix}{name}", "name": name})

    def preupload(self, repository):
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        return self.answer(200, {"files": modes, "commitOid": commit_id(repository)})

    def batch(self):
        objects = [
            {key: asked[key] for key in ("oid", "size")}
            | (
                {}
                if asked["oid"] in self.hub.objects
                else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}}
            )
            for asked in json.loads(self.body)["objects"]
        ]
        return self.answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/json")

    def commit(self, repository, kind, name):
        paths = []
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                continue
            paths.append(value["path"])
            if entry["key"] == "deletedFile":
                del repository.files[value["path"]]
            elif entry["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                repository.files[value["path"]] = base64.b64decode(value["content"])
        self.hub.commits.append(paths)
        oid = commit_id(repository)
        page = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"})

    def do_GET(self):
        parts = self.begin()
        is_api = parts[0] == "api"
        if is_api:
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        elif parts[0] == "datasets":
            kind, name, rest = "datasets", "/".join(parts[1:3]), parts[3:]
        else:
            kind, name, rest = "models", "/".join(parts[:2]), parts[2:]
        revision = rest[1] if len(rest) > 1 and rest[0] in ("revision", "tree", "resolve") else "main"
        repository = self.find(kind, name, revision)
        if repository is None and is_api and self.find(kind, name) is not None:
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        if repository is None or (repository.private and not self.has_token()):
            return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if not is_api:
            return self.give(repository, "/".join(rest[2:]))
        if rest[:1] == ["tree"]:
            return self.tell_tree(repository, "/".join(rest[2:]))
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        about = {"id": name, "sha": commit_id(repository), "siblings": siblings, "tags": [], "private": False}
        return self.answer(200, about, Content_Type="application/json")

    do_HEAD = do_GET

    def give(self, repository, path):
        if path not in repository.files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        data = repository.files[path]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "X_Repo_Commit": commit_id(repository), "Accept_Ranges": "bytes"}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(data)), len(data) - 1)
            part = f"bytes {first}-{end}/{len(data)}"
            return self.answer(206, data[int(first) : end + 1], Content_Range=part, **headers)
        return self.answer(200, data, **headers)

    def entry(self, path, data):
        large = {"lfs": {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 130}}
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        is_large = path.endswith(LARGE)
        return {"type": "file", "path": path, "size": len(data), "oid": oid, **(large if is_large else {})}

    def tell_tree(self, repository, under):
        is_deep = "recursive=true" in urlsplit(self.path).query.lower()
        start = f"{under}/" if under else ""
        below = [path for path in sorted(repository.files) if path.startswith(start)]
        if under and not below:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        files = [path for path in below if is_deep or "/" not in path.removeprefix(start)]
        folders = {start + path.removeprefix(start).partition("/")[0] for path in below if path not in files}
        entries = [self.entry(path, repository.files[path]) for path in files]
        entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        return self.answer(200, entries, Content_Type="application/json")

    def tell_paths(self, parts):
        repository = self.find(parts[1], "/".join(parts[2:4]), parts[5])
        wanted = json.loads(self.body)["paths"]
        found = [self.entry(path, repository.files[path]) for path in wanted if path in repository.files]
        folders = [path for path in wanted if any(name.startswith(f"{path}/") for name in repository.files)]
        found += [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]
        return self.answer(200, found, Content_Type="application/json")


@contextmanager
def serve_uploads():
    """Serve a hub without repositories until the block ends."""
    hub = UploadHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (UploadHandler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
