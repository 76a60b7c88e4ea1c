// Products of many rows with weights that stay with the host. Each tile of rows would read them over the bus again; instead pieces of whole panels come through
// Context::pieces, one being copied while another is multiplied, so the bus carries every byte once. An output depends on its panel alone: the same bits.
//   bytes   the weights once over the bus, and once more from memory: a piece of 16 MB 0.3 … 0.7 ms at 60 … 25 GB/s, in which a GPU that does 250 … 100 TFLOP/s has
//           multiplied it (BF16) with 4096 rows. With fewer the bus is the floor.
// Not measured yet.
// Not here: few rows (a step), which read each byte once where it lies. Included by linear*.cu.
#pragma once
#include "kernels/cuda/linear.h"

namespace bg::BG_CUDA {

// multiply(targets) for what of `targets` lies on the device, then for each piece of the rest.
template <class Multiply>
void by_pieces(const Context& c, Type type, int64_t rows, const Targets& targets, const Multiply& multiply) {
  const int matrices = targets.gated ? 2 : 1;
  const size_t panel = panel_bytes(type, targets.cols), room = c.piece_bytes / size_t(matrices) / 256 * 256;
  const int64_t most = int64_t(room / panel);
  if (c.pieces == nullptr || rows <= kLargeRows || most == 0) return multiply(targets);
  Targets there = targets;
  there.n = 0;
  int piece = 0;
  for (int i = 0; i < targets.n; ++i) {
    const Target& whole = targets.at[i];
    if (!c.device.is_host(whole.w) || (targets.gated && !c.device.is_host(whole.up))) {
      there.at[there.n++] = whole;
      continue;
    }
    for (int64_t first = 0; first < panels_of(whole.rows); first += most, piece = (piece + 1) % kHostPieces) {
      const int64_t left = panels_of(whole.rows) - first, panels = left < most ? left : most, n = first * kPanelRows;
      char* const to = c.pieces + size_t(piece) * c.piece_bytes;
      const auto bring = [&](char* at, const unsigned char* w) {
        c.device.copy_piece(piece, at, w + size_t(first) * panel, size_t(panels) * panel);
        return reinterpret_cast<const unsigned char*>(at);
      };
      Target part = whole;
      part.w = bring(to, whole.w);
      if (targets.gated) part.up = bring(to + room, whole.up);
      part.rows = whole.rows - n < panels * kPanelRows ? whole.rows - n : panels * kPanelRows;
      part.out.y += n;
      if (part.out.bias != nullptr) part.out.bias += n;
      multiply({{part}, 1, targets.cols, targets.gated});
      c.device.piece_read(piece);
    }
  }
  if (there.n > 0) multiply(there);
}

}  // namespace bg::BG_CUDA
