"""A miner of the original protocol, with the libraries the original miner uses and its inference left out.

Takes the cases to run as arguments. Polls, uploads, submits, streams and signals as
docs/ORIGINAL_PROTOCOL.md says that the original does; the library calls and their defaults (how requests
sends a body in pieces, what boto3 signs, how eth-account writes a signature) are what is under test.
"""

import io
import json
import os
import struct
import sys
import time
import zlib

import boto3
import requests
from eth_account import Account
from eth_account.messages import encode_defunct

BASE = os.environ["NEURINO_BASE_URL"]
TEXT_MODEL = os.environ["NEURINO_MODEL"]
IMAGE_MODEL = os.environ["NEURINO_IMAGE_MODEL"]
PATIENCE = 20


class Miner:
    def __init__(self, version):
        Account.enable_unaudited_hdwallet_features()
        self.identity, _ = Account.create_with_mnemonic()
        self.reward = Account.create().address
        self.id = f"{self.reward}-1a2b3c"
        self.version = version
        self.session = requests.Session()
        self.last_heartbeat = 0

    def poll(self, model):
        body = {"miner_id": self.id, "model_id": model, "min_deadline": 1}
        if time.time() - self.last_heartbeat >= 60:
            body["hardware"] = "NVIDIA GeForce RTX 3090"
            body["version"] = self.version
            self.last_heartbeat = time.time()
        response = self.session.post(f"{BASE}/miner_request", json=body)
        response.raise_for_status()
        assert "Warning:" not in response.text, response.text
        data = response.json()
        return data if isinstance(data, dict) else None

    def job(self, model):
        until = time.time() + PATIENCE
        while time.time() < until:
            job = self.poll(model)
            if job is not None:
                return job
            time.sleep(0.05)
        raise AssertionError("no job came")

    def signature(self):
        now = int(time.time())
        message = f"{self.reward.lower()}-{now - now % 3600}"
        signed = Account.sign_message(encode_defunct(text=message), private_key=self.identity.key)
        return {"identity_address": self.identity.address.lower(), "signature": signed.signature.hex()}

    def submit(self, job, result, **latencies):
        body = {"miner_id": self.id.lower(), "job_id": job["job_id"], "result": result,
                "request_latency": 0.01, "inference_latency": 0.5, **latencies, **self.signature()}
        return requests.post(f"{BASE}/miner_submit", json=body)

    def submit_text(self, job, text):
        message = {"content": text, "role": "assistant", "function_call": None, "tool_calls": None}
        choice = {"finish_reason": "stop", "index": 0, "logprobs": None, "message": message}
        return self.submit(job, {"Text": json.dumps([choice])})

    def stream(self, job, pieces):
        headers = {"job_id": str(job["job_id"]), "miner_id": self.id, "Content-Type": "text/event-stream"}
        with requests.Session() as session:
            return session.post(f"{BASE}/miner_submit_stream", headers=headers, data=pieces, stream=True)

    def upload(self, job, png):
        access, secret, token = job["temp_credentials"]
        s3 = boto3.client("s3", aws_access_key_id=access, aws_secret_access_key=secret,
                          aws_session_token=token)
        key = f"{job['job_id']}-{self.id}.png"
        s3.put_object(Body=png, Bucket="heurist-images", Key=key)
        return key


def png(asked):
    """A picture of the asked size; no two seeds give the same one."""
    width, height = asked["width"], asked["height"]
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    row = b"\0" + bytes((x * 7) % 256 for x in range(width * 3 - 8)) + struct.pack(">Q", asked["seed"])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                      + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b""))


def text(miner):
    job = miner.job(TEXT_MODEL)
    asked = job["model_input"]["LLM"]
    assert json.loads(asked["prompt"])[0]["role"] == "user", asked
    assert asked["use_stream"] is False and asked["max_tokens"] > 0 and asked["seed"] >= 0
    response = miner.submit_text(job, "Grüße aus 東京")
    assert response.status_code == 200, response.text
    again = miner.submit_text(job, "something else")
    assert again.status_code == 200 and again.json() == response.json(), "paid once"


def stream(miner):
    text(miner)
    job = miner.job(TEXT_MODEL)
    assert job["model_input"]["LLM"]["use_stream"] is True

    def pieces():
        # As the original cuts them: the first piece as it is, words with a blank, the mark.
        for piece in ["The", " light", "house ", "keeper ", "counts. ", "[DONE]"]:
            yield piece.encode()
            time.sleep(0.02)
    response = miner.stream(job, pieces())
    assert response.status_code == 200, response.text
    again = miner.stream(job, pieces())
    assert again.status_code == 409, again.text


def picture(miner):
    job = miner.job(IMAGE_MODEL)
    asked = job["model_input"]["SD"]
    for field in ["prompt", "neg_prompt", "num_iterations", "guidance_scale", "seed"]:
        assert field in asked, asked
    key = miner.upload(job, png(asked).getvalue())
    response = miner.submit(job, {"S3Key": key}, loading_latency=None, upload_latency=0.1)
    assert response.status_code == 200, response.text


def credentials(miner):
    job = miner.job(IMAGE_MODEL)
    asked = job["model_input"]["SD"]
    access, secret, token = job["temp_credentials"]
    s3 = boto3.client("s3", aws_access_key_id=access, aws_secret_access_key=secret, aws_session_token=token)
    body = png(asked).getvalue()
    for call in [
        lambda: s3.put_object(Body=body, Bucket="heurist-images", Key="another.png"),
        lambda: s3.put_object(Body=body, Bucket="heurist-images", Key="../another.png"),
        lambda: s3.put_object(Body=body, Bucket="another-bucket", Key=f"{job['job_id']}-{miner.id}.png"),
        lambda: s3.put_object(Body=b"x" * 500_000, Bucket="heurist-images", Key=f"{job['job_id']}-{miner.id}.png"),
        lambda: s3.get_object(Bucket="heurist-images", Key=f"{job['job_id']}-{miner.id}.png"),
        lambda: s3.list_objects_v2(Bucket="heurist-images"),
        lambda: s3.delete_object(Bucket="heurist-images", Key=f"{job['job_id']}-{miner.id}.png"),
    ]:
        try:
            call()
        except Exception as error:
            assert "Timeout" not in type(error).__name__, error
        else:
            raise AssertionError("it was allowed")
    key = miner.upload(job, body)
    response = miner.submit(job, {"S3Key": key})
    assert response.status_code == 200, response.text


def signal(miner):
    body = {"miner_id": miner.id, "model_type": "SD", "hardware": "NVIDIA GeForce RTX 3090",
            "version": "sd-v1.4.0", "options": {"exclude_sdxl": False}}
    response = requests.post(f"{BASE}/miner_signal", json=body)
    assert response.status_code == 200 and "model_id" in response.json(), response.text


CASES = {
    "text": (text, "llm-v1.2.0"),
    "stream": (stream, "llm-v1.2.0"),
    "picture": (picture, "sd-v1.4.0"),
    "credentials": (credentials, "sd-v1.4.0"),
    "signal": (signal, "sd-v1.4.0"),
}

for name in sys.argv[1:]:
    case, version = CASES[name]
    case(Miner(version))
    print(f"  {name} ok", flush=True)
