#!/usr/bin/env bash
# On a machine with a GPU: check that its results are correct, measure its speed, and train the
# pre-activation ResNet-110 of Veit et al. 2016, Figure 3 (and the VGG, if there is time), within a
# time budget.
#
#   DATA=folder-with-cifar10 OUT=folder BUDGET_SECONDS=600 examples/gpu.sh
#
# The length is the longest of 64,000 (as published), 48,000, 32,000 and 16,000 iterations that fits
# in the budget, with warm-up and milestones scaled accordingly; the precision is the fastest one
# whose checks pass. Both are recorded in the run's configuration. OUT contains the log, the
# benchmark, and each run's folder as a tar file. DEVICE=cpu SMALL=1 checks in a minute that
# everything runs.
set -euo pipefail
BEGUN=$(date +%s)
DATA=${DATA:-data} OUT=${OUT:-gpu} BUDGET_SECONDS=${BUDGET_SECONDS:-600}
DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python3} BENCH=${BENCH:-yes}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
exec > >(tee -a "$OUT/gpu.log") 2>&1
left() { echo $((BUDGET_SECONDS - $(date +%s) + BEGUN)); }
cli() { "$PYTHON" -m resnet_cli "$@"; }

if [ "$BENCH" = yes ]; then
  cli bench gpu_checks gpu --device "$DEVICE" ${SMALL:+--small} --out "$OUT/bench" || echo "bench failed"
fi

# Prints "iterations milestone milestone warm-up precision", or nothing if no length fits.
plan() { # network reserve
  "$PYTHON" - "$OUT/bench" "$1" "$(left)" "$2" <<'PYTHON' || true
import csv, sys
folder, network, left, reserve = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
rows = [row for table in ("bench_gpu_checks", "bench_gpu")
        for row in csv.DictReader(open(f"{folder}/{table}.csv"))]
agrees = {r["precision"] for r in rows if r["item"] == "step" and r["remark"].find(": agrees") >= 0}
speed = {r["precision"]: float(r["value"]) for r in rows
         if r["item"] == f"train {network}" and r["side"] == "fast" and r["value"]}
usable = {p: s for p, s in speed.items() if p in agrees}
if usable:
    precision = max(usable, key=usable.get)
    for iterations in (64000, 48000, 32000, 16000):
        if iterations * 128 / usable[precision] * 1.12 + reserve <= left:
            print(iterations, iterations // 2, iterations * 3 // 4, iterations * 400 // 64000, precision)
            break
PYTHON
}

train() { # case iterations milestone milestone warm-up precision
  local case=$1 iterations=$2 settings=()
  settings+=(--set "train.iterations=$iterations" --set "train.milestones=[$3, $4]")
  settings+=(--set "train.warmup_iterations=$5" --set "train.precision=$6")
  settings+=(--set "train.evaluate_every=4" --set "cases=[{name: $case, model: $7}]")
  [ -z "${SMALL:-}" ] || settings+=(--set "data.train_images=64" --set "data.test_images=64")
  cli train veit2016/fig3 --profile paper --device "$DEVICE" --data-dir "$DATA" \
    --out "$OUT/results-$case" --budget "$(left)s" "${settings[@]}" || return 0
  tar -cf "$OUT/$case.tar" runs -C "$OUT" "results-$case"
}

if [ -n "${SMALL:-}" ]; then
  train preact110 2 1 2 1 float32 '{depth: 8, stage_change: zero_padding}'
else
  read -r -a chosen <<<"$(plan ResNet-110 40)"
  echo "ResNet-110: ${chosen[*]:-no length fits}, $(left) s left"
  [ ${#chosen[@]} -eq 0 ] || train preact110 "${chosen[@]}" '{stage_change: zero_padding}'
  read -r -a chosen <<<"$(plan VGG-15 20)"
  echo "VGG-15: ${chosen[*]:-no length fits}, $(left) s left"
  [ ${#chosen[@]} -eq 0 ] || train vgg15 "${chosen[@]}" '{family: vgg, depth: 15}'
fi
echo "$(left) s left"
