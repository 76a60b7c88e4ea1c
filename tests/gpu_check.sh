#!/usr/bin/env bash
# make gpu-check: everything that can be checked on a GPU, in less than ten minutes: the whole test suite with the GPU's table beside the others, the demo model on both,
# then compute-sanitizer (memory, races, uninitialised memory, barriers) over the kernels' tests. A short table comes last; exit code 1 when anything failed or could
# not be run. gpu_check.sh BUILD, with MAKE set to the make that builds there. BG_GPU_CHECK_SECONDS: for all of it (570).
set -uo pipefail
build=$1
seconds=${BG_GPU_CHECK_SECONDS:-570}
make=${MAKE:-make}
rows=()
failed=0
left() { echo $((seconds - SECONDS)); }
# row NAME STATUS TEXT
row() {
  rows+=("$(printf '%-34s %-8s %s' "$1" "$2" "$3")")
  [ "$2" = passed ] || failed=1
}
table() {
  echo
  printf '%s\n' "${rows[@]}"
  [ $failed -eq 0 ] && echo "gpu-check: all passed, $SECONDS s" || echo "gpu-check: FAILED, $SECONDS s"
  exit $failed
}

# A driver shows itself as a device file, or through nvidia-smi; asked before anything is built.
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ] && ! compgen -G '/dev/nvidia[0-9]*' >/dev/null && [ ! -e /dev/nvhost-gpu ] && [ ! -e /dev/dxg ]; then
  echo "gpu-check: this machine has no NVIDIA GPU, or no driver for it. Nothing was built or checked; make test checks the kernels under emulation."
  exit 1
fi
echo "gpu-check: ${gpu:-a GPU that nvidia-smi does not name}"

# 1. Build, with CUDA or not at all.
if ! { $make deps && $make CUDA=1 gpu-check-programs; }; then
  row "build" FAILED "see above"
  table
fi
row "build" passed "$SECONDS s"
export BG_BUILD=$build BG_CORE_SO=$build/libbreastgpt.so
used=$(BG_TEST_BACKENDS=cuda "$build/tests/kernels" -tc='mirror: a GPU is there*' 2>&1) || {
  echo "$used"
  row "the GPU" FAILED "the driver does not give it to programs"
  table
}

# 2. The whole suite: kernel tests compare the GPU's table with the definition, twice, for equal bits.
log=$build/gpu-check.log
timeout -k 10 -s INT $(($(left) > 330 ? 330 : $(left))) "$build/tests/run" >"$log" 2>&1
code=$?
counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
if [ $code -eq 0 ] && [ -n "$counts" ]; then
  row "test suite" passed "$counts"
else
  grep -E -B 3 -A 8 'ERROR|FATAL' "$log" | head -n 100
  row "test suite" FAILED "$([ $code -eq 124 ] && echo "its time was over; ")${counts:-no result}, see $log"
fi

# 3. A whole answer: the same words from the CPU and from the GPU, in float32.
answers() {
  local model=weights_convert/demo/breastgpt-demo.gguf phantoms=tests/golden/phantoms
  local ask=("$build/breastgpt" ask -m $model --backend "$1" --precision float32)
  "${ask[@]}" --image $phantoms/ultrasound/us-00040.png "Write a diagnostic report." &&
    "${ask[@]}" --slide $phantoms/pathology/pa-00002.safetensors "Describe the slide in one sentence." &&
    "${ask[@]}" --volume $phantoms/mri/mr-00021.nii.gz "Write a diagnostic report."
}
cpu=$(answers cpu 2>&1)
gpu_answers=$(answers cuda 2>&1)
if [ "$cpu" = "$gpu_answers" ] && [ -n "$cpu" ]; then
  row "demo model, picture slide volume" passed "the CPU's words"
else
  printf 'cpu:  %s\ncuda: %s\n' "$cpu" "$gpu_answers"
  row "demo model, picture slide volume" FAILED "the GPU answers otherwise"
fi

# 4. compute-sanitizer, over the kernels' tests on the GPU alone, in an order that takes from every file first what a cut-off run reaches.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
tools=(memcheck racecheck initcheck synccheck)
for i in "${!tools[@]}"; do
  tool=${tools[i]}
  if [ -z "$sanitizer" ]; then
    row "compute-sanitizer $tool" "NOT RUN" "it is not installed (cuda-sanitizer of the CUDA toolkit)"
    continue
  fi
  share=$(($(left) / (${#tools[@]} - i)))
  if [ $share -lt 10 ]; then
    row "compute-sanitizer $tool" "NOT RUN" "the time is over"
    continue
  fi
  log=$build/gpu-check-$tool.log
  BG_TEST_BACKENDS=cuda timeout -k 10 -s INT $share "$sanitizer" --tool $tool --report-api-errors no --error-exitcode 9 --print-limit 20 \
    "$build/tests/kernels" -sf='*test_kernels_*,*test_quantised*' -tce='kernels: names*,mirror*' -ob=rand -rs=1 >"$log" 2>&1
  code=$?
  findings=$(grep -cE '^========= (Invalid|Misaligned|Uninitialized|Error|Barrier|Divergent|Program hit|Race|Warning: Race|Potential)' "$log")
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
  if [ "$findings" -gt 0 ] || { [ $code -ne 0 ] && [ $code -ne 124 ]; }; then
    grep -E '^=========' "$log" | head -n 40
    row "compute-sanitizer $tool" FAILED "$findings findings, ${counts:-no result}, see $log"
  elif [ $code -eq 124 ]; then
    row "compute-sanitizer $tool" passed "no finding in $share s, when its time was over"
  else
    row "compute-sanitizer $tool" passed "no finding, $counts"
  fi
done
rows=("${gpu:-GPU}" "${rows[@]}")
table
