#!/usr/bin/env bash
# The demo model's scores that tests/test_demo_model.cpp gates, computed again: tests/phantoms/reports.sh build/release [instruction set …]
# With names (avx512bf16, amx) only the reports of those, which need a machine that has them; without, those of amx and of everything else.
set -eu
build=$1
isas=${*:2}
model=weights_convert/demo/breastgpt-demo.gguf
to=tests/golden/phantoms
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# weights file, committed report, more options
score() {
  "$build/breastgpt" bench -m "$1" "$to/bench.jsonl" -o "$work/$2" --max-tokens 160 "${@:3}"
  cp "$work/$2/report.json" "$to/$2.json"
}

[ -n "$isas" ] || score "$model" report --precision float32
for type in bf16 q8_0 q4_k_m; do
  "$build/breastgpt-convert" "$model" -o "$work/demo.gguf" --type "$type"
  for isa in ${isas:-amx}; do score "$work/demo.gguf" "report-$type-$isa" --backend "cpu/$isa"; done
  [ -n "$isas" ] || [ "$type" = bf16 ] || score "$work/demo.gguf" "report-$type" --backend cpu/avx2
done
