#!/bin/sh
# Runs nvcc as told, says nothing where all is well, and fails where a kernel got a stack frame or spilled registers, or
# where setmaxnreg was ignored (C7508): each costs many times the kernel's speed without a word at run time.
set -u

report=$(mktemp)
trap 'rm -f "$report"' EXIT
"$@" 2>"$report"
status=$?
bad=$(awk '/Compiling entry function|Function properties/ { kernel = $0 }
           /bytes stack frame/ && ($1 > 0 || $5 > 0 || $9 > 0) { print kernel ": " $0 }
           /C7508/' "$report")
grep -v -e '^ptxas info' -e 'bytes stack frame' -e '^$' "$report" >&2
[ -z "$bad" ] || { printf 'A kernel spills, has a stack frame, or ignores setmaxnreg:\n%s\n' "$bad" >&2; exit 1; }
exit $status
