# Penstock. `make help` lists the targets; docs/architecture.md says which file to read first.
BUILD  ?= build
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DATA    = $(PREFIX)/share/penstock
DOC     = $(PREFIX)/share/doc/penstock
ETC     = $(SYSCONFDIR)/penstock
CC     ?= cc
MODE   ?= release
PYTHON ?= python3
ARGS   ?=
FUZZ_SECONDS ?= 60

FLAGS_release = -O3 -g1
QUIET_sanitized = -Wno-unknown-warning-option -Wno-format-truncation -Wno-maybe-uninitialized # gcc's guesses there are wrong
FLAGS_asan    = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer $(QUIET_sanitized)
FLAGS_tsan    = -O1 -g -fsanitize=thread $(QUIET_sanitized)
FLAGS_fuzz    = -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

CFLAGS  += -std=c17 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wpointer-arith -Werror \
           -ffp-contract=off -fno-math-errno -pthread $(FLAGS_$(MODE)) -I. -MMD -MP
LDLIBS   = -luv -lcjson -lpcre2-8 -lutf8proc -linih -lsodium -lm -ldl
LLHTTP   = /usr/share/llhttp
LLHTTP_H = /usr/share/include/llhttp

# Instruction sets are chosen at run time: a file named *_avx512.c or *_avx2.c is compiled for its set and reached only
# through the dispatch table of kernels/cpu.
ISA_avx512 = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx2 -mfma -mf16c -mprefer-vector-width=512
ISA_avx2   = -mavx2 -mfma -mf16c

