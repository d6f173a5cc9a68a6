#!/usr/bin/env bash
# Builds, tests and measures the engine on a bare Linux machine with an NVIDIA GPU. Needs there: the CUDA 13 toolkit and
# driver, g++, Python 3.11+ with numpy, ml_dtypes, safetensors, tqdm, pillow, cupy, pytest, pybind11, setuptools; torch,
# numba-cuda, pytest-xdist, hypothesis and nvidia-cudnn-frontend widen it. No network is used: what is missing can lie
# as wheels in .whl/ beside setup.py.
#
#   OUT=results bash bench/gpu_run.sh
#
# Every stage has a time limit and goes on past another's failure; table.md says how each ended. Under 9.5 minutes.
# Leaves in $OUT (default bench/results/gpu): table.md, stages.jsonl, gpu.jsonl, report.md, report-cuda.png,
# emulator_vs_gpu.jsonl, environment.txt, gpu_run.log.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUT=${OUT:-bench/results/gpu}
PYTHON=${PYTHON:-python3}
TOTAL=${TOTAL:-545} # seconds for everything
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/gpu_run.log
SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
export PYTHONUNBUFFERED=1 CNNENGINE_CACHE=${CNNENGINE_CACHE:-$SITE/cache}
export PYTHONPATH=$SITE/packages${PYTHONPATH:+:$PYTHONPATH}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # nvcc and compute-sanitizer, where the toolkit is not on it
: >"$LOG"
: >"$OUT/stages.jsonl"

# stage NAME LIMIT COMMAND: runs the command for at most LIMIT seconds of what TOTAL leaves and notes how it ended
stage() {
    local name=$1 limit=$2 status=ok start=$SECONDS left=$((TOTAL - SECONDS)) rc=0 last
    shift 2
    if ((left < 5)); then
        status="not run: the total of $TOTAL s was used up"
    else
        printf '\n===== %s: %s\n' "$name" "$*" >>"$LOG"
        # as Ctrl-C: Python stops with what it has so far, such as pytest's list of failures
        timeout --signal=INT --kill-after=10 "$((limit < left ? limit : left))" \
            bash -o pipefail -c "$*" >>"$LOG" 2>&1 || rc=$?
        case $rc in
            0) ;;
            124 | 137) status="stopped at its time limit" ;;
            *) status="failed ($rc)" ;;
        esac
    fi
    last=$(tail -n 1 "$LOG" | tr -d '\\"\t\r' | tr '|' '/' | cut -c -140)
    [[ $status == not* ]] && last=
    printf '{"stage": "%s", "status": "%s", "seconds": %d, "last_line": "%s"}\n' \
        "$name" "$status" $((SECONDS - start)) "$last" >>"$OUT/stages.jsonl"
    printf '%-22s %-28s %4d s  %s\n' "$name" "$status" $((SECONDS - start)) "$last"
    [[ $status == ok ]]
}

skip() {
    printf '{"stage": "%s", "status": "skipped: %s", "seconds": 0, "last_line": ""}\n' "$1" "$2" >>"$OUT/stages.jsonl"
    printf '%-22s skipped: %s\n' "$1" "$2"
}

# what is here: the GPU, the compilers, and each Python package with its version or the word that it is missing
environment() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "nvidia-smi: no answer"
    for tool in nvcc g++ compute-sanitizer; do
        printf '%s: ' "$tool"
        { command -v "$tool" >/dev/null && "$tool" --version | grep -iE 'release|version|g\+\+' | head -n 1; } || echo missing
    done
    "$PYTHON" - <<'PY'
import sys
from importlib import metadata

print("python", sys.version.split()[0])
for name in ("setuptools", "pybind11", "numpy", "ml_dtypes", "safetensors", "tqdm", "pillow", "cupy-cuda13x", "numba",
             "numba-cuda", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cudnn-frontend",
             "torch", "pytest", "pytest-benchmark", "pytest-xdist", "hypothesis", "greenlet", "matplotlib"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "MISSING: put its wheel into .whl/")
PY
}

carried() {
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$SITE/packages" .whl/*.whl
}

