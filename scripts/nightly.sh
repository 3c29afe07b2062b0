#!/bin/sh
# What takes too long for every change. BUILD SEED FUZZ_SECONDS ROUNDS THREADED_TEST...
# 1. Ten million simulated events with everything going wrong that tests/sim knows, from seeds that are new each day; the log
#    names each seed, and PENSTOCK_SIM_SEED repeats it. 2. The tests with threads under the thread sanitizer, ROUNDS times: what
# they meet depends on who is scheduled when. 3. Each fuzz target for FUZZ_SECONDS, from what the nights before have found.
set -eu
build=$1 seed=$2 seconds=$3 rounds=$4
shift 4
log=$build/nightly-simulation.log
[ -n "$seed" ] || seed=$(($(date +%s) / 86400 * 1000))

build_all() { make --no-print-directory -j"$(nproc)" "$@"; }
build_all BUILD="$build" "$build/tests/sim/test_simulation"
build_all MODE=tsan BUILD="$build-tsan" threaded
build_all MODE=fuzz BUILD="$build-fuzz" CC=clang fuzzers

echo "== simulation, seeds from $seed ($log)"
PENSTOCK_SIM_SEED=$seed PENSTOCK_SIM_SEEDS=25 PENSTOCK_SIM_MILLIONS=10 "$build/tests/sim/test_simulation" >"$log" 2>&1 ||
    { tail -20 "$log"; exit 1; }
grep "^sim: " "$log"

round=1
while [ "$round" -le "$rounds" ]; do
    echo "== threads, round $round of $rounds"
    python3 tests/run.py --build "$build-tsan" "$@" >"$build/nightly-threads.log" 2>&1 || { cat "$build/nightly-threads.log"; exit 1; }
    tail -1 "$build/nightly-threads.log"
    round=$((round + 1))
done

scripts/fuzz.sh "$build-fuzz/tests/fuzz" "$seconds"
echo "nightly: all held (simulation from seed $seed, $rounds rounds of threads, $seconds s for each fuzz target)"
