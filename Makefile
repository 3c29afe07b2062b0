# Penstock. `make help` lists the targets; docs/architecture.md says which file to read first.
BUILD  ?= build
PREFIX ?= /usr/local
CC     ?= cc
MODE   ?= release
PYTHON ?= python3

FLAGS_release = -O3 -g1
FLAGS_asan    = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_tsan    = -O1 -g -fsanitize=thread
FLAGS_fuzz    = -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

CFLAGS  += -std=c17 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wpointer-arith -Werror \
           -ffp-contract=off -fno-math-errno -pthread $(FLAGS_$(MODE)) -I. -MMD -MP
LDLIBS   = -luv -lcjson -lpcre2-8 -lutf8proc -linih -lm -ldl
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

all: $(BUILD)/penstock

$(BUILD)/penstock: $(BUILD)/server/main.o $(BUILD)/libpenstock.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libpenstock.a: $(LIBRARY)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%_avx512.o: CFLAGS += $(ISA_avx512)
$(BUILD)/%_avx2.o: CFLAGS += $(ISA_avx2)
# Strict: without it llhttp accepts a space before a header's colon, and any two bytes where a chunk's CRLF belongs.
$(BUILD)/server/%.o $(BUILD)/llhttp/%.o: CFLAGS += -I$(LLHTTP_H) -DLLHTTP_STRICT_MODE=1
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<
$(BUILD)/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -w -c -o $@ $<

# One program per test file; each links the whole library and names its tests as sentences (CMocka).
UNIT_TESTS = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*.c tests/sim/*.c))
$(BUILD)/tests/%: tests/%.c $(BUILD)/libpenstock.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libpenstock.a -lcmocka $(LDLIBS)
$(BUILD)/bench/%: bench/%.c $(BUILD)/libpenstock.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libpenstock.a $(LDLIBS)

unit: $(UNIT_TESTS)
	@failed=0; for t in $(UNIT_TESTS); do echo "== $$t"; $$t || failed=1; done; exit $$failed

clean:
	rm -rf $(BUILD)

.PHONY: all unit clean
.SECONDARY:
-include $(OBJECTS:.o=.d)
