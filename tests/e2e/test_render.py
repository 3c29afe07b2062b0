"""penstock render: real templates with contexts nobody has seen, against Jinja2 itself where it is installed."""
import copy
import datetime
import json
import os
import pathlib
import random

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = pathlib.Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared")) / "chat_templates"
NOW = datetime.datetime(2025, 3, 14, 9, 26, 53)
CONTEXTS = 60  # per template

needs_templates = pytest.mark.skipif(not TEMPLATES.exists(), reason="needs the shared chat templates")


def rendered(penstock, template, contexts):
    """One answer per context: the text, or None for an error."""
    result = penstock("render", "--chat-template", template, "--now", NOW.strftime("%Y-%m-%d %H:%M:%S"), "--jsonl",
                      text="".join(json.dumps(c) + "\n" for c in contexts))
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.split("\n")[:-1]]
    assert len(answers) == len(contexts)
    return [a if isinstance(a, str) else None for a in answers]


def reference():
    """Jinja2 as the transformers library sets it up."""
    jinja2 = pytest.importorskip("jinja2")
    sandbox = pytest.importorskip("jinja2.sandbox")

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                        extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=NOW.strftime)
    return environment


class Dice:
    """Conversations from a seed: ordinary, odd and broken ones."""

    TEXTS = ["hi", "", " padded \n", "日本 “q” <b>&'\"", "<think>a</think>b", "a\n\nb", "x</think>\n\ny", '{"k": 1}', "None", "😀 é"]

    def __init__(self, seed):
        self.r = random.Random(seed)

    def chance(self, p):
        return self.r.random() < p

    def value(self, depth=2):
        kind = self.r.randrange(4 if depth else 2)
        if kind == 0:
            return self.r.choice(self.TEXTS)
        if kind == 1:
            return self.r.choice([1, 0, -5, 1.5, 10.0, 1e20, True, None, 2**60])
        many = range(self.r.randrange(4))
        if kind == 2:
            return {self.r.choice(["a", "b", "type", "items", "k\n"]): self.value(depth - 1) for _ in many}
        return [self.value(depth - 1) for _ in many]

    def content(self):
        kind = self.r.random()
        if kind < 0.75:
            return self.r.choice(self.TEXTS)
        if kind < 0.85:
            return None
        if kind < 0.97:
            return [{"type": "text", "text": self.r.choice(self.TEXTS)} for _ in range(self.r.randrange(3))]
        return self.value()

    def tool(self):
        properties = {name: {"type": self.r.choice(["string", "integer", "array", "object", ["string", "null"]]),
                             "description": self.r.choice(self.TEXTS), **({"enum": ["x", "y"]} if self.chance(0.3) else {})}
                      for name in self.r.sample(["city", "unit", "n"], self.r.randrange(4))}
        function = {"name": "f", "description": self.r.choice(self.TEXTS),
                    "parameters": {"type": "object", "properties": properties, "required": ["city"]}}
        return {"type": "function", "function": function} if self.chance(0.9) else function

    def message(self, role):
        message = {"role": role, "content": self.content()}
        if role == "assistant" and self.chance(0.4):
            arguments = [{"city": self.value()}, {}, '{"city": "P"}', None]
            message["tool_calls"] = [{"id": "call00001", "type": "function",
                                      "function": {"name": "f", "arguments": self.r.choice(arguments)}}]
        if role == "assistant" and self.chance(0.3):
            message["reasoning_content"] = self.r.choice(self.TEXTS)
        if role == "tool":
            message.update(tool_call_id="call00001", name="f")
        if self.chance(0.05):
            del message["content"]
        return message

    def context(self):
        roles = ["system"] * self.chance(0.5)
        for _ in range(self.r.randrange(1, 4)):
            roles += ["user"] + ["assistant"] * self.chance(0.7) + ["tool"] * self.chance(0.3)
        context = {"messages": [self.message(role) for role in roles], "bos_token": "<s>", "eos_token": "</s>",
                   "add_generation_prompt": self.chance(0.7)}
        if self.chance(0.5):
            context["tools"] = [self.tool() for _ in range(self.r.randrange(3))] or None
        if self.chance(0.3):
            context["enable_thinking"] = self.chance(0.5)
        return context


@needs_templates
@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_a_real_template_agrees_with_jinja2_on_any_conversation(penstock, template):
    compiled = reference().from_string(template.read_bytes().decode())
    dice = Dice(template.name)
    contexts = [dice.context() for _ in range(CONTEXTS)]
    expected = []
    for context in contexts:
        try:
            expected.append(compiled.render(**copy.deepcopy(context)))  # `s += newline` in a filter may change a list
        except Exception:  # whatever Python raises, an interpreter reports an error
            expected.append(None)
    for context, ours, theirs in zip(contexts, rendered(penstock, template, contexts), expected):
        assert ours == theirs, json.dumps(context)


def test_lines_that_are_no_context_get_an_error_and_the_rest_goes_on(penstock, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ x }}{{ raise_exception('no') if x == 3 }}{{ strftime_now('%H:%M') }}")
    result = penstock("render", "--chat-template", template, "--now", "3600", "--jsonl",
                      text='{"x": 1}\n[]\n{"x": \n{"x": 3}\n{"x": "\\ud83d\\ude00\\n"}\n')
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0] == "101:00" and lines[4] == "😀\n01:00"
    assert [set(line) for line in lines[1:4]] == [{"error"}] * 3 and lines[3]["error"] == "no"


def test_a_folder_with_only_tokenizer_files_is_enough(penstock, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "bos_token": {"content": "<b>"}, "eos_token": "<e>"}))
    lines = [{"messages": [{"content": "hi"}]}, {"messages": [{"content": "hi"}], "bos_token": "!"}]
    result = penstock("render", "--model", tmp_path, "--jsonl", text="".join(json.dumps(line) + "\n" for line in lines))
    assert result.stdout.splitlines() == ['"<b>hi<e>"', '"!hi<e>"']


@pytest.mark.parametrize("arguments, sentence", [
    (["--jsonl"], "--model DIR or --chat-template FILE"),
    (["--chat-template", "/nonexistent", "--jsonl"], "/nonexistent"),
    (["--model", "/nonexistent", "--jsonl"], "/nonexistent"),
    (["--model", "/", "--jsonl"], "no chat template"),
    (["--model", "/tmp"], "--jsonl is needed"),
    (["--model", "/tmp", "--now", "noon", "--jsonl"], "'noon'"),
])
def test_what_cannot_be_rendered_is_one_sentence(penstock, arguments, sentence):
    result = penstock("render", *arguments, text="")
    assert result.returncode != 0 and sentence in result.stderr and result.stderr.count("\n") == 1
