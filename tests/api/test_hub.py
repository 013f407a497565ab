"""Bundles on a local server that answers the hub's paths; the hub itself was not asked."""

import base64
import http.server
import json
import threading

import pytest

import a2fjax as a2f
from a2fjax import sealed_json
from a2fjax.api import hub
from a2fjax.bundle import manifest
from a2fjax.errors import InputError, WorkFailed

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory: {"owner/name": {path: bytes}}."""

    repositories: dict[str, dict[str, bytes]] = {}

    def answer(self, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, what = "/".join(parts[2:4]), parts[4]
            files = self.repositories.get(name)
            if files is None:
                return self.answer({}, 404, X_Error_Code="RepoNotFound")
            if what == "revision":
                return self.answer({"id": name, "sha": COMMIT, "siblings": []})
            tree = [
                {"type": "file", "path": p, "size": len(d), "oid": f"{i:040x}"}
                for i, (p, d) in enumerate(files.items())
            ]
            return self.answer(tree)
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        data = self.repositories.get(name, {}).get(path)
        if data is None:
            return self.answer({}, 404, X_Error_Code="EntryNotFound")
        tag = f'"{abs(hash(data)):040x}"'
        return self.answer(data, X_Repo_Commit=COMMIT, ETag=tag)

    do_HEAD = do_GET

    def do_POST(self):
        chunks = self.rfile.read(int(self.headers["Content-Length"]))
        host = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            given = json.loads(chunks)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else ""
            if name.startswith("denied/"):
                return self.answer({"error": "no permission"}, 403)
            self.repositories.setdefault(name, {})
            return self.answer({"url": f"{host}/{name}"})
        if "/preupload/" in self.path:
            asked = [f["path"] for f in json.loads(chunks)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]
            return self.answer({"files": modes})
        if "/commit/" in self.path:
            name = "/".join(self.path.split("/")[3:5])
            for line in chunks.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            url = f"{host}/{name}/commit/{COMMIT}"
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
        return self.answer({"warnings": [], "errors": []})

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    Hub.repositories = {}
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()


@pytest.fixture
def bundle(tmp_path):
    """A bundle as far as its files go; weights play no part here."""
    folder = tmp_path / "bundle"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(a2f.config().to_json())
    (folder / "README.md").write_text("---\nlicense: other\n---\n")
    (folder / "onnx" / "model.onnx").write_bytes(bytes(range(256)))
    listed = {
        name: manifest.file_digest(folder / name)
        for name in ("config.json", "README.md", "onnx/model.onnx")
    }
    from a2fjax import mesh_descriptor, rig

    values = {
        "schema": manifest.SCHEMA,
        "rig": rig.FINGERPRINT,
        "mesh_descriptor": mesh_descriptor.VERSION,
        "step": 3,
        "fingerprint": "x@3",
        "license": "other",
        "metrics": {},
        "graphs": {},
        "files": listed,
    }
    (folder / manifest.FILE).write_text(json.dumps(sealed_json.seal(values)))
    return folder


def test_a_bundle_goes_to_the_hub_and_back(bundle, server, tmp_path):
    model = a2f.load(bundle)
    url = model.push_to_hub("me/face", token="x", endpoint=server)
    assert url == f"{server}/me/face/commit/{COMMIT}"
    assert set(Hub.repositories["me/face"]) == {
        "a2fjax.json",
        "config.json",
        "README.md",
        "onnx/model.onnx",
    }
    options = {"endpoint": server, "cache_dir": tmp_path / "cache", "token": False}
    found = a2f.Model.from_pretrained("me/face", **options)
    assert found.name == "face"
    assert (found.run / "onnx" / "model.onnx").read_bytes() == bytes(range(256))
    assert manifest.verify(found.run)["step"] == 3
    offline = hub.fetch("me/face", local_files_only=True, **options)
    assert offline == found.run


def test_a_folder_needs_no_hub(bundle):
    assert a2f.Model.from_pretrained(bundle).run == bundle


def test_what_is_not_there_is_one_line(server, tmp_path):
    options = {"endpoint": server, "cache_dir": tmp_path / "cache", "token": False}
    with pytest.raises(InputError, match="me/none: not a folder, and not on the hub"):
        hub.fetch("me/none", **options)
    with pytest.raises(InputError, match="not a folder, and not on the hub"):
        hub.fetch("no such/name/at all", **options)
    Hub.repositories["me/other"] = {"config.json": b"{}"}
    with pytest.raises(InputError, match="a2fjax.json: no such file"):
        hub.fetch("me/other", **options)


def test_a_changed_bundle_is_not_uploaded(bundle, server):
    (bundle / "onnx" / "model.onnx").write_bytes(b"changed")
    with pytest.raises(InputError, match="onnx/model.onnx was changed"):
        hub.push(bundle, "me/changed", token="x", endpoint=server)
    assert "me/changed" not in Hub.repositories


def test_a_refusal_is_one_line(bundle, server):
    with pytest.raises(WorkFailed, match="denied/face: could not be uploaded"):
        hub.push(bundle, "denied/face", token="x", endpoint=server)
