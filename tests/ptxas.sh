#!/usr/bin/env bash
# Reads what the assembler said of every kernel of a build (ptxas.sh BUILD) and fails where one spills registers or keeps arrays in local memory: both mean that
# it runs from memory what was meant for registers. Known, and only told: many rows of Q6_K on sm_120, what follows cuBLASLt on sm_100, at most 40 bytes. Prints the
# most registers of each file.
set -euo pipefail
shopt -s nullglob
reports=("$1"/kernels/cuda/*.ptxas)
if [ ${#reports[@]} -eq 0 ]; then
  echo "CUDA: NOT COMPILED. The kernels were tested under emulation; nvcc, which this machine lacks, would compile them for GPUs too."
  exit 0
fi
awk '
  /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; gpu = part[4] }
  /bytes stack frame/ {
    match($0, /[0-9]+ bytes stack frame, [0-9]+ bytes spill stores, [0-9]+ bytes spill loads/)
    text = substr($0, RSTART, RLENGTH)
    split(text, n, /[^0-9]+/)
    if (n[1] + n[2] + n[3] > 0) {
      print "CUDA: " kernel " for " gpu ": " text
      known = (kernel ~ /multiply_large/ && kernel ~ /TypeE14/ && gpu == "sm_120" || kernel ~ /finish_rows/ && gpu == "sm_100") && n[1] <= 40 && n[2] <= 40
      if (!known) bad = 1
    }
  }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/)
    r = substr($0, RSTART + 5, RLENGTH - 5) + 0
    file = FILENAME; sub(/.*\//, "", file); sub(/\.cuda\.ptxas/, "", file)
    if (!(file in kernels)) order[++files] = file
    ++kernels[file]
    if (r > most[file]) most[file] = r
    gpus[gpu] = 1
    ++all
  }
  END {
    if (all == 0) { print "CUDA: the reports of the assembler name no kernel"; exit 1 }
    for (g in gpus) ++count
    line = ""
    for (i = 1; i <= files; ++i) line = line (i > 1 ? ", " : "") order[i] " " most[order[i]]
    printf "CUDA: %d kernels for %d kinds of GPU; most registers: %s\n", all / count, count, line
    exit bad
  }' "${reports[@]}" | c++filt
exit "${PIPESTATUS[0]}"