# setuptools older than 77 reads neither the license key of pyproject.toml nor, then, the rest: say so instead of a trace
build() {
    "$PYTHON" - <<'PY' || return 1
import sys
from importlib import metadata

missing = [name for name in ("setuptools", "pybind11") if not any(True for _ in metadata.distributions(name=name))]
if missing:
    sys.exit(f"cannot build: {' and '.join(missing)} missing; put the wheels into .whl/")
if int(metadata.version("setuptools").split(".")[0]) < 77:
    sys.exit(f"cannot build: setuptools 77 or newer is needed, {metadata.version('setuptools')} is here")
PY
    "$PYTHON" setup.py --quiet build_ext --inplace
}

# the tests on one backend without those that know no GPU, in several processes where pytest-xdist is here; a warning of
# this machine's is no failure
tests() {
    local workers=() ignored=() name elsewhere=(
        emulator test_bench.py test_cuda_race.py test_cuda_sanitizers.py test_docs.py test_launch.py test_layout.py
        test_native_arguments.py test_native_build.py test_native_isas.py test_native_random.py test_native_threads.py
        test_numba_compile.py test_numba_simulator.py test_nvrtc.py test_style.py
    )
    "$PYTHON" -c 'import xdist' 2>/dev/null && workers=(-n "$(($(nproc) < 12 ? $(nproc) : 12))")
    for name in "${elsewhere[@]}"; do ignored+=(--ignore "tests/$name"); done
    CNNENGINE_TEST_BACKENDS=$1 CNNENGINE_REQUIRE_BACKENDS=$1 "$PYTHON" -m pytest tests -p no:cacheprovider -W default \
        "${workers[@]}" "${ignored[@]}" --maxfail 50 "${@:2}"
}

# sanitizer NAME LIMIT: a stage, where there is one
sanitizer() {
    if command -v compute-sanitizer >/dev/null; then
        stage "$1" "$2" sanitize "$1"
    else
        skip "$1" "compute-sanitizer is not on the PATH"
    fi
}

sanitize() {
    compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 20 "$PYTHON" bench/emulator_vs_gpu.py --only-first --few
}

# rows are written as they come: what the time limit cuts off leaves the earlier ones good
benchmarks() {
    "$PYTHON" bench/run.py lenet5 activation pool2d conv2d --device cuda --seconds 0.2 --output "$OUT/gpu.jsonl"
}

report() {
    "$PYTHON" bench/report.py "$OUT/gpu.jsonl" --output "$OUT/report.md" | grep -c '^|'
}

export -f environment carried build tests sanitize benchmarks report
export PYTHON OUT SITE

stage environment 40 'environment 2>&1 | tee "$OUT/environment.txt"'
if compgen -G '.whl/*.whl' >/dev/null; then stage carried-wheels 60 carried; fi
if stage build 150 build; then
    stage backends 60 '"$PYTHON" -m cnnengine backends'
    stage emulator-vs-gpu 90 '"$PYTHON" bench/emulator_vs_gpu.py --output "$OUT/emulator_vs_gpu.jsonl"'
    sanitizer memcheck 50
    stage tests-cuda 120 tests cuda
    stage tests-numba 80 tests numba -k numba
    stage benchmarks 170 benchmarks
    stage report 20 report
    sanitizer racecheck 60
else
    for name in backends emulator-vs-gpu memcheck tests-cuda tests-numba benchmarks report racecheck; do
        skip "$name" "the build failed"
    done
fi

"$PYTHON" - "$OUT" <<'PY'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
rows = [json.loads(line) for line in (out / "stages.jsonl").read_text().splitlines()]
lines = ["| stage | result | seconds | last line |", "|---|---|--:|---|"]
lines += [f"| {r['stage']} | {r['status']} | {r['seconds']} | {r['last_line']} |" for r in rows]
(out / "table.md").write_text("\n".join(lines) + "\n")
print("\n" + "\n".join(lines))
sys.exit(any(r["status"] != "ok" and not r["status"].startswith("skipped") for r in rows))
PY
