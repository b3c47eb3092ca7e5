#!/bin/bash
# Good guess: `__builtin_cpu_supports("avx2")`, which g++ and clang++ take everywhere, works with the
# C++ compiler of pip's ziglang, too, which is a clang.
# What happens: it compiles, and the linker then has no `__cpu_model`, which the builtin reads: a
# program has an undefined symbol, a shared library (-shared -fPIC) a relocation that it "cannot
# be used against". Nothing that zig links defines it.
# Versions: ziglang 0.15.2 (clang 20.1.2), x86-64.
# Why it matters: extension libraries that choose their kernels at run time, as integer products for
# quantised models do, build with every compiler but this one, which is what a machine without
# a compiler gets from pip. Weft's compiled golden machine asks `cpuid` instead.
set -eu
[ "$(uname -m)" = x86_64 ] || { echo "for x86-64 only" >&2; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.15.2
export ZIG_GLOBAL_CACHE_DIR=$folder/cache ZIG_LOCAL_CACHE_DIR=$folder/cache
cat >"$folder/choice.cpp" <<'CPP'
extern "C" int has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
int main() { return has_avx2() > 1; }
CPP
cd "$folder"
zig() { "$folder/venv/bin/python" -m ziglang "$@"; }
"$folder/venv/bin/pip" list 2>/dev/null | grep ziglang
refused() { # what the linker says of a build with these options
    if zig c++ -O2 "$@" choice.cpp -o result 2>log; then
        echo "not reproduced: it links" >&2
        exit 1
    fi
    grep -q "__cpu_model" log || { echo "not reproduced: $(tail -n 1 log)" >&2; exit 1; }
    grep -m 1 -o "undefined symbol.*\|relocation R_X86_64.*" log
}
echo "program: $(refused)"
echo "library: $(refused -shared -fPIC)"
