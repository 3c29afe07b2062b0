"""The command line: answers, sentences and exit codes."""
import json
import os
import pathlib
import re
import time

import pytest

from conftest import BINARY

ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE, NOT_FOUND, ADDRESS, CONFIG = 64, 66, 73, 78  # exit statuses of base/error.h


def assert_refused(result, status, sentence):
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and re.search(sentence, lines[0]), result.stderr


def test_help_lists_every_command(penstock):
    text = penstock("--help").stdout
    for command in ("serve", "tokenize", "render", "inspect", "plan", "generate", "key", "admin"):
        helped = penstock(command, "--help")
        assert re.search(rf"^  {command} ", text, re.M), command
        assert helped.returncode == 0 and helped.stdout == penstock("help", command).stdout
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+\n", penstock("--version").stdout)


@pytest.mark.parametrize("arguments, status, sentence", [
    ([], USAGE, None),
    (["swerve"], USAGE, "there is no command 'swerve'"),
    (["serve", "--prot", "1"], USAGE, "there is no setting --prot; did you mean --port?"),
    (["serve", "--port", "70000"], USAGE, "--port must be between 0 and 65535, not 70000"),
    (["serve", "--port"], USAGE, "--port needs a value"),
    (["serve", "--device", "tpu"], USAGE, "--device must be one of auto.cpu.cuda.sim, not 'tpu'"),
    (["serve", "word"], USAGE, "'word' is not a flag"),
    (["serve"], USAGE, "no model was given"),
    (["serve", "--model", "/nonexistent"], NOT_FOUND, "/nonexistent"),
    (["serve", "--model", "random:nothing"], NOT_FOUND, "random:nothing"),
    (["serve", "--config", "/nonexistent.conf"], CONFIG, "/nonexistent.conf"),
    (["generate", "--model", "/nonexistent", "--prompt", "x"], NOT_FOUND, "/nonexistent"),
    (["inspect", "/nonexistent"], NOT_FOUND, "/nonexistent"),
    (["plan", "--model", "/nonexistent"], NOT_FOUND, "/nonexistent"),
])
def test_a_bad_command_line_gets_one_sentence(penstock, arguments, status, sentence):
    result = penstock(*arguments)
    if sentence is None:
        assert result.returncode == status and "Usage" in result.stderr
    else:
        assert_refused(result, status, sentence)


NO_GPU = r"no NVIDIA driver was found|the NVIDIA driver |has compute capability|there is no penstock-cuda.so"


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a GPU")
def test_without_a_gpu_auto_says_why_it_takes_the_cpu_and_cuda_is_refused(penstock, standin):
    assert re.search(rf", cpu, because .*({NO_GPU})", penstock("plan", "--model", standin).stdout)
    refused = penstock("serve", "--model", standin, "--device", "cuda", "--port", 0)
    assert refused.returncode != 0 and refused.stdout == ""
    assert re.search(rf"there is no CUDA device, because .*({NO_GPU})", refused.stderr), refused.stderr


EMULATED = BINARY.parent / "penstock-emulated-cuda.so"


@pytest.mark.skipif(not EMULATED.exists(), reason="the emulated GPU is not built")
def test_an_emulated_gpu_answers_as_the_cpu_does(penstock, standin, monkeypatch):
    ask = ["generate", "--model", standin, "--prompt", "Who are you?", "--chat", "--max-tokens", 5]
    expected = penstock(*ask, "--device", "cpu").stdout.splitlines()[0]
    monkeypatch.setenv("PENSTOCK_CUDA_OBJECT", str(EMULATED))
    assert re.search(r", cuda, on an emulated GPU: ", penstock("plan", "--model", standin).stdout)
    answered = penstock(*ask, "--device", "cuda")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.splitlines()[0] == expected


