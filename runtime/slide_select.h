// CoverageTokenSelector for slides, MODEL.md §3d: the choice of select_coverage on the projected rows P·x + c (N, D), without making them.
//
// A row v = P·x + c = M·x̂, M = [P c] (D, w+1), x̂ = (x, 1). With the Cholesky factor R of MᵀM (so RᵀR = MᵀM) the rows v' = R·x̂ have the same inner products
// and norms as the v, in min(w+1, D) numbers instead of D. A text row t enters by t', the solution of Rᵀt' = Mᵀt (so t'·v' = t·v), and one number
// more, √(‖t‖² − ‖t'‖²), beside a zero in each v': so its norm is that of t.
//
// Against the same selection on the projected rows, in float32: R is computed in double and rounded once, so v' differs from exact arithmetic by at most
// (w + 3)·u·‖|R|·|x̂|‖ ≤ η·‖v‖, and v by (w + 2)·u·‖|M|·|x̂|‖ ≤ η·‖v‖, with η = (w + 3)·u·‖M‖_F·‖x̂‖/‖v‖ (the Frobenius norms of R and M are one).
// So a similarity of rows i, j differs by at most 2·(η_i + η_j) + (D + w + 14)·u. The choices are the same where the gains' gaps exceed what
// that makes of a gain (tests/test_coverage_large.cpp has the sum), else they part inside it.
// Not here: the projection of the rows that were kept (longnet.h, project_rows).
#pragma once
#include "runtime/selector.h"
#include "runtime/weights.h"

namespace bg {

// R, and what finding t' needs. Double, 5 MB for the published size; made once for each projector of a model (Model::slide_factor).
struct SlideFactor {
  int64_t n = 0, rank = 0;     // w + 1; rows of R that are not 0
  std::vector<double> r;       // (min(n, D), n): RᵀR = MᵀM
  std::vector<int64_t> pivot;  // (rank) the column whose diagonal was largest when the row was made
};
SlideFactor factor_of(const Linear& projector);  // weights in host memory

// states (N, w), projector (D, w) in host memory, factor: its own, text (m, D) or rows == 0. N ≤ k: all rows. While planning (a counting arena) neither
// weights nor factor are read.
Kept select_slide_coverage(const Run& run, Tensor states, const Linear& projector, const SlideFactor& factor, Tensor text, int64_t k,
                           size_t memory_allowed = kCoverageMemory);

}  // namespace bg
