"""Asking a daemon over HTTP, without the official client in between."""
import json
import re
import urllib.error
import urllib.request


def call(daemon, path, body, headers=None):
    """(status, headers, parsed answer)"""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(daemon.url + path, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, json.load(refused)


def events(daemon, path, body):
    request = urllib.request.Request(daemon.url + path, json.dumps({**body, "stream": True}).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = re.findall(r"^data: (.*)$", answer.read().decode(), re.M)
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def refusal(daemon, path, body, status=400):
    got, headers, answer = call(daemon, path, body)
    assert got == status, answer
    assert set(answer) == {"error"} and set(answer["error"]) == {"message", "type", "param", "code"}
    assert all(value is None or isinstance(value, str) for value in answer["error"].values())
    assert headers["x-should-retry"] == "false"
    return answer["error"]
