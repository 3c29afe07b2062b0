"""/metrics as Prometheus' own client reads it: types, help, buckets, vLLM's names and bounds, and that the numbers are true."""
import pathlib
import re
import threading

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUEST = [.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
TOKEN = [.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]  # up to the context of the model that is served here
VLLM_BOUNDS = {
    "time_to_first_token_seconds": [.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
                                    640, 2560],
    "inter_token_latency_seconds": TOKEN, "request_time_per_output_token_seconds": TOKEN,
    "e2e_request_latency_seconds": REQUEST, "request_queue_time_seconds": REQUEST, "request_inference_time_seconds": REQUEST,
    "request_prefill_time_seconds": REQUEST, "request_decode_time_seconds": REQUEST,
    "request_prompt_tokens": LENGTHS, "request_generation_tokens": LENGTHS, "request_max_num_generation_tokens": LENGTHS,
    "request_params_max_tokens": LENGTHS, "request_prefill_kv_computed_tokens": LENGTHS,
    "iteration_tokens_total": [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
    "request_params_n": [1, 2, 5, 10, 20],
}


@pytest.fixture(scope="module")
def sim(start_daemon):
    return start_daemon("--device", "sim", "--served-model-name", 'odd "name" \\n', model="random:llama-160m")


def scrape(daemon):
    """{name: family}, held against the rules of the format on the way."""
    text = daemon.get("/metrics")
    families = list(text_string_to_metric_families(text))
    names = re.findall(r"^# TYPE (\S+) ", text, re.M)
    assert len(names) == len(set(names)) == len(families)
    assert re.findall(r"^# HELP (\S+) \S", text, re.M) == names
    series = re.findall(r"^([^#\s].*) \S+$", text, re.M)
    assert len(series) == len(set(series))
    return {family.name: family for family in families}


def value(families, name, **labels):
    found = [s.value for family in families.values() for s in family.samples
             if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]


def complete(daemon, **body):
    return daemon.post("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True, **body})


def test_every_histogram_is_cumulative_and_sums_up(sim):
    complete(sim, n=2)
    histograms = [family for family in scrape(sim).values() if family.type == "histogram"]
    assert len(histograms) > 25
    for family in histograms:
        buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
        bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
        count, = (s.value for s in family.samples if s.name.endswith("_count"))
        assert buckets == sorted(buckets) and buckets[-1] == count and bounds == sorted(set(bounds)) and bounds[-1] == float("inf")


def test_vllm_s_histograms_have_vllm_s_bounds_as_its_client_writes_them(sim):
    families = scrape(sim)
    for name, bounds in VLLM_BOUNDS.items():
        found = [s.labels["le"] for s in families["vllm:" + name].samples if s.name.endswith("_bucket")]
        assert found == [str(float(bound)) for bound in bounds] + ["+Inf"], name


def test_the_numbers_are_those_of_the_requests_that_were_made(sim):
    before = scrape(sim)
    usages = [complete(sim, prompt=list(range(10, 10 + length)), max_tokens=tokens, n=n)["usage"]
              for length, tokens, n in [(40, 3, 1), (40, 5, 2), (9, 1, 1)]]
    with pytest.raises(Exception):
        complete(sim, n=-1)
    sim.wait_for_metric("penstock_exchanges", 0)
    after = scrape(sim)

    def grew(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    prompts = 40 + 2 * 40 + 9  # each choice is a request of its own
    assert sum(u["completion_tokens"] for u in usages) == 14
    for ours, theirs, wanted in [
        ("penstock_prompt_tokens_total", "vllm:prompt_tokens_total", prompts),
        ("penstock_output_tokens_total", "vllm:generation_tokens_total", 14),
        ("penstock_request_prompt_tokens_sum", "vllm:request_prompt_tokens_sum", prompts),
        ("penstock_request_output_tokens_sum", "vllm:request_generation_tokens_sum", 14),
        ("penstock_request_longest_output_tokens_sum", "vllm:request_max_num_generation_tokens_sum", 9),
        ("penstock_request_choices_sum", "vllm:request_params_n_sum", 4),
        ("penstock_request_seconds_count", "vllm:e2e_request_latency_seconds_count", 4),
        ("penstock_time_to_first_token_seconds_count", "vllm:time_to_first_token_seconds_count", 4),
        ("penstock_inter_token_latency_seconds_count", "vllm:inter_token_latency_seconds_count", 10),
    ]:
        assert grew(ours) == grew(theirs) == wanted, ours
    computed, cached = (grew("vllm:prompt_tokens_by_source_total", source=s) for s in ("local_compute", "local_cache_hit"))
    assert computed + cached == prompts and cached == grew("vllm:prompt_tokens_cached_total") > 0
    assert grew("penstock_request_computed_tokens_sum") == computed
    assert grew("vllm:request_success_total", finished_reason="length") == 4
    assert grew("penstock_requests_refused_total", reason="invalid") == 1
    assert grew("penstock_http_answers_total", status="2xx") >= 3 and grew("penstock_http_answers_total", status="4xx") == 1
    assert grew("vllm:iteration_tokens_total_count") == grew("penstock_passes_total") > 0
    assert grew("penstock_pass_rows_sum") == computed + 14 - 4  # the last token of an answer is not computed


def test_a_number_is_the_same_under_both_names_and_the_page_lists_them_all(sim):
    families = scrape(sim)
    shown = {sample.name for family in families.values() for sample in family.samples}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    rows = re.findall(r"^\| (?:`(\S+)`)? \| (?:`(vllm:\S+?)`)?.*? \| (counter|gauge|histogram|info) \|",
                      (ROOT / "docs/metrics.md").read_text(), re.M)
    listed = {name for row in rows for name in row[:2] if name}
    assert {name for name in listed if not name.startswith("penstock_tenant_")} == shown  # those need keys
    pairs = [(ours, theirs) for ours, theirs, _ in rows if ours and theirs]
    assert len(pairs) > 25
    for ours, theirs in pairs:
        for family in families.values():
            for sample in family.samples:
                if sample.name in (theirs, theirs + "_sum", theirs + "_count") and sample.value:
                    labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
                    assert value(families, sample.name.replace(theirs, ours), **labels) == sample.value


def test_labels_are_escaped_and_those_that_vllm_has(sim):
    families = scrape(sim)
    theirs = [s for family in families.values() if family.name.startswith("vllm:") for s in family.samples]
    assert all(s.labels["model_name"] == 'odd "name" \\n' and s.labels["engine"] == "0" for s in theirs)
    info, = families["vllm:cache_config_info"].samples
    assert info.value == 1 and info.labels["enable_prefix_caching"] == "True"
    assert int(info.labels["block_size"]) * int(info.labels["num_gpu_blocks"]) > 0
    assert value(families, "vllm:engine_sleep_state", sleep_state="awake") == 1
    ours = [s for family in families.values() if not family.name.startswith("vllm:") for s in family.samples]
    assert max(sum(1 for s in ours if s.name == name) for name in {s.name for s in ours}) < 60  # bounded, whatever clients send


def test_counters_never_fall_and_keep_their_type_under_load(sim):
    stop = threading.Event()

    def load():
        while not stop.is_set():
            complete(sim, n=3, max_tokens=20)

    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    last = {}
    for _ in range(25):
        for family in scrape(sim).values():
            for sample in family.samples:
                if family.type == "gauge":
                    continue
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert sample.value >= last.get(key, 0), key
                last[key] = sample.value
    stop.set()
    for worker in workers:
        worker.join()
    assert last


def test_only_who_waits_counts_as_waiting(start_daemon):
    daemon = start_daemon("--device", "sim", "--running-max", 2, model="random:llama-160m")
    streams = [daemon.client().completions.create(model=daemon.model, prompt=[1, 2], max_tokens=2000, stream=True,
                                                  extra_body={"ignore_eos": True}) for _ in range(2)]
    daemon.wait_for_metric("penstock_requests_running", 2)
    assert daemon.metric("penstock_requests_waiting") == 0  # none of those that run
    streams += [daemon.client().completions.create(model=daemon.model, prompt=[1, 2, 3], max_tokens=9, stream=True)
                for _ in range(3)]
    families = scrape(daemon)
    assert value(families, "vllm:num_requests_waiting") == value(families, "penstock_requests_waiting") == 3
    assert value(families, "vllm:num_requests_waiting_by_reason", reason="capacity") == 3
    assert value(families, "penstock_waiting_tokens") == 9
    assert value(families, "vllm:num_requests_running") == 2
    for stream in streams:
        stream.close()
    daemon.wait_for_metric("penstock_requests_waiting", 0)


@pytest.mark.parametrize("flags, prefixes", [
    (["--metrics-dialects", "native"], {"penstock_", "process_"}),
    (["--metrics-dialects", "vllm"], {"vllm:"}),
    (["--metrics-old-names"], {"penstock_", "process_", "vllm:"}),
])
def test_dialects_are_chosen_by_settings(start_daemon, flags, prefixes):
    daemon = start_daemon("--device", "sim", *flags, model="random:llama-160m")
    names = set(scrape(daemon))
    assert all(any(name.startswith(prefix) for name in names) for prefix in prefixes)
    assert all(name.startswith(tuple(prefixes)) for name in names)
    assert ("vllm:gpu_cache_usage_perc" in names) == ("--metrics-old-names" in flags)
    assert ("vllm:time_per_output_token_seconds" in names) == ("--metrics-old-names" in flags)


def test_the_example_alerts_are_made_of_series_that_exist(sim):
    complete(sim)
    shown = {(s.name, label, value) for family in scrape(sim).values() for s in family.samples
             for label, value in (s.labels or {"": ""}).items()}
    group, = yaml.safe_load((ROOT / "docs/alerts.yml").read_text())["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) >= 5
    for rule in group["rules"]:
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "warn")
        series = re.findall(r"(penstock_\w+)(?:{(\w+)=~?\"(.*?)\"})?", rule["expr"])
        assert series and rule["expr"].count("(") == rule["expr"].count(")")
        for name, label, pattern in series:
            found = [value for shown_name, shown_label, value in shown if shown_name == name and label in ("", shown_label)]
            assert any(re.fullmatch(pattern, value) for value in found) if label else found, rule["expr"]
