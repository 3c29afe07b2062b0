#!/usr/bin/env python3
"""Rules of the repository that no compiler knows. Each function below is one test; run by tests/run.py.

    tests/rules.py BUILD"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"

# Who may include whom (docs/architecture.md). The two legs meet in the engine; nothing points back.
ARROWS = {
    "base": {"base"},
    "models": {"models", "base"},
    "kernels": {"kernels", "base"},
    "kvcache": {"kvcache", "base"},
    "scheduler": {"scheduler", "kvcache", "base"},
    "engine": {"engine", "scheduler", "kvcache", "models", "kernels", "base"},
    "server": {"server", "engine", "models", "base"},
}
# Headers that an interface passes through: the server reads engine.h, whose structs are made of these.
FOLDERS = sorted(ARROWS)
ANYTHING = {"bench", "tests"}

# The thinking leg is pure: no clocks, threads, sockets or files of its own.
PURE = {"scheduler", "kvcache"}
IMPURE_HEADERS = {"time.h", "pthread.h", "threads.h", "uv.h", "unistd.h", "sys/socket.h", "sys/time.h", "sys/mman.h", "signal.h",
                  "base/clock.h", "base/file.h", "base/log.h"}

LINES_MAX = 1000
LINES_ALLOWED = {}  # path: lines it may have, with a reason beside it


def c_files(folders):
    return sorted(f for folder in folders for pattern in ("*.c", "*.h", "*.cu", "*.cuh") for f in (ROOT / folder).rglob(pattern))


def includes(file):
    for number, line in enumerate(file.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if found:
            yield number, found[1] == '"', found[2]


def arrows_between_folders_never_point_back():
    for file in c_files(FOLDERS):
        folder = file.relative_to(ROOT).parts[0]
        for number, quoted, name in includes(file):
            if quoted and name.split("/")[0] not in ARROWS[folder]:
                yield f"{file.relative_to(ROOT)}:{number} includes {name}; {folder} may include {', '.join(sorted(ARROWS[folder]))}"


def includes_name_folder_and_file():
    for file in c_files(FOLDERS + sorted(ANYTHING)):
        for number, quoted, name in includes(file):
            if quoted and not (ROOT / name).is_file():
                yield f"{file.relative_to(ROOT)}:{number} includes \"{name}\", which is no file of this repository"


def the_thinking_leg_includes_no_clock_thread_or_socket():
    for file in c_files(PURE):
        for number, _, name in includes(file):
            if name in IMPURE_HEADERS:
                yield f"{file.relative_to(ROOT)}:{number} includes {name}"


def cuda_headers_stay_in_the_kernels():
    for file in c_files(FOLDERS + sorted(ANYTHING)):
        for number, _, name in includes(file):
            if re.match(r"cuda|cublas|nccl|mma\.h", name) and not str(file.relative_to(ROOT)).startswith("kernels/cuda/"):
                yield f"{file.relative_to(ROOT)}:{number} includes {name}"


def files_stay_short():
    for file in c_files(FOLDERS + sorted(ANYTHING)) + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "bench").rglob("*.py")):
        path, lines = str(file.relative_to(ROOT)), len(file.read_text().splitlines())
        if lines > LINES_ALLOWED.get(path, LINES_MAX):
            yield f"{path} has {lines} lines; {LINES_ALLOWED.get(path, LINES_MAX)} are allowed: split it"
    for path in LINES_ALLOWED:
        if not (ROOT / path).exists():
            yield f"LINES_ALLOWED names {path}, which is gone"


def the_makefile_stays_short():
    if len((ROOT / "Makefile").read_text().splitlines()) > 200:
        yield "the Makefile has more than 200 lines"


def nothing_is_left_to_be_done():
    for file in c_files(FOLDERS + sorted(ANYTHING)):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                yield f"{file.relative_to(ROOT)}:{number}: {line.strip()}"


def every_test_that_is_written_is_run():
    for file in c_files({"tests/unit", "tests/sim"}):
        text = file.read_text()
        for name in re.findall(r"^static void (\w+)\(void \*\*\w*\)", text, re.M):
            if not re.search(r"cmocka_unit_test\w*\(\s*%s\b|[,({]\s*%s\s*[,)}]" % (name, name), text):
                yield f"{file.relative_to(ROOT)}: {name} is not in the list of its file"


def the_pages_from_tables_are_fresh():
    for name in ("configuration.md", "api.md", "metrics.md", "openapi.json"):
        command = [ROOT / BUILD / "penstock", "serve", "--print-docs", name.split(".")[0]]
        if (ROOT / "docs" / name).read_text() != subprocess.run(command, capture_output=True, text=True).stdout:
            yield f"docs/{name} is stale: run `make docs`"


def main():
    rules = [f for name, f in globals().items() if callable(f) and getattr(f, "__module__", "") == "__main__"
             and name not in ("main", "c_files", "includes")]
    failed = False
    for rule in rules:
        print(f"[ RUN      ] {rule.__name__}")
        broken = list(rule())
        failed = failed or bool(broken)
        print("\n".join(broken + [f"[  FAILED  ] {rule.__name__}" if broken else f"[       OK ] {rule.__name__}"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
