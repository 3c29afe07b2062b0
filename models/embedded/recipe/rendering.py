"""Conversations as the daemon will render them: the model's own chat_template.jinja through Jinja2."""
import json
import pathlib

import jinja2.sandbox

HERE = pathlib.Path(__file__).resolve().parent
WORK = HERE / "out"  # what the steps leave for each other; export.py writes the finished model
WORK.mkdir(exist_ok=True)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
    return env


_template = environment().from_string((HERE / "chat_template.jinja").read_text())
END = "<|im_end|>\n"


def render(messages, tools=None, add_generation_prompt=False):
    return _template.render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


def pieces(messages, tools=None):
    """[(text, is_learned)]: learned are the assistant's own words and the token that ends them."""
    out, done = [], ""
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before = render(messages[:i], tools, True)
        after = render(messages[:i + 1], tools)
        assert before.startswith(done) and after.startswith(before) and after.endswith(END)
        out += [(before[len(done):], False), (after[len(before):-1], True)]
        done = after[:-1]
    return out
