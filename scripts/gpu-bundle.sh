#!/bin/sh
# gpu-bundle.sh BUILD CUDA_OBJECT LIBRARY GPU_TEST...: puts into BUILD/gpu-bundle what a machine with a GPU needs to run gpu-check:
# programs, and those shared libraries that are neither the C library's nor the driver's. Fails over 64 MiB.
set -eu
build=$1 object=$2
[ -n "$object" ] || { echo "gpu-bundle: there is no nvcc here, which builds the CUDA object; install CUDA or name it: make gpu-bundle NVCC=PATH" >&2; exit 1; }
shift 2
out=$build/gpu-bundle
rm -rf "$out"
mkdir -p "$out/tests" "$out/bench" "$out/lib" "$out/models"
cp "$build/penstock" "$build/penstock-bench" "$object" "$out"
cp "$build/bench/kernels_cuda" "$out/bench"
cp "$@" "$build/tests/unit/test_device_cuda" "$out/tests"
cp -r models/embedded "$out/models" && rm -r "$out/models/embedded/recipe"
cp bench/gpu_check.py "$out/gpu-check"
chmod +x "$out/gpu-check"
ldd "$out"/penstock* "$out"/*/* 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -Ev '/(libkernels|libc|libm|libdl|libpthread|librt|ld-linux-x86-64|libcuda)\.so' | xargs cp -L -t "$out/lib"
strip --strip-debug "$out/penstock" "$out/penstock-bench" "$out/bench"/* "$out/tests"/*
bytes=$(du -sb "$out" | cut -f1)
[ "$bytes" -le 67108864 ] || { echo "gpu-bundle: $out has $bytes bytes; 64 MiB are the most" >&2; exit 1; }
echo "$out: $((bytes / 1048576 + 1)) MiB; copy it to a machine with a GPU and run ./gpu-check there"
