// CoverageTokenSelector (MODEL.md §3a) by lazy greedy, with or without the matrix E (kernels/ref/coverage.cpp: what E, Z and C are). v (L, D), t (m, D).
//
// Sums of C's terms are sums of integers, so nothing here depends on the order, the tiles or the threads, and a gain may be carried on by what changed:
//   gain_j(now) = gain_j(old) − Σ_{i: best_i rose since} (max(C_ij, best_i(old)) − best_i(old)) − (max(C_ij, best_i(now)) − best_i(now)).
// best_i never falls, so a gain from an earlier step bounds today's from above. When the first of the heap (largest gain, lowest column on a tie) was
// evaluated in this step, it is the column that the plain definition takes, with the same gain.
//
// Without the matrix E is computed in tiles, as often as needed. E of the visual rows is symmetric, bit by bit, so in a pass over all of it a tile and its
// mirror image are one: Z, then the first gains. That second pass also evaluates the gains after each of a few columns that a sample of the rows likes best: where the
// first choice is among them (it is, unless rows are alike at random), the step at which every gain falls is paid already; else it is one such pass more.
// From then on stale columns are evaluated in batches, over the rows whose best rose.
// With the matrix (ct, (L, m+L): column j of E is a run of memory), a stale column is summed whole.
//
// Files: coverage_passes.cpp the passes over E; here the heap and the order of things.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cpu/coverage_passes.h"
#include "kernels/ref/ref.h"

namespace bg::cpu {
namespace {

// Order of the heap: the first is the one with no other before it.
bool after(const Candidate& a, const Candidate& b) { return a.gain < b.gain || (a.gain == b.gain && a.column > b.column); }

// The greedy choice from gains at step `step`; evaluate(list, count, step) brings stale candidates up to date, taken(column, step) raises best.
// batch: how many stale columns are evaluated first, then twice as many each time up to batch_end: with more, the tiles are fuller and more is done in vain.
template <class Evaluate, class Taken>
void greedy(int64_t* index, double* gain, Candidate* heap, int64_t columns, int64_t step, int64_t k, int bits, int64_t batch, int64_t batch_end, const Evaluate& evaluate,
            const Taken& taken) {
  std::make_heap(heap, heap + columns, after);
  Candidate* end = heap + columns;
  for (; step < k; ++step) {
    for (int64_t size = batch; heap->step != step; size = std::min(2 * size, batch_end)) {
      Candidate* stale = end;
      while (stale != heap && end - stale < size && heap->step != step) std::pop_heap(heap, stale--, after);
      evaluate(stale, end - stale, step);
      while (stale != end) std::push_heap(heap, ++stale, after);
    }
    std::pop_heap(heap, end--, after);
    index[step] = end->column;
    gain[step] = std::ldexp(double(end->gain), -bits);
    if (step + 1 < k) taken(end->column, step);
  }
}

Candidate* first_of(Candidate* list, int64_t count) {
  return std::min_element(list, list + count, [](const Candidate& a, const Candidate& b) { return after(b, a); });
}

// E stored: first gains and all later ones are sums over columns of ct.
void select_stored(Coverage& p, int64_t* index, double* gain, int64_t k) {
  Candidate* heap = p.heap;
  for (int64_t j = 0; j < p.L; ++j) heap[j] = {0, j, 0};
  const auto evaluate = [&](Candidate* list, int64_t count, int64_t step) { p.sum_stored(list, count, step); };
  evaluate(heap, p.L, 0);
  greedy(index, gain, heap, p.L, 0, k, p.units.bits, 32, 32, evaluate, [&](int64_t column, int64_t) {
    double* to = p.best_at(0);
    p.raise(&column, 1, to, &to);
  });
}

// E computed when needed. best_at(s): best after s choices.
void select_tiles(Coverage& p, int64_t* index, double* gain, int64_t k) {
  Candidate* heap = p.heap;
  const double* first_best[kCoverageBest] = {p.best_at(0)};
  int64_t guess[kCoverageBest - 1];
  int guesses = 0;
  if (k > 1) {
    guesses = p.guess_first(guess);
    double* to[kCoverageBest - 1];
    for (int g = 0; g < guesses; ++g) first_best[1 + g] = to[g] = p.guess_best(g);
    p.raise(guess, guesses, p.best_at(0), to);
  }
  p.gains(first_best, 1 + guesses);
  for (int64_t j = 0; j < p.L; ++j) heap[j] = {int64_t(p.sums[j]), j, 0};
  const Candidate first = *first_of(heap, p.L);
  index[0] = first.column;
  gain[0] = std::ldexp(double(first.gain), -p.units.bits);
  if (k == 1) return;
  const int64_t q = 1 + (std::find(guess, guess + guesses, first.column) - guess);
  if (q <= guesses) {
    std::copy(first_best[q], first_best[q] + p.rows(), p.best_at(1));
    std::copy(p.sums + q * p.L, p.sums + (q + 1) * p.L, p.sums);
  } else {
    double* to = p.best_at(1);
    p.raise(&first.column, 1, p.best_at(0), &to);
    first_best[0] = to;
    p.gains(first_best, 1);
  }
  p.add_up_best(1);
  int64_t left = 0;
  for (int64_t j = 0; j < p.L; ++j)
    if (j != first.column) heap[left++] = {int64_t(p.sums[j]), j, 1};
  greedy(index, gain, heap, left, 1, k, p.units.bits, kCoverageTile, kCoverageBatch, [&](Candidate* list, int64_t count, int64_t step) { p.carry_on(list, count, step); },
         [&](int64_t column, int64_t step) {
           double* to = p.best_at(step + 1);
           p.raise(&column, 1, p.best_at(step), &to);
           p.add_up_best(step + 1);
         });
}

}  // namespace

size_t coverage_scratch(const Context& c, int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) {
  const size_t whole = Coverage(c, L, D, m, k, true).bytes();
  return whole <= allowed ? whole : Coverage(c, L, D, m, k, false).bytes();
}

double coverage_select(const Context& c, int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report) {
  const int64_t L = v.rows, D = v.cols, m = t.rows;
  Coverage p(c, L, D, m, k, bytes >= Coverage(c, L, D, m, k, true).bytes());
  p.begin(scratch, v, t);
  report->most = p.most();
  if (p.ct != nullptr) {
    select_stored(p, index, gain, k);
  } else {
    select_tiles(p, index, gain, k);
  }
  report->evaluations = p.evaluations;
  return ref::in_index_order(index, gain, k);
}

}  // namespace bg::cpu
