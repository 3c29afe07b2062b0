#!/bin/sh
# Checks the given C files: formatting, then what static checkers say. A tool that is not installed is named and passed over.
set -u
failed=0
unseen=_dnnl; [ -f /usr/include/dnnl.h ] && unseen=_avx2
have() { command -v "$1" >/dev/null || { echo "lint: $1 is not installed; passed over"; return 1; }; }
c_files() { printf '%s\n' "$@" | grep '\.c$' | grep -v -e _avx512 -e _avx2 -e $unseen; }

have clang-format && { clang-format --dry-run -Werror "$@" || failed=1; }
if have cppcheck; then # suppressed: what it says because it cannot see that fatal() does not return
    c_files "$@" | cppcheck --quiet --std=c11 -j "$(nproc)" -I. --error-exitcode=1 --inline-suppr --library=posix --file-list=- \
        -D__linux__ -D__x86_64__ --enable=performance,portability --suppress=missingIncludeSystem --suppress=unknownMacro \
        --suppress=uninitvar --suppress=legacyUninitvar --suppress=missingReturn --suppress=deallocret \
        --suppress=invalidFunctionArg --suppress=arrayIndexOutOfBounds || failed=1
fi
if have clang-tidy; then
    # shellcheck disable=SC2016
    c_files "$@" | xargs -P "$(nproc)" -n 4 sh -c \
        'clang-tidy --quiet "$@" -- -std=c17 -D_GNU_SOURCE -I. -I/usr/share/include/llhttp 2>/dev/null' sh || failed=1
fi
have shellcheck && { shellcheck scripts/*.sh .ci/run || failed=1; }
exit $failed
