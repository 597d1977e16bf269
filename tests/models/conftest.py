"""A tiny random model on disk, and a stand-in for the hub on a local port."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", "one", "two", "three"])}


def save_tiny_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random Llama with two blocks and its tokenizer. Shared by all tests: read only."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@dataclass
class FakeHub:
    """Repositories by id, each a folder; every path that was asked for."""

    folders: dict[str, Path] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and error code with which a repository is refused."""
    requests: list[str] = field(default_factory=list)


def _answer(hub: FakeHub, path: str) -> tuple[int, dict[str, str], bytes]:
    """The part of the hub's protocol that downloading a repository needs."""
    is_api = path.startswith("/api/models/")
    parts = path.removeprefix("/api/models/").strip("/").split("/", 4 if not is_api else 3)
    repo, action = "/".join(parts[:2]), parts[2]
    if repo in hub.refusals or repo not in hub.folders:
        status, code = hub.refusals.get(repo, (404, "RepoNotFound"))
        return status, {"X-Error-Code": code}, b""
    folder = hub.folders[repo]
    commit = sha1(str(folder).encode()).hexdigest()
    if action == "revision" and parts[3] not in ("main", commit):
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if action == "revision":
        return 200, {}, json.dumps({"id": repo, "sha": commit}).encode()
    if action == "tree":
        files = [path for path in folder.rglob("*") if path.is_file()]
        tree = [
            {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": _etag(f)}
            for f in files
        ]
        return 200, {}, json.dumps(tree).encode()
    file = folder / parts[4]
    return 200, {"X-Repo-Commit": commit, "ETag": f'"{_etag(file)}"'}, file.read_bytes()


def _etag(file: Path) -> str:
    return sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def fake_hub(tmp_path, monkeypatch) -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(path)
            status, headers, body = _answer(hub, path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()
