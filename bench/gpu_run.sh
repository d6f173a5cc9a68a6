#!/usr/bin/env bash
# Builds, tests and measures the engine on a bare Linux machine with an NVIDIA GPU. Needs there: the CUDA 13 toolkit and
# driver, g++, Python 3.11+ with numpy, ml_dtypes, safetensors, tqdm, pillow, cupy, pytest, pybind11, setuptools; torch,
# numba-cuda, pytest-xdist, hypothesis and nvidia-cudnn-frontend widen it, airbench with torchvision too. No network is used: what is missing can lie
# as wheels in .whl/ beside setup.py (nvidia-cudnn-frontend without its dependencies: cuDNN itself comes with torch).
#
#   OUT=results bash bench/gpu_run.sh
#
# One call takes at most TOTAL seconds (under 9 minutes) and those of the report, every stage has a limit of its own and goes on past another's
# failure. What a call does not finish the next one does: stages that are done are not repeated, benchmarks go on behind
# their last row. Call it until it says that nothing is left. Where OUT does not outlive a call, put what came out of it
# into a folder and name that:
#
#   RESUME=earlier OUT=results bash bench/gpu_run.sh
#
# STAGES="build conv2d-float16" runs these alone. SMOKE=1 tries the script itself on tiny sizes.
# Leaves in $OUT (default bench/results/gpu) eight files: table.md, stages.jsonl, gpu.jsonl, report.md, report-cuda.png,
# emulator_vs_gpu.jsonl, autotune.json, gpu_run.log.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUT=${OUT:-bench/results/gpu}
PYTHON=${PYTHON:-python3}
TOTAL=${TOTAL:-530} # seconds for everything but the report
SMOKE=${SMOKE:-}
STAGES=${STAGES:-}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/gpu_run.log
SITE=${SITE:-${TMPDIR:-/tmp}/cnnengine-gpu-run} # wheels and compiled kernels, for the next call on the same machine
mkdir -p "$SITE"
for folder in shared/data ../shared/data; do # CIFAR-10, if it is not where CNNENGINE_DATA says
    if [[ -z ${CNNENGINE_DATA:-} && -d $folder ]]; then export CNNENGINE_DATA=$folder; fi
done
export PYTHONUNBUFFERED=1 CNNENGINE_CACHE=${CNNENGINE_CACHE:-$SITE/cache}
export PYTHONPATH=$SITE/packages${PYTHONPATH:+:$PYTHONPATH}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # nvcc and compute-sanitizer, where the toolkit is not on it
SMALL=${SMOKE:+--smoke}

if [[ -n ${RESUME:-} && ! -e $OUT/stages.jsonl ]]; then
    for name in stages.jsonl gpu.jsonl emulator_vs_gpu.jsonl autotune.json gpu_run.log; do
        if [[ -e $RESUME/$name ]]; then cp "$RESUME/$name" "$OUT/$name"; fi
    done
fi
touch "$LOG" "$OUT/stages.jsonl"
mkdir -p "$CNNENGINE_CACHE"
if [[ -e $OUT/autotune.json ]]; then cp "$OUT/autotune.json" "$CNNENGINE_CACHE/autotune.json"; fi

# note NAME STATUS SECONDS LAST_LINE
note() {
    printf '{"stage": "%s", "status": "%s", "seconds": %d, "last_line": "%s"}\n' "$@" >>"$OUT/stages.jsonl"
    printf '%-22s %-28s %4d s  %s\n' "$@"
}

# chosen NAME: among STAGES, or all are
chosen() {
    [[ -z $STAGES || " $STAGES " == *" $1 "* ]]
}

# finished NAME: whether an earlier call ended it; the last line of it counts
finished() {
    local last
    last=$(grep -F "\"stage\": \"$1\"," "$OUT/stages.jsonl" | tail -n 1)
    [[ -n $last && $last != *'"status": "not run'* && $last != *'"status": "goes on'* ]]
}

# once NAME LIMIT COMMAND: a stage that is not repeated by the next call
once() {
    if finished "$1"; then return; fi
    stage "$@"
}

