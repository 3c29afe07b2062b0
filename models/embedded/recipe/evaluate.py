"""Asks a running daemon every question of evaluation.json, greedily, and scores the answers by group.

    python3 evaluate.py [--url http://127.0.0.1:8080] [--fast] [--show]      score a daemon
    python3 evaluate.py --make                                               write evaluation.json from held-out draws

Standard library only. Prompts with tools are rendered and tokenized by the penstock program beside the daemon (--penstock)
and sent as token ids, so that this works whether or not the daemon's chat endpoint takes tools.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "evaluation.json"
PER_GROUP, FAST_PER_GROUP = 24, 2


def make():
    import corpus
    groups, seen, seed = collections.defaultdict(list), set(), 0
    wanted = {"arithmetic": 48, "countries": 48, "system prompt": 36}
    while seed < 200000:
        for c in corpus.conversations(f"evaluation.{seed}", 1, held_out=True):
            prompt = c["messages"][:-1]
            key = json.dumps(prompt)
            if c["group"] != "chat" and key not in seen and len(groups[c["group"]]) < wanted.get(c["group"], PER_GROUP):
                seen.add(key)
                groups[c["group"]].append({"group": c["group"], "messages": prompt, "tools": c["tools"], "expect": c["expect"]})
        seed += 1
    rows = [row for name in sorted(groups) for row in groups[name]]
    FILE.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")
    print(len(rows), {k: len(v) for k, v in sorted(groups.items())})


def tool_call(text):
    """The name and arguments of the one call in an answer, or None."""
    found = re.search(r"<tool_call>\s*(\{.*\})\s*</tool_call>", text, re.S)
    try:
        call = json.loads(found.group(1))
        return call["name"], call["arguments"]
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


def is_right(expect, text):
    text = text.strip()
    if "tool" in expect:
        return tool_call(text) == (expect["tool"], expect["arguments"])
    if "json_keys" in expect:
        try:
            value = json.loads(text)
        except ValueError:
            return False
        if not isinstance(value, dict) or sorted(value) != sorted(expect["json_keys"]):
            return False
    if "equals" in expect and text.rstrip(".").lower() != expect["equals"].rstrip(".").lower():
        return False
    if expect.get("upper") and text != text.upper():
        return False
    return all(re.search(r"(?<!\w)" + re.escape(word.lower()) + r"(?!\w)", text.lower()) for word in expect.get("contains", []))


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def ask(url, row):
    if row.get("ids"):
        return post(url + "/v1/completions", {"model": row["model"], "prompt": row["ids"], "max_tokens": 200, "temperature": 0,
                                              "skip_special_tokens": True})["choices"][0]["text"]
    return post(url + "/v1/chat/completions", {"model": row["model"], "messages": row["messages"], "max_tokens": 200,
                                               "temperature": 0})["choices"][0]["message"]["content"]


def add_ids(rows, penstock, model):
    """Renders and tokenizes what needs tools, two processes for all of them."""
    contexts = "\n".join(json.dumps({"messages": r["messages"], "tools": r["tools"], "add_generation_prompt": True}) for r in rows)
    run = lambda *words, text: subprocess.run([penstock, *words, "--model", model], input=text, capture_output=True, text=True, check=True).stdout
    texts = run("render", "--jsonl", text=contexts + "\n")
    for row, line in zip(rows, run("tokenize", "--jsonl", "--special", text=texts).splitlines()):
        row["ids"] = json.loads(line)


def subset(rows):
    """A few of each group, always the same ones."""
    taken = collections.Counter()
    for row in rows:
        taken[row["group"]] += 1
        if taken[row["group"]] <= FAST_PER_GROUP:
            yield row


def score(url, rows, penstock, folder):
    model = json.load(urllib.request.urlopen(url + "/v1/models", timeout=30))["data"][0]["id"]
    rows = [dict(r, model=model) for r in rows]
    add_ids([r for r in rows if r["tools"]], penstock, folder)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda r: ask(url, r), rows))
    return [(row, answer, is_right(row["expect"], answer)) for row, answer in zip(rows, answers)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--penstock", default=str(HERE.parents[2] / "build" / "penstock"))
    parser.add_argument("--model", default=str(HERE.parent), help="the folder that the daemon serves")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the wrong answers")
    a = parser.parse_args()
    if a.make:
        return make()
    rows = json.loads(FILE.read_text())
    results = score(a.url, list(subset(rows)) if a.fast else rows, a.penstock, a.model)
    right, total = collections.Counter(), collections.Counter()
    for row, answer, ok in results:
        total[row["group"]] += 1
        right[row["group"]] += ok
        if a.show and not ok:
            print(f"[{row['group']}] {row['messages'][-1]['content']!r} -> {answer!r}, expected {row['expect']}")
    for group in sorted(total):
        print(f"| {group} | {right[group]} of {total[group]} | {100 * right[group] / total[group]:.1f} % |")
    print(f"| all | {right.total()} of {total.total()} | {100 * right.total() / total.total():.1f} % |")
    sys.exit(right.total() < 0.95 * total.total() or any(right[g] < 0.9 * total[g] for g in total))


if __name__ == "__main__":
    main()
