"""Read by Python before anything else: inference packages become empty shells, and no connection leaves this machine."""

import importlib.abc
import importlib.machinery
import os
import socket
import struct
import sys
import types
import zlib

SHELLS = {"torch", "diffusers", "transformers", "hqq", "huggingface_hub", "safetensors", "accelerate", "bitsandbytes",
          "peft", "PIL", "numpy", "packaging", "omegaconf", "sentencepiece", "invisible_watermark"}


class Kind(type):
    """The type of everything in a shell: each name in it is there."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Kind(name, (Thing,), {})


class Thing(metaclass=Kind):
    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Thing()

    def __call__(self, *given, **_):
        # A decorator gives back what it decorates.
        return given[0] if len(given) == 1 and callable(given[0]) else Thing()

    def __bool__(self):
        return False

    def __ge__(self, _):
        return True

    __lt__ = __gt__ = __le__ = __ge__

    @classmethod
    def from_single_file(cls, path, **_):
        assert os.path.getsize(path) > 0, path
        return Painter()

    from_pretrained = from_single_file


class Painter:
    """Stands in for a loaded pipeline."""

    scheduler = Thing()

    def to(self, _device):
        return self

    def load_lora_weights(self, path):
        assert os.path.getsize(path) > 0, path

    def unload_lora_weights(self):
        pass

    def __call__(self, prompt, generator=None, height=0, width=0, **asked):
        assert prompt and height % 8 == 0 and width % 8 == 0 and asked["num_inference_steps"] > 0, asked
        done = types.SimpleNamespace()
        done.images = [Picture(width, height, generator.seed)]
        return done


class Picture:
    def __init__(self, width, height, seed):
        self.width, self.height, self.seed = width, height, seed

    def save(self, to, format):
        assert format == "PNG"

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        # No two seeds give the same one.
        row = b"\0" + bytes((x * 7) % 256 for x in range(self.width * 3 - 8)) + struct.pack(">Q", self.seed)
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        to.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                 + chunk(b"IDAT", zlib.compress(row * self.height)) + chunk(b"IEND", b""))


class Generator:
    def manual_seed(self, seed):
        self.seed = seed
        return self


CUDA = {"is_available": lambda: True, "device_count": lambda: 1, "set_device": lambda _: None,
        "get_device_name": lambda _: "NVIDIA GeForce RTX 3090", "empty_cache": lambda: None}


class Shells(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in SHELLS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__version__ = "0"

        def anything(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Kind(name, (Thing,), {})
        module.__getattr__ = anything
        if spec.name == "torch":
            module.Generator = Generator
            module.cuda = types.SimpleNamespace(**CUDA)
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Shells())

# Its statistics go to an address that is written into the program: they are led to the test.
STATISTICS = os.environ.get("NEURINO_STATISTICS_PORT")
connect = socket.socket.connect


def at_home(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        if address[1] == 5678 and STATISTICS:
            address = ("127.0.0.1", int(STATISTICS))
        else:
            raise OSError(f"a connection to {address} would leave this machine")
    return connect(self, address)


socket.socket.connect = at_home
