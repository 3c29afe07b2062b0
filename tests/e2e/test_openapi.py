"""/openapi.json is true: every answer has the shape it names, and every parameter is taken or refused as it says. It is printed
from the table that requests are checked against, so these tests are generated from that table too."""
import http.client
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jsonschema
import openapi_spec_validator
import pytest

from asking import call, events

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
CHAT = {"messages": [{"role": "user", "content": "Who are you?"}]}


def conforms(name, value):
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)
    return True


def test_the_document_is_openapi_and_served_as_it_is_printed(scripted):
    openapi_spec_validator.validate(DOCUMENT)
    assert json.loads(scripted.get("/openapi.json")) == DOCUMENT


def test_it_names_every_route_and_no_other(scripted):
    routes = set(re.findall(r'^    \{"(/[^"]*)", ', (ROOT / "server/api.c").read_text(), re.M))
    assert {re.sub(r"{\w+}", "", path) for path in DOCUMENT["paths"]} == routes
    for path, item in DOCUMENT["paths"].items():
        status, headers, _ = call(scripted, path.replace("{model}", "standin"), {}) if "post" in item else (None, None, None)
        assert status in (None, 200, 400), path
        if "get" in item:
            assert scripted.get(path.replace("{model}", "standin"))


# ---- answers ----

EVERYTHING = {"max_tokens": 3, "n": 2, "service_tier": "flex", "return_token_ids": True, "return_timings": True}


@pytest.mark.parametrize("more", [{}, {**EVERYTHING, "logprobs": True, "top_logprobs": 2, "prompt_logprobs": 1}])
def test_chat_answers_have_the_shape_it_names(scripted, more):
    assert conforms("ChatCompletion", call(scripted, "/v1/chat/completions", {**CHAT, **more})[2])
    more = {**more, "prompt_logprobs": None}
    for options in ({}, {"stream_options": {"include_usage": True}}):
        assert all(conforms("ChatCompletionChunk", event) for event in events(scripted, "/v1/chat/completions",
                                                                              {**CHAT, **more, **options}))


@pytest.mark.parametrize("more", [{}, {**EVERYTHING, "logprobs": 2, "echo": True, "prompt_logprobs": 1}])
def test_completions_have_the_shape_it_names(scripted, more):
    ask = {"prompt": ["I am", "You are"], "max_tokens": 2, **more}
    assert conforms("Completion", call(scripted, "/v1/completions", ask)[2])
    ask["prompt_logprobs"] = None
    for options in ({}, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}):
        assert all(conforms("CompletionChunk", event) for event in events(scripted, "/v1/completions", {**ask, **options}))


def test_the_other_answers_have_the_shape_it_names(scripted):
    assert conforms("Rendered", call(scripted, "/v1/chat/completions/render", {**CHAT, "seed": 5})[2])
    assert all(conforms("Rendered", one) for one in call(scripted, "/v1/completions/render", {"prompt": ["a", "b"]})[2])
    assert conforms("Tokens", call(scripted, "/tokenize", {"prompt": "x"})[2])
    assert conforms("Tokens", call(scripted, "/tokenize", {**CHAT, "return_token_strs": True})[2])
    assert conforms("Text", call(scripted, "/detokenize", {"tokens": [5]})[2])
    assert conforms("Models", json.loads(scripted.get("/v1/models")))
    assert conforms("Model", json.loads(scripted.get("/v1/models/standin")))
    assert conforms("Version", json.loads(scripted.get("/version")))
    assert all(conforms("Health", json.loads(scripted.get(path))) for path in ("/health", "/live", "/ready"))
    assert conforms("Error", call(scripted, "/v1/completions", {})[2]) and conforms("Error", call(scripted, "/nothing", {})[2])


# ---- parameters ----

# Where a request of each kind is judged and nothing is computed, and the least that it takes.
JUDGES = {"ChatRequest": ("/v1/chat/completions/render", CHAT), "CompletionRequest": ("/v1/completions/render", {"prompt": "x"}),
          "TokenizeRequest": ("/tokenize", {"prompt": "x"}), "DetokenizeRequest": ("/detokenize", {"tokens": [1]})}
PARAMETERS = [(kind, name) for kind in JUDGES for name in SCHEMAS[kind]["properties"]]

ANY_TYPE = ["null", "true", "false", "0", "-0", "-0.0", "1", "-1", "0.5", "1.5", "2", "9007199254740992", "9007199254740993",
            "-9007199254740993", "1e308", "1e999", "-1e999", '""', '"x"', '"\\u20ac"', "[]", "{}", "[1]", '["x"]', "[[1]]", '[""]',
            "[-1]", "[1.5]", "[null]", '{"a": 1}', '{"1": 1}', '{"1": 101}', '{"type": "text"}', "[" * 40 + "]" * 40]


def written(number):
    return str(int(number)) if float(number).is_integer() else repr(number)


def values_for(schema):
    """Values as JSON text: of every type, and around every bound that the schema names, however deep."""
    texts = list(ANY_TYPE)
    bounds = [schema, *schema.get("anyOf", [])]
    for part in bounds:
        step = 1 if "integer" in part.get("type", "") else 0.001
        for bound in ("minimum", "maximum"):
            if abs(part.get(bound, 2**60)) < 2**60:
                texts += [written(part[bound] + k * step) for k in (-1, 0, 1)]
        if "maxLength" in part:
            texts += [json.dumps("x" * n) for n in (part["maxLength"], part["maxLength"] + 1)]
        if "maxItems" in part:
            texts += [json.dumps([item] * n) for n in (part["maxItems"], part["maxItems"] + 1) for item in ("x", 1)]
        texts += [json.dumps(word) for word in part.get("enum", []) if word is not None]
        texts += [json.dumps({name: value}) for name, inner in part.get("properties", {}).items()
                  for value in (None, True, "x", 0, 0.0005, 1, 1e9, inner.get("maximum", 0), inner.get("const"))]
    return list(dict.fromkeys(texts))


