"""Runs the original miner's own programs, unmodified, against a coordinator.

    run.py auth|llm|sd CHECKOUT FOLDER

The checkout is copied into the empty FOLDER; config.toml and .env are what a person edits there, nothing
else changes. Inference is stood in for by stand_ins/. `auth` makes, shows, checks and imports identity
wallets and ends. The others make one, start the miner, say `ready` and go on until their input ends; then
they look for what the miner complained about. The coordinator is NEURINO_BASE_URL, its models
NEURINO_MODEL and NEURINO_IMAGE_MODELS.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import toml
from eth_account import Account

from surroundings import Surroundings

HERE = Path(__file__).resolve().parent
CASE, CHECKOUT, FOLDER = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
MINER = FOLDER / "miner"
KEYS = FOLDER / "keys"
REWARD = "0x" + os.urandom(20).hex()
IMAGE_MODELS = os.environ.get("NEURINO_IMAGE_MODELS", "my-painter").split(",")
AROUND = Surroundings(IMAGE_MODELS)
OWN = {"config.toml", ".env"}


def digests(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found if path.name not in OWN}


def prepare():
    shutil.copytree(CHECKOUT, MINER, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    KEYS.mkdir()
    config = toml.load(CHECKOUT / "config.toml")
    base = os.environ["NEURINO_BASE_URL"]
    config["service"].update(base_url=base, signal_url=base)
    config["storage"].update(base_dir=str(FOLDER / "models"), keys_dir=str(KEYS))
    lists = {f"{kind}_config_url": f"{AROUND.url}/{file}.json"
             for kind, file in [("model", "models"), ("vae", "vae"), ("lora", "lora")]}
    config["model_config"].update(default_sd_model_index=0, **lists)
    config["system"].update(num_child_process=2, sleep_duration=1, reload_interval=1, signal_interval=1)
    config["contract"]["rpc"] = f"{AROUND.url}/chain"
    (MINER / "config.toml").write_text(toml.dumps(config))
    (MINER / ".env").write_text(f"MINER_ID_0={REWARD}\n")
    # The names under which the miner calls what a machine has.
    tools = FOLDER / "bin"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)
    card = tools / "nvidia-smi"
    card.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1A2b3c4d-0000-0000)'\n")
    card.chmod(0o755)


def environment():
    path = os.pathsep.join([str(HERE / "stand_ins"), os.environ["PYTHONPATH"], str(MINER)])
    # PYTHONPATH names the miner's folder as its own starter scripts do by running `python -c` in it.
    return {**os.environ, "PYTHONPATH": path, "HOME": str(FOLDER), "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "PATH": f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "NEURINO_STATISTICS_PORT": str(AROUND.port), "NEURINO_ASKED": str(FOLDER / "asked.jsonl")}


def generator(*arguments, said="y\n"):
    done = subprocess.run(["python", "auth/generator.py", *arguments], cwd=MINER, env=environment(), input=said,
                          text=True, capture_output=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def key_file():
    return KEYS / f"{REWARD}.txt"


def wallet_is_made():
    code, said = generator()
    assert code == 0 and "generating one" in said, said
    words, address = (line.split(": ")[1] for line in key_file().read_text().splitlines())
    Account.enable_unaudited_hdwallet_features()
    assert Account.from_mnemonic(words).address.lower() == address, "the file's words are its address's"
    return words, address


def auth():
    words, address = wallet_is_made()
    code, said = generator()
    assert code == 0 and "binding is not established" in said, said
    AROUND.bound = address
    code, said = generator()
    assert code == 0 and "Binding identity wallet found" in said, said
    # A lost file is made again of the words, and of no other words.
    key_file().unlink()
    other = Account.create_with_mnemonic()[1]
    code, said = generator(said=f"{other}\n{words}\nno\nmaybe\ny\n")
    assert code == 0 and "does not match" in said, said
    assert key_file().read_text().splitlines()[1].endswith(address)
    AROUND.bound = Account.create().address.lower()
    code, said = generator()
    assert code != 0 and "Mismatch found" in said, said
    code, said = generator("--new", REWARD)
    made = MINER / f"{REWARD}.txt"
    assert code == 0 and "New Identity Wallet Created" in said and made.exists(), said
    made.unlink()
    AROUND.bound = None
    assert AROUND.chain_asked >= 4


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def started():
    if CASE == "llm":
        model = os.environ["NEURINO_MODEL"]
        words = ["llm-miner.py", f"org/{model}", "None", model, "0.90", "None", "0", free_port(), "0", "false", "hermes"]
    else:
        # As if it had last pushed its statistics long ago.
        (MINER / "stats").mkdir()
        (MINER / "stats/sd-miner-stats.json").write_text('[{"model_stats": {}, "last_pushed": 0}]')
        words = ["sd-miner.py", "--auto-confirm", "yes", "--log-level", "DEBUG"]
        words += os.environ.get("NEURINO_MINER_OPTIONS", "").split()
    output = open(FOLDER / "output.txt", "wb")
    return subprocess.Popen(["python", *words], cwd=MINER, env=environment(), stdout=output,
                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)


def mine():
    wallet_is_made()
    miner = started()
    try:
        print("ready", REWARD, flush=True)
        sys.stdin.read()
        # It counts a picture a moment after the coordinator has paid for it.
        until = time.monotonic() + 15
        while CASE == "sd" and not AROUND.statistics and time.monotonic() < until:
            time.sleep(0.1)
        assert miner.poll() is None, "the miner runs until it is stopped"
        logs = "".join(path.read_text() for path in MINER.glob("*.log"))
        output = (FOLDER / "output.txt").read_text()
    finally:
        # Its own way to end leaves its server behind, so the whole group goes.
        os.killpg(miner.pid, signal.SIGKILL)
        miner.wait()
    suspicious = ["ERROR", "Traceback", "Failed", "Error", "Warning: the previous", "WARNING: "]
    bad = [line for line in (logs + output).splitlines() if any(word in line for word in suspicious)]
    return bad, logs, output


def main():
    prepare()
    before = digests(CHECKOUT)
    bad, logs, output = [], "", ""
    if CASE == "auth":
        auth()
    else:
        bad, logs, output = mine()
    after = digests(MINER)
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    assert not changed, f"these are the original's own files: {changed}"
    if bad:
        print(output[-4000:], logs[-6000:], sep="\n---\n")
        raise SystemExit("the miner complained:\n" + "\n".join(bad[:20]))
    if CASE == "sd":
        assert AROUND.statistics, "its statistics were pushed"
        print("  statistics pushed:", json.dumps(AROUND.statistics[0]))
    print(f"  unmodified {CASE} ok", flush=True)


main()
