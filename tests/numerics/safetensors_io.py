"""Reads and writes safetensors files with NumPy alone, bfloat16 included."""
import json
import struct
from pathlib import Path

import numpy as np

CONFIG_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
FILE_NAMES = {"f32": "F32", "bf16": "BF16", "f16": "F16"}


def to_bf16(values):
    """Round to nearest, ties to even; the upper halves of the float32 words."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def encode(values, dtype):
    if dtype == "bf16":
        return to_bf16(values).tobytes()
    return np.ascontiguousarray(values, {"f32": np.float32, "f16": np.float16}[dtype]).tobytes()


def decode(data, name, shape):
    if name == "BF16":
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[name])
    return values.reshape(shape).astype(np.float64)


def write_file(path, tensors, dtype):
    """tensors: name -> array."""
    header, chunks, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        chunk = encode(values, dtype)
        header[name] = {"dtype": FILE_NAMES[dtype], "shape": list(values.shape), "data_offsets": [end, end + len(chunk)]}
        chunks.append(chunk)
        end += len(chunk)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def write_folder(folder, tensors, dtype, shards=1):
    folder = Path(folder)
    if shards == 1:
        return write_file(folder / "model.safetensors", tensors, dtype)
    names, weight_map = list(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        weight_map.update({name: file for name in part})
        write_file(folder / file, {name: tensors[name] for name in part}, dtype)
    index = {"metadata": {"total_size": sum(t.size for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read_file(path):
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    data = raw[8 + size :]
    return {n: decode(data[slice(*t["data_offsets"])], t["dtype"], t["shape"]) for n, t in header.items()}


def read_folder(folder):
    """name -> float64 array."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_file(folder / "model.safetensors")
    tensors = {}
    for file in sorted(set(json.loads(index.read_text())["weight_map"].values())):
        tensors.update(read_file(folder / file))
    return tensors