# stage NAME LIMIT COMMAND: runs the command for at most LIMIT seconds of what TOTAL leaves and notes how it ended.
# With GOES_ON=1 a stage that was stopped is continued by the next call, as one is that TOTAL cut off.
stage() {
    local name=$1 limit=$2 status=ok start=$SECONDS left=$((TOTAL - SECONDS)) rc=0 last seconds
    if ! chosen "$name"; then return; fi
    shift 2
    if ((left < 2)); then
        note "$name" "not run: the total of $TOTAL s was used up" 0 ''
        return 1
    fi
    seconds=$((limit < left ? limit : left))
    printf '\n===== %s: %s\n' "$name" "$*" >>"$LOG"
    # as Ctrl-C: Python stops with what it has so far, such as pytest's list of failures
    timeout --signal=INT --kill-after=10 "$seconds" bash -o pipefail -c "$*" >>"$LOG" 2>&1 || rc=$?
    case $rc in
        0) ;;
        124 | 137)
            status="stopped at its time limit"
            if [[ -n ${GOES_ON:-} ]] || ((seconds < limit)); then status="goes on in the next call"; fi
            ;;
        *) status="failed ($rc)" ;;
    esac
    last=$(tail -n 1 "$LOG" | tr -d '\\"\t\r' | tr '|' '/' | cut -c -140)
    note "$name" "$status" $((SECONDS - start)) "$last"
    [[ $status == ok ]]
}

# skip NAME REASON: not here
skip() {
    if chosen "$1" && ! finished "$1"; then note "$1" "skipped: $2" 0 ''; fi
}

# what is here: the GPU, the compilers, and each Python package with its version or the word that it is missing
environment() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit \
        --format=csv,noheader || echo "nvidia-smi: no answer"
    for tool in nvcc g++ compute-sanitizer; do
        printf '%s: ' "$tool"
        { command -v "$tool" >/dev/null && "$tool" --version | grep -iE 'release|version|g\+\+' | head -n 1; } || echo missing
    done
    "$PYTHON" - <<'PY'
import sys
from importlib import metadata

print("python", sys.version.split()[0])
for name in ("setuptools", "pybind11", "numpy", "ml_dtypes", "safetensors", "tqdm", "pillow", "cupy-cuda13x", "numba",
             "numba-cuda", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvjitlink", "nvidia-cudnn-cu13",
             "nvidia-cudnn-frontend",
             "torch", "pytest", "pytest-benchmark", "pytest-xdist", "hypothesis", "greenlet", "matplotlib"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "missing")
PY
}