def test_check_reads_everything_and_stops(penstock, standin, tmp_path):
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text(f"[model]\nmodel = {standin}\n[server]\nport = 1234\n")
    bad.write_text("[server]\nport = many\n")
    assert penstock("serve", "--config", good, "--check").returncode == 0
    assert_refused(penstock("serve", "--config", bad, "--check"), CONFIG, r"bad\.conf:2: port must be a whole number, not 'many'")


def test_the_dumped_configuration_names_origins_and_can_be_read_back(penstock, tmp_path):
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text("[server]\nport = 1234\n")
    dump = penstock("serve", "--config", first, "--threads", 3, "--dump-config").stdout
    assert re.search(rf"^port = 1234 +# {first}:2$", dump, re.M)
    assert re.search(r"^threads = 3 +# command line$", dump, re.M)
    assert re.search(r"^host = 127.0.0.1 +# default$", dump, re.M)
    second.write_text(dump)
    again = penstock("serve", "--config", second, "--dump-config").stdout
    assert re.sub(" *# .*", "", again) == re.sub(" *# .*", "", dump)


def test_generate_answers_and_reports(penstock, standin, sentence):
    result = penstock("generate", "--model", standin, "--prompt", "Who are you?", "--chat", "--max-tokens", 64)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == sentence
    report = (result.stdout + result.stderr).strip().splitlines()[-1]
    for word in ("prompt 14 tokens", "answer 29 tokens", "ms/token", "GB/s", "digest"):
        assert word in report


def test_generate_repeats_itself(penstock, standin):
    def digest(*flags):
        result = penstock("generate", "--model", standin, "--prompt", "I am", "--max-tokens", 8, "--jsonl-stats", *flags)
        return json.loads(result.stdout.splitlines()[-1])["digest"]

    assert digest() == digest() == digest("--threads", 1) == digest("--chunk-tokens", 1)


def test_tokenize_goes_there_and_back(penstock, standin):
    ids = penstock("tokenize", "--model", standin, "Penstock; naïve").stdout.split()
    assert all(i.isdigit() for i in ids)
    lines = json.dumps("I am") + "\n" + json.dumps("<|im_end|>\n") + "\n"
    plain = [json.loads(line) for line in penstock("tokenize", "--model", standin, "--jsonl", text=lines).stdout.splitlines()]
    special = [json.loads(line) for line in
               penstock("tokenize", "--model", standin, "--jsonl", "--special", text=lines).stdout.splitlines()]
    assert len(plain[0]) == 2 and plain[0] == special[0]
    assert len(special[1]) == 2 < len(plain[1])
    back = penstock("tokenize", "--model", standin, "--decode", "--jsonl", text="\n".join(map(json.dumps, plain)) + "\n")
    assert [json.loads(line) for line in back.stdout.splitlines()] == ["I am", "<|im_end|>\n"]


def test_render_answers_each_line(penstock, standin):
    lines = [{"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True},
             {"messages": [{"role": "alien", "content": "hi"}]}]
    result = penstock("render", "--model", standin, "--jsonl", text="".join(json.dumps(line) + "\n" for line in lines))
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert "alien" in second["error"]


def test_inspect_tells_the_facts(penstock):
    text = penstock("inspect", ROOT / "models/embedded").stdout
    assert "Qwen3MoeForCausalLM" in text and "router" in text


def test_serve_keeps_to_the_memory_plan(penstock):
    result = penstock("serve", "--model", "random:llama-160m", "--kv-cache-memory", "2T", "--port", 0)
    assert_refused(result, 71, "--kv-cache-memory")


def test_a_taken_port_is_named_at_once(penstock, scripted, standin):
    result = penstock("serve", "--model", standin, "--port", scripted.port)
    assert result.returncode == ADDRESS
    assert str(scripted.port) in result.stderr.strip().splitlines()[-1]


def test_the_daemon_sleeps_when_nobody_asks(scripted):
    def cpu_seconds():
        fields = pathlib.Path(f"/proc/{scripted.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(0.5)
    before = cpu_seconds()
    time.sleep(2)
    assert cpu_seconds() - before <= 0.1
