"""Writes the trained model in the published layout: python3 export.py [--state out/state.pt] [--to ..]"""
import argparse
import json
import pathlib
import shutil
import struct

import torch

import model
import rendering

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj",
         "v": "self_attn.v_proj", "o": "self_attn.o_proj", "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm", "router": "mlp.gate"}
EXPERT_NAMES = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def published(state):
    """(name, bf16 tensor) in the order of the file."""
    yield "model.embed_tokens.weight", state["embed"]
    for key, value in state.items():
        if not key.startswith("layers."):
            continue
        _, layer, part = key.split(".")
        if part in NAMES:
            yield f"model.layers.{layer}.{NAMES[part]}.weight", value
        else:
            for e, matrix in enumerate(value):
                yield f"model.layers.{layer}.mlp.experts.{e}.{EXPERT_NAMES[part]}.weight", matrix
    yield "model.norm.weight", state["final_norm"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", default=str(rendering.WORK / "state.pt"))
    parser.add_argument("--to", default=str(rendering.HERE.parent), help="the model folder")
    a = parser.parse_args()
    to = pathlib.Path(a.to)
    for source in (rendering.HERE / "chat_template.jinja", rendering.WORK / "tokenizer.json", rendering.WORK / "tokenizer_config.json"):
        shutil.copy(source, to)
    tensors = [(n, t.detach().bfloat16().contiguous()) for n, t in published(torch.load(a.state, map_location="cpu")["net"])]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors:
        header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [offset, offset + t.numel() * 2]}
        offset += t.numel() * 2
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(to / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, t in tensors:
            f.write(t.view(torch.int16).numpy().tobytes())
    (to / "config.json").write_text(json.dumps(model.CONFIG, indent=2) + "\n")
    (to / "generation_config.json").write_text(json.dumps(
        {"bos_token_id": None, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": False}, indent=2) + "\n")
    print(f"{len(tensors)} tensors, {offset / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