class Judge:
    """One kept-alive connection: what is said to a body, as (status, error)."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)

    def __call__(self, path, text):
        self.connection.request("POST", path, text.encode(), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        body = json.loads(answer.read())
        return answer.status, body.get("error", {}) if isinstance(body, dict) else {}


@pytest.fixture(scope="module")
def judge(scripted):
    return Judge(scripted)


# What a parameter needs beside it.
COMPANIONS = {"stream_options": {"stream": True}, "top_logprobs": {"logprobs": True}}


def body_text(kind, name, *values):
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {**JUDGES[kind][1], **COMPANIONS.get(name, {})}.items()
               if key != name and not (kind == "TokenizeRequest" and name == "messages")]
    return "{" + ", ".join(members + [f'"{name}": {value}' for value in values]) + "}"


# What a schema of one parameter cannot say: rules between two, what the model has, and what is not reserved for a range.
BEYOND_THE_SCHEMA = {None, "context_length_exceeded", "model_not_found", "invalid_value"}
ONE_OF_TWO = {("TokenizeRequest", "prompt"), ("TokenizeRequest", "messages")}
ZERO_HAS_A_RULE = {"max_tokens", "truncate_prompt_tokens"}


@pytest.mark.parametrize("kind, name", PARAMETERS, ids=[f"{kind[:-7]}-{name}" for kind, name in PARAMETERS])
def test_a_parameter_is_taken_or_refused_as_its_row_says(judge, kind, name):
    schema = SCHEMAS[kind]["properties"][name]
    validator = jsonschema.Draft202012Validator(schema)
    path, needed = JUDGES[kind][0], name in SCHEMAS[kind].get("required", []) or (kind, name) in ONE_OF_TWO
    for text in values_for(schema):
        status, error = judge(path, body_text(kind, name, text))
        said = (text[:80], status, error)
        assert status in (200, 400, 404), said
        if needed and text == "null":
            assert (status, error["code"]) == (400, "missing_required_parameter"), said
        elif validator.is_valid(json.loads(text)):
            assert status == 200 or error["code"] in BEYOND_THE_SCHEMA or (name in ZERO_HAS_A_RULE and "0" in text), said
        else:
            assert status == 400 and re.match(re.escape(name) + r"([.\[]|$)", error["param"]), said
            assert error["code"] != "unknown_parameter" and error["type"] == "invalid_request_error", said


@pytest.mark.parametrize("kind, name", PARAMETERS, ids=[f"{kind[:-7]}-{name}" for kind, name in PARAMETERS])
def test_what_is_no_json_or_said_twice_is_refused_as_a_body(judge, kind, name):
    path = JUDGES[kind][0]
    deep = "[" * 100 + "]" * 100
    for values in (["NaN"], ["Infinity"], ["-Infinity"], ["01"], ["1."], ["'x'"], ["[1,]"], ['"\\u0000"'], [deep], ["1", "1"],
                   ['{"a": 1, "a": 1}']):
        status, error = judge(path, body_text(kind, name, *values))
        assert (status, error["param"], error["code"]) == (400, None, None), (values, error)


@pytest.mark.parametrize("path, body", [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "x"})])
def test_answering_judges_as_rendering_does(scripted, path, body):
    judge = Judge(scripted)
    kind = "ChatRequest" if "chat" in path else "CompletionRequest"
    for name, schema in SCHEMAS[kind]["properties"].items():
        for text in ("null", "true", "-1", '"x"', "[]", "{}"):
            asked = '{"max_tokens": 1, ' + body_text(kind, name, text)[1:] if name != "max_tokens" else body_text(kind, name, text)
            if '"stream": true' in asked:
                continue
            rendered, answered = judge(path + "/render", asked), judge(path, asked)
            assert rendered == answered, (name, text)


def test_random_requests_never_find_a_fault_of_the_server(scripted):
    """Schemathesis makes requests from the document, valid ones and others: no 5xx, and every answer as documented."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    run = subprocess.run([sys.executable, "-m", "schemathesis.cli", "run", scripted.url + "/openapi.json", "--phases", "fuzzing",
                          "--max-examples", "8", "--seed", "1", "--checks", checks, "--no-color"],
                         capture_output=True, text=True, timeout=120, cwd=scripted.log_path.parent)
    assert run.returncode == 0, run.stdout[-5000:]
    assert re.search(r"Tested: 1\d", run.stdout), run.stdout


def test_the_examples_of_the_page_work(scripted):
    page = (ROOT / "docs/api.md").read_text()
    shell, python = (re.search(rf"```{word}\n(.*?)```", page, re.S)[1].replace("http://127.0.0.1:8080", scripted.url)
                     for word in ("sh", "python"))
    if shutil.which("curl"):
        assert shell.count("curl -s") == 5
        run = subprocess.run(["bash", "-ec", shell.replace("curl -s", "curl --fail-with-body -s")], capture_output=True, text=True)
        assert run.returncode == 0 and run.stdout.count('"timings"') == 1 and run.stdout.count("[DONE]") == 1, run.stdout
    assert subprocess.run([sys.executable, "-c", python], capture_output=True, text=True).stdout.startswith("I am a stand-in")
