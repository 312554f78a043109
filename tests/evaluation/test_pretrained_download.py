"""Weights come from a hub, or it is told why not."""

from __future__ import annotations

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from evaluation.pretrained_features import load
from tests.evaluation.test_pretrained_features import medicalnet, saved


class TestHub:
    """A hub of our own on this machine, which speaks as much of the protocol as is asked for."""

    @staticmethod
    def fetch(name: str, hub: str, home: Path) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys; from evaluation.pretrained_features import load\n"
            "print(sum(p.numel() for p in load('medicalnet', sys.argv[1]).network.parameters()))"
        )
        # The hub reads its variables once, when it is imported.
        more = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        environment = os.environ | more | {"HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", code, name]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def test_weights_are_fetched_from_a_hub(self, tmp_path: Path) -> None:
        file = saved({"state_dict": medicalnet()}, tmp_path / "file.pth")
        content = file.read_bytes()

        class Hub(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                known = self.path == "/owner/name/resolve/main/file.pth" or self.path.endswith(
                    f"{'0' * 40}/file.pth"
                )
                self.send_response(200 if known else 404)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", str(len(content)) if known else "0")
                self.end_headers()
                if known and self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            hub = f"http://127.0.0.1:{server.server_port}"
            found = self.fetch("hf:owner/name/file.pth", hub, tmp_path / "home")
            other = self.fetch("hf:owner/name/other.pth", hub, tmp_path / "home")
            wrong = self.fetch("hf:nowhere", hub, tmp_path / "home")
            server.shutdown()
        assert found.returncode == 0, found.stderr
        network = load("medicalnet", file).network
        assert int(found.stdout) == sum(p.numel() for p in network.parameters())
        for refused in (other, wrong):
            assert "cannot be fetched" in refused.stderr
            assert "hf:OWNER/NAME/FILE" in refused.stderr
