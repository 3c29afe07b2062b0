#!/bin/sh
# Runs each libFuzzer program in FOLDER for SECONDS, from the corpus in tests/fuzz/corpus. New inputs and crashes stay in
# FOLDER: copy those worth keeping into the corpus.
set -eu
folder=$1 seconds=$2
for program in "$folder"/fuzz_*; do
    [ -x "$program" ] || continue
    name=${program##*/fuzz_}
    mkdir -p "$folder/found/$name"
    echo "== $name, $seconds s"
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$folder/crash-$name-" "$folder/found/$name" "tests/fuzz/corpus/$name" 2>"$folder/$name.log" ||
        { tail -40 "$folder/$name.log"; exit 1; }
    grep -E "number_of_executed_units|peak_rss" "$folder/$name.log"
done
