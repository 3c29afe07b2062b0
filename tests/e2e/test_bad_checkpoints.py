"""Hostile checkpoint folders: each gets one sentence and a non-zero exit, at once, from every command that opens it."""
import json
import shutil
import struct
import time

import pytest

from conftest import BINARY

SECONDS_MAX = 20 if "san/" in str(BINARY) else 1


def edit_json(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def config(**changes):
    return lambda folder: edit_json(folder, "config.json", lambda c: c.update(changes))


def without(name):
    return lambda folder: (folder / name).unlink()


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def weights(change):
    """change(header dictionary, data) returns the bytes of a new file."""

    def apply(folder):
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        path.write_bytes(change(json.loads(raw[8 : 8 + size]), raw[8 + size :]))

    return apply


def packed(header, data):
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def tensor(header, **changes):
    header["model.norm.weight"].update(changes)
    return header


def truncated(share):
    return lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[: int(share * (folder / "model.safetensors").stat().st_size)])


def renamed(header, old, new):
    header[new] = header.pop(old)
    return header


NORM = "model.norm.weight"
HOSTILE = {
    "no config": without("config.json"),
    "no weights": without("model.safetensors"),
    "config is not JSON": text("config.json", b"{"),
    "config is empty": text("config.json", b""),
    "config is not UTF-8": text("config.json", b'{"a": "\xff\xfe"}'),
    "config nests deeply": text("config.json", b"[" * 100000),
    "config is a list": text("config.json", b"[]"),
    "unknown architecture": config(architectures=["NewestForCausalLM"], model_type="newest"),
    "layers beyond reason": config(num_hidden_layers=2**31),
    "negative width": config(hidden_size=-1),
    "fractional heads": config(num_attention_heads=2.5),
    "width as text": config(hidden_size="128"),
    "zero experts used": config(num_experts_per_tok=0),
    "more experts used than there are": config(num_experts_per_tok=9),
    "heads that do not divide": config(num_attention_heads=3, num_key_value_heads=2),
    "vocabulary that contradicts the weights": config(vocab_size=10**6),
    "one layer too many": config(num_hidden_layers=3),
    "weights are empty": text("model.safetensors", b""),
    "weights end in the header's size": text("model.safetensors", b"\x01\x02"),
    "header larger than the file": text("model.safetensors", struct.pack("<Q", 2**63) + b"{}"),
    "header of the largest size": text("model.safetensors", b"\xff" * 8 + b"{}"),
    "header is not JSON": text("model.safetensors", struct.pack("<Q", 4) + b"{{{{"),
    "header nests deeply": text("model.safetensors", struct.pack("<Q", 90000) + b'{"a":' * 18000),
    "file cut in the header": truncated(0.001),
    "file cut in the data": truncated(0.7),
    "a missing tensor": weights(lambda h, d: packed({k: v for k, v in h.items() if k != NORM}, d)),
    "an absurd shape": weights(lambda h, d: packed(tensor(h, shape=[2**40, 2**40]), d)),
    "a negative dimension": weights(lambda h, d: packed(tensor(h, shape=[-1]), d)),
    "a wrong shape": weights(lambda h, d: packed(tensor(h, shape=[64, 2]), d)),
    "an unknown type": weights(lambda h, d: packed(tensor(h, dtype="F4_E2M1"), d)),
    "offsets beyond the file": weights(lambda h, d: packed(tensor(h, data_offsets=[2**40, 2**40 + 256]), d)),
    "offsets backwards": weights(lambda h, d: packed(tensor(h, data_offsets=[256, 0]), d)),
    "offsets as fractions": weights(lambda h, d: packed(tensor(h, data_offsets=[0.5, 256.5]), d)),
    "overlapping tensors": weights(lambda h, d: packed(tensor(h, data_offsets=[0, 256]), d)),
    "an unrelated name": weights(lambda h, d: packed(renamed(h, NORM, "x" * 100000), d)),
    "tokenizer is not JSON": text("tokenizer.json", b"not json"),
    "tokenizer is of another kind": text("tokenizer.json", b'{"model": {"type": "Unigram", "vocab": []}}'),
    "tokenizer has a merge of nothing": lambda folder: edit_json(
        folder, "tokenizer.json", lambda t: t["model"]["merges"].append(["no such", "token"])),
    "tokenizer has an id beyond reason": lambda folder: edit_json(
        folder, "tokenizer.json", lambda t: t["model"]["vocab"].update({"zz": 2**40})),
    "tokenizer has a broken pattern": lambda folder: edit_json(
        folder, "tokenizer.json", lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(((")),
    "template does not parse": text("chat_template.jinja", b"{% for x in %}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_gets_one_sentence(penstock, standin, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(standin, folder)
    HOSTILE[name](folder)
    began = time.monotonic()
    result = penstock("serve", "--model", folder, "--port", 0)
    assert time.monotonic() - began < SECONDS_MAX
    assert 0 < result.returncode < 128, f"status {result.returncode}: {result.stderr}"
    sentences = [line for line in result.stderr.splitlines() if line.startswith("penstock")]
    assert len(sentences) == 1 and len(sentences[0]) < 700, result.stderr
    assert "Penstock serves" not in result.stdout