# wheels brought along, in front of what is installed; they are not unpacked twice on one machine
carried() {
    if [[ -e $SITE/packages/.complete ]]; then
        echo "unpacked by an earlier call"
        return
    fi
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$SITE/packages" .whl/*.whl && touch "$SITE/packages/.complete"
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

# again COMMAND: a kernel that breaks the GPU's context ends its process with status 3; a new one goes on behind it
again() {
    local rc=3 attempt
    for attempt in 1 2 3 4 5 6; do
        "$@"
        rc=$?
        ((rc == 3)) || break
        echo "attempt $attempt ended with the context lost"
    done
    return "$rc"
}

# every kernel for this GPU and for the emulator, on all cores
compile() {
    local what=(--probes)
    if [[ -n $SMOKE ]]; then what=(--family dropout); fi
    "$PYTHON" bench/compile_kernels.py "${what[@]}"
}

compare() {
    again "$PYTHON" bench/emulator_vs_gpu.py --resume ${SMOKE:+--few --probes 3} --output "$OUT/emulator_vs_gpu.jsonl"
}

# the tests on one backend without those that know no GPU, in several processes where pytest-xdist is here; a warning of
# this machine's is no failure
tests() {
    local workers=() ignored=() name elsewhere=(
        emulator test_bench.py test_cuda_race.py test_cuda_sanitizers.py test_docs.py test_gpu_run.py test_launch.py
        test_layout.py test_native_arguments.py test_native_build.py test_native_isas.py test_native_random.py
        test_native_threads.py test_numba_compile.py test_numba_simulator.py test_nvrtc.py test_style.py
    )
    "$PYTHON" -c 'import xdist' 2>/dev/null && workers=(-n "$(($(nproc) < 12 ? $(nproc) : 12))")
    for name in "${elsewhere[@]}"; do ignored+=(--ignore "tests/$name"); done
    CNNENGINE_TEST_BACKENDS=$1 CNNENGINE_REQUIRE_BACKENDS=$1 "$PYTHON" -m pytest tests -p no:cacheprovider -W default \
        "${workers[@]}" "${ignored[@]}" --maxfail 50 "${@:2}"
}

# sanitizer NAME LIMIT: a stage, where there is one
sanitizer() {
    if command -v compute-sanitizer >/dev/null; then
        once "$1" "$2" sanitize "$1"
    else
        skip "$1" "compute-sanitizer is not on the PATH"
    fi
}

sanitize() {
    compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 20 "$PYTHON" bench/emulator_vs_gpu.py --only-first \
        --few ${SMOKE:+--at-most 3}
}

tune() {
    local rc=0
    "$PYTHON" bench/tune.py $SMALL "$@" || rc=$?
    if [[ -e $CNNENGINE_CACHE/autotune.json ]]; then cp "$CNNENGINE_CACHE/autotune.json" "$OUT/autotune.json"; fi
    return "$rc"
}

# rows are written as they come, so that what the time limit cuts off leaves the earlier ones good
measure() {
    again "$PYTHON" bench/run.py "$@" --device cuda --resume $SMALL --seconds 0.2 --output "$OUT/gpu.jsonl"
}

# CIFAR-10 to 94 %, ours and the airbench package's, where that is; the data set lies in CNNENGINE_DATA
cifar10() {
    local runs=5
    if [[ -n $SMOKE ]]; then runs=1; fi
    again "$PYTHON" bench/cifar10_speed.py $SMALL --runs "$runs" --output "$OUT/gpu.jsonl"
}

report() {
    "$PYTHON" bench/report.py "$OUT/gpu.jsonl" --output "$OUT/report.md" | grep -c '^|'
}

export -f again compile environment carried build compare tests sanitize tune measure cifar10 report
export PYTHON OUT SITE SMOKE SMALL

AFTER_BUILD=(
    compile backends emulator-vs-gpu tests-cuda memcheck tune-float16 conv2d-float16 fused-float16 tune-float32 conv2d-float32
    tune-bfloat16 conv2d-bfloat16 conv2d-tf32 fused-others memory-bound launch-cost lenet5 networks cifar10
    ladder tests-numba racecheck
    synccheck initcheck
)

stage environment 40 environment
if compgen -G '.whl/*.whl' >/dev/null; then stage carried-wheels 60 carried; fi
if ! chosen build || stage build 150 build; then
    stage compile 150 compile
    once backends 60 '"$PYTHON" -m cnnengine backends'
    GOES_ON=1 once emulator-vs-gpu 150 compare
    once tests-cuda 150 tests cuda
    sanitizer memcheck 60
    once tune-float16 90 tune --dtype float16
    GOES_ON=1 once conv2d-float16 400 measure conv2d --dtype float16
    GOES_ON=1 once fused-float16 150 measure conv2d_bias_relu --dtype float16
    once tune-float32 90 tune --dtype float32
    GOES_ON=1 once conv2d-float32 400 measure conv2d --dtype float32
    once tune-bfloat16 90 tune --dtype bfloat16
    GOES_ON=1 once conv2d-bfloat16 400 measure conv2d --dtype bfloat16
    GOES_ON=1 once memory-bound 200 measure pool2d activation norm binary --dtype bfloat16 --dtype float32
    once launch-cost 40 measure overhead
    once lenet5 60 measure lenet5
    GOES_ON=1 once networks 400 measure networks
    once cifar10 240 cifar10
    GOES_ON=1 once ladder 120 measure ladder
    once tests-numba 80 tests numba -k numba
    sanitizer racecheck 90
    sanitizer synccheck 60
    sanitizer initcheck 60
    GOES_ON=1 once conv2d-tf32 200 measure conv2d --dtype tf32
    GOES_ON=1 once fused-others 200 measure conv2d_bias_relu --dtype bfloat16 --dtype float32
else
    for name in "${AFTER_BUILD[@]}"; do
        if chosen "$name" && ! finished "$name"; then note "$name" "not run: there is no build" 0 ''; fi
    done
fi
TOTAL=$((SECONDS + 35)) # a report of what there is, in any case
if [[ -e $OUT/gpu.jsonl ]]; then stage report 35 report; fi

"$PYTHON" - "$OUT" <<'PY'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
rows = {row["stage"]: row for row in map(json.loads, (out / "stages.jsonl").read_text().splitlines())}
lines = ["| stage | result | seconds | last line |", "|---|---|--:|---|"]
lines += [f"| {r['stage']} | {r['status']} | {r['seconds']} | {r['last_line']} |" for r in rows.values()]
(out / "table.md").write_text("\n".join(lines) + "\n")
print("\n" + "\n".join(lines))
left = [name for name, row in rows.items() if row["status"].startswith(("not run", "goes on"))]
print(f"\nleft for the next call: {', '.join(left) or 'nothing'}")
sys.exit(any(row["status"] != "ok" and not row["status"].startswith("skipped") for row in rows.values()))
PY
