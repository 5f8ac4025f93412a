"""What stands around the original miner but the coordinator: the lists of models, their files, a node of the
chain that knows which identity wallet is bound, and where its statistics go."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STYLE = "my-style"


class Surroundings:
    def __init__(self, image_models):
        self.bound = None
        self.statistics = []
        self.chain_asked = 0
        around = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if self.path.startswith("/files/"):
                    return self.answer(b"weights of " + self.path.encode())
                url = f"{around.url}/files/"
                file = {"size_mb": 1, "file_url": url}
                painters = [{"name": name, "type": "sd15", "vae": "my-vae", **file} for name in image_models]
                style = {"name": STYLE, "base": image_models[0], "base_model": "sd15", **file}
                lists = {
                    "/models.json": [*painters, {"name": "a-text-model", "type": "llm16b", "size_gb": 1},
                                     {**style, "type": "composite15", "default_weight": 0.8}],
                    "/vae.json": [{"name": "my-vae", "type": "vae", **file}],
                    "/lora.json": [{**style, "type": "lora"}],
                }
                self.answer(json.dumps(lists[self.path]).encode())

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/submit-stats":
                    around.statistics.append(asked)
                    return self.answer(b"{}")
                assert self.path == "/chain", self.path
                around.chain_asked += 1
                results = {"eth_chainId": "0x12c", "net_version": "300",
                           "eth_call": "0x" + (around.bound or "0x0")[2:].rjust(64, "0")}
                answer = {"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]}
                self.answer(json.dumps(answer).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