FOLDERS = base models kernels kernels/cpu kvcache scheduler engine server
SOURCES = $(foreach d,$(FOLDERS),$(wildcard $d/*.c))
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY = $(filter-out $(BUILD)/server/main.o,$(OBJECTS)) $(BUILD)/llhttp/llhttp.o $(BUILD)/llhttp/api.o $(BUILD)/llhttp/http.o

# kernels/cuda/*.cu, twice: for GPUs by nvcc, where it is, into one object, which the daemon opens at start (kernels/cuda/object.h);
# and by the host's compiler against tests/cuda/emulation.h, for the tests. PTX of the last architecture serves later GPUs.
CUDA_ARCHS ?= sm_80 sm_90a compute_90
NVCC       ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
NVCCFLAGS   = -std=c++17 -O3 -fmad=false -lineinfo --threads 2 $(foreach a,$(CUDA_ARCHS),-gencode arch=$(a:sm_%=compute_%),code=$(a)) \
              -Xptxas -v -Xcompiler -fPIC,-Wall,-Wextra,-ffp-contract=off -Werror all-warnings -I. -MMD -MP
CUDA_FILES  = $(wildcard kernels/cuda/*.cu)
CUDA_OBJECT = $(if $(and $(NVCC),$(CUDA_FILES),$(filter release,$(MODE))),$(BUILD)/penstock-cuda.so)
EMULATED    = $(patsubst %,$(BUILD)/emulated/%.o,$(basename $(filter-out %/runtime.cu,$(CUDA_FILES)) $(filter-out %/on_gpu.cu,$(wildcard tests/cuda/*.cu tests/cuda/*.cpp))))
CXXFLAGS   += $(filter-out -std=% -Wstrict-prototypes,$(CFLAGS)) -std=c++17 -fno-exceptions -fno-rtti -Wno-unknown-pragmas -fPIC -x c++

# penstock-bench is made of these; the other files in bench/ are programs of their own.
BENCH_TOOL = agenda answer ask_server client cmd_calibrate cmd_compare cmd_replay compare compare_html compare_report fit grid \
             lines pass_cost penstock_bench plot priorities progress prompt record replay report report_html scrape shared_flags simulate \
             sse stats trace trace_csv trace_json
BENCH_OBJECTS = $(BENCH_TOOL:%=$(BUILD)/bench/%.o)

# Each test, fuzz target and bench is a program of one file that links the whole library.
UNIT_TESTS = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*.c tests/sim/*.c))
GPU_TESTS  = $(if $(CUDA_OBJECT),$(patsubst tests/unit/%.c,$(BUILD)/tests/gpu/%,$(wildcard tests/unit/test_cuda_*.c)))
THREADED   = $(filter $(addprefix %/test_,engine service health log device_cpu independence kernels_matmul kernels_attention),$(UNIT_TESTS))
FUZZERS    = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES    = $(patsubst %.c,$(BUILD)/%,$(filter-out $(if $(wildcard /usr/include/dnnl.h),,%_dnnl.c) $(BENCH_TOOL:%=bench/%.c),$(wildcard bench/*.c)))
TEST_SOURCES = $(wildcard kernels/cuda/*.[ch]* tests/cuda/*.[ch]* tests/unit/*.[ch] tests/sim/*.[ch] tests/fuzz/*.[ch] bench/*.[ch])

MAKE_ALL = +@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

all: $(BUILD)/penstock $(BUILD)/penstock-bench $(CUDA_OBJECT) ## build build/penstock and build/penstock-bench (CUDA_ARCHS="sm_80 ...")

serve: packages ## install what is missing, build, start the daemon on 127.0.0.1:8080 (ARGS="--port 9000 ...")
	$(MAKE_ALL) $(BUILD)/penstock
	@exec $(BUILD)/penstock serve --model models/embedded $(ARGS)

check: packages ## install what is missing, build, run every test
	$(MAKE_ALL) all programs
	@$(PYTHON) tests/run.py --build $(BUILD) $(UNIT_TESTS) $(FUZZERS) --rules --python

unit: $(UNIT_TESTS) ## run the C tests only
	@$(PYTHON) tests/run.py --build $(BUILD) $(UNIT_TESTS)

asan: ## run the C tests under the address and undefined-behaviour sanitizers
	$(MAKE_ALL) MODE=asan BUILD=$(BUILD)-asan all programs
	@$(PYTHON) tests/run.py --build $(BUILD)-asan $(patsubst $(BUILD)/%,$(BUILD)-asan/%,$(UNIT_TESTS) $(FUZZERS))

tsan: ## run those C tests that have threads under the thread sanitizer
	$(MAKE_ALL) MODE=tsan BUILD=$(BUILD)-tsan all threaded
	@$(PYTHON) tests/run.py --build $(BUILD)-tsan $(patsubst $(BUILD)/%,$(BUILD)-tsan/%,$(THREADED))

fuzz: ## run each fuzz target for FUZZ_SECONDS=60 (needs clang)
	$(MAKE_ALL) MODE=fuzz BUILD=$(BUILD)-fuzz CC=clang fuzzers
	@scripts/fuzz.sh $(BUILD)-fuzz/tests/fuzz $(FUZZ_SECONDS)

nightly: packages ## ten million simulated events from new seeds, ROUNDS=20 of the threaded tests under tsan, FUZZ_SECONDS=600 of each fuzz target (SEED=...)
	@scripts/nightly.sh $(BUILD) "$(SEED)" $(if $(filter file,$(origin FUZZ_SECONDS)),600,$(FUZZ_SECONDS)) $(or $(ROUNDS),20) $(THREADED:$(BUILD)/%=$(BUILD)-tsan/%)

bench: $(BUILD)/penstock $(BENCHES) ## run the benches (docs/benchmarks.md says what they mean)
	@$(PYTHON) bench/run.py --build $(BUILD) $(ARGS)

bench-sim: $(BUILD)/penstock-bench ## run the scheduling experiments under the virtual clock and draw build/bench-sim.html (ARGS=--docs writes docs/, ARGS="--plot RESULTS" draws recorded ones)
	@$(PYTHON) bench/sim.py --build $(BUILD) $(ARGS)

bench-agreement: $(BUILD)/penstock $(BUILD)/penstock-bench ## hold the simulator's TTFT and TPOT against a daemon's on this machine (ARGS=--record writes docs/)
	@$(PYTHON) bench/agreement.py --build $(BUILD) $(ARGS)

bench-http: $(BUILD)/penstock $(addprefix $(BUILD)/bench/,bare_loop clients http_load) ## measure the front end beside a bare libuv loop (ARGS="--rounds 5 h1 m2")
	@$(PYTHON) bench/front_end.py --build $(BUILD) $(ARGS)

lint: ## formatting, static checks of C and shell (each tool where it is installed)
	@scripts/lint.sh $(SOURCES) $(wildcard $(addsuffix /*.h,$(FOLDERS))) $(TEST_SOURCES)

format: ## format every C file as .clang-format says
	clang-format -i $(SOURCES) $(wildcard $(addsuffix /*.h,$(FOLDERS))) $(TEST_SOURCES)

docs: $(BUILD)/penstock ## write the pages of docs/ anew that come from tables
	for page in configuration.md api.md metrics.md openapi.json; do $(BUILD)/penstock serve --print-docs $${page%.*} > docs/$$page; done

install: $(BUILD)/penstock $(BUILD)/penstock-bench ## install daemon, default model, docs, systemd units, configuration (DESTDIR=, PREFIX=, SYSCONFDIR=)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/penstock $(BUILD)/penstock-bench
	$(if $(wildcard $(CUDA_OBJECT)),install -D -t $(DESTDIR)$(PREFIX)/lib/penstock $(CUDA_OBJECT))
	install -D -m 644 -t $(DESTDIR)$(DATA)/models/embedded $(wildcard models/embedded/*.*)
	install -D -m 644 -t $(DESTDIR)$(DOC) README.md LICENSE $(wildcard docs/*.*)
	install -D -m 644 -t $(DESTDIR)$(DOC)/examples systemd/penstock.conf systemd/keys
	$(BUILD)/penstock serve --dump-config > $(DESTDIR)$(DOC)/examples/every-setting.conf
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(ETC)
	for u in service socket; do sed 's|@BINDIR@|$(PREFIX)/bin|; s|@DOCDIR@|$(DOC)|; s|@CONFDIR@|$(ETC)|' systemd/penstock.$$u > $(DESTDIR)$(UNITDIR)/penstock.$$u; done
	test -e $(DESTDIR)$(ETC)/penstock.conf || install -m 644 systemd/penstock.conf $(DESTDIR)$(ETC)
	test -e $(DESTDIR)$(ETC)/keys || install -m 600 systemd/keys $(DESTDIR)$(ETC)

uninstall: ## remove what install put in place, but for the configuration
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,penstock penstock-bench) $(addprefix $(DESTDIR)$(UNITDIR)/penstock.,service socket)
	rm -rf $(DESTDIR)$(DATA) $(DESTDIR)$(DOC) $(DESTDIR)$(PREFIX)/lib/penstock

packages:
	@scripts/install-packages.sh
programs: $(UNIT_TESTS) $(GPU_TESTS) $(FUZZERS) $(BUILD)/tests/numerics/dump_logits
threaded: $(THREADED)
fuzzers: $(FUZZERS)

clean: ## remove what was built
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile tests/cuda/gpu.mk | expand -t 12

# ---- how things are built (V=1 shows the commands) ----

say = $(if $(V),,@echo "  $(1) $@";)

$(BUILD)/penstock: $(BUILD)/server/main.o $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS)

$(BUILD)/penstock-bench: $(BUILD)/bench/penstock_bench.o $(BUILD)/libbench.a $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS)

$(BUILD)/libpenstock.a: $(LIBRARY)
$(BUILD)/libbench.a: $(filter-out %/penstock_bench.o,$(BENCH_OBJECTS))
$(BUILD)/libemulated.a: $(EMULATED)
$(BUILD)/penstock-emulated-cuda.so: $(EMULATED)
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ -lm
$(BUILD)/%.a:
	@rm -f $@
	$(call say,pack) ar rcs $@ $^

$(BUILD)/%_avx512.o: CFLAGS += $(ISA_avx512) $(if $(filter fuzz,$(MODE)),-fno-sanitize=undefined) # clang needs ten minutes for it
$(BUILD)/%_avx2.o: CFLAGS += $(ISA_avx2)
# Strict: without it llhttp accepts a space before a header's colon, and any two bytes where a chunk's CRLF belongs.
$(BUILD)/server/%.o $(BUILD)/tests/%.o $(BUILD)/bench/%.o $(BUILD)/llhttp/%.o: CFLAGS += -I$(LLHTTP_H) -DLLHTTP_STRICT_MODE=1
$(BUILD)/models/random.o: $(wildcard models/random/*.json)
$(BUILD)/server/page.o: server/page/index.html
$(BUILD)/server/openapi.o: server/openapi/base.json
$(BUILD)/server/docs_api.o: server/docs_api.md
$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,cc  ) $(CC) $(CFLAGS) -c -o $@ $<
$(BUILD)/llhttp/%.o: $(LLHTTP)/%.c Makefile
	@mkdir -p $(@D)
	$(call say,cc  ) $(CC) $(CFLAGS) -w -c -o $@ $<

$(BUILD)/emulated/%.o: %.cu Makefile
	@mkdir -p $(@D)
	$(call say,emul) $(CC) $(CXXFLAGS) -include tests/cuda/emulation.h -c -o $@ $<
$(BUILD)/emulated/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	$(call say,emul) $(CC) $(CXXFLAGS) -c -o $@ $<
$(BUILD)/cuda/%.o: %.cu Makefile scripts/nvcc.sh
	@mkdir -p $(@D)
	$(call say,nvcc) scripts/nvcc.sh $(NVCC) $(NVCCFLAGS) -c -o $@ $<
$(BUILD)/penstock-cuda.so: $(CUDA_FILES:%.cu=$(BUILD)/cuda/%.o)
	$(call say,nvcc) $(NVCC) -shared -o $@ $^

# A fuzz target is a test of its corpus (replay.c calls it for each file), or, with MODE=fuzz, a libFuzzer program.
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(if $(filter fuzz,$(MODE)),,$(BUILD)/tests/fuzz/replay.o) $(BUILD)/libbench.a $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $(filter %.o %.a,$^) $(LDLIBS)
$(filter $(BUILD)/tests/unit/test_cuda_%,$(UNIT_TESTS)): $(BUILD)/libemulated.a
$(BUILD)/tests/unit/test_device_cuda: | $(BUILD)/penstock-emulated-cuda.so
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libbench.a $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) -lcmocka $(LDLIBS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(BUILD)/libpenstock.a
	$(call say,link) $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS) $(if $(filter %_dnnl,$*),-ldnnl)

.PHONY: all serve check unit asan tsan fuzz nightly bench bench-sim bench-agreement lint format docs install uninstall bench-http gpu-bundle gpu-check packages programs threaded fuzzers clean help
.SECONDARY:
include tests/cuda/gpu.mk
-include $(OBJECTS:.o=.d) $(EMULATED:.o=.d) $(CUDA_FILES:%.cu=$(BUILD)/cuda/%.d) $(BENCH_OBJECTS:.o=.d) $(patsubst %,%.d,$(UNIT_TESTS) $(FUZZERS) $(BENCHES)) $(BUILD)/tests/fuzz/replay.d
