"""What the original starts as its inference server: answers every chat with the same words."""

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = "The lighthouse keeper counts Grüße aus 東京."
CALL = {"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Kiel\"}"}}

parser = argparse.ArgumentParser()
for name in ["model", "served-model-name", "max-model-len", "uvicorn-log-level", "dtype", "tensor-parallel-size",
             "gpu-memory-utilization", "tool-call-parser", "revision", "quantization"]:
    parser.add_argument(f"--{name}")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--disable-log-requests", action="store_true")
parser.add_argument("--enable-auto-tool-choice", action="store_true")
ARGS = parser.parse_args()


def completion(kind, **choice):
    return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": ARGS.served_model_name,
            "choices": [{"index": 0, "finish_reason": None, "logprobs": None, **choice}]}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, kind="application/json"):
        body = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer("# HELP\nvllm:num_requests_running 0.0\n", "text/plain")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(os.environ["NEURINO_ASKED"], "a") as asked_of:
            asked_of.write(json.dumps(asked) + "\n")
        if asked.get("stream"):
            pieces = ["", *(WORDS[at:at + 5] for at in range(0, len(WORDS), 5))]
            events = [completion("chat.completion.chunk", delta={"role": "assistant", "content": piece})
                      for piece in pieces]
            events.append(completion("chat.completion.chunk", delta={}, finish_reason="stop"))
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            return self.answer(body, "text/event-stream")
        message = {"role": "assistant", "content": WORDS}
        done = "stop"
        if asked.get("tools"):
            message, done = {"role": "assistant", "content": None, "tool_calls": [CALL]}, "tool_calls"
        whole = completion("chat.completion", message=message, finish_reason=done)
        whole["usage"] = {"prompt_tokens": 8, "completion_tokens": 12, "total_tokens": 20}
        self.answer(json.dumps(whole))


ThreadingHTTPServer(("127.0.0.1", ARGS.port), Server).serve_forever()
