// See vit.h.
#include "runtime/vit.h"

#include <algorithm>

#include "runtime/positions.h"

namespace bg {
namespace {

constexpr float kEps = 1e-6f;  // MODEL.md §1.4: every LayerNorm of the ViT

Tensor upload(const Run& run, const std::vector<float>& values, int64_t cols) {
  const Tensor t = run.arena.tensor(int64_t(values.size()) / cols, cols);
  run.ops.write(t, values.data());
  return t;
}

// §1.4: x += proj(attn(LN1(x))); x += fc2(gelu_tanh(fc1(LN2(x)))).
void block(const Run& run, const Config::Vision& c, const VitWeights::Block& w, Tensor x, Tensor cos, Tensor sin, int64_t frame, const std::string& name) {
  Ops& ops = run.ops;
  const int64_t P = x.rows, d = c.hidden;
  {
    Arena::Scope scope(run.arena);
    const Tensor y = run.arena.tensor(P, d), qkv = run.arena.tensor(P, 3 * d), o = run.arena.tensor(P, d);
    ops.layer_norm(y, x, w.norm1.w, w.norm1.b, kEps);
    ops.linear(qkv, y, w.qkv.w, w.qkv.b);
    const Tensor q = qkv.col_range(0, d), k = qkv.col_range(d, d), v = qkv.col_range(2 * d, d);
    ops.rotary(q, c.heads, cos, sin);
    ops.rotary(k, c.heads, cos, sin);
    ops.attention_frames(o, q, k, v, c.heads, frame);
    run.add_product(x, o, w.proj.w, w.proj.b, y, name + ".attn");
  }
  {
    Arena::Scope scope(run.arena);
    const Tensor y = run.arena.tensor(P, d), f = run.arena.tensor(P, c.ffn);
    ops.layer_norm(y, x, w.norm2.w, w.norm2.b, kEps);
    const Product fc1{f, w.fc1.w, w.fc1.b, Then::gelu_tanh};
    ops.linear(y, &fc1, 1);
    run.add_product(x, f, w.fc2.w, w.fc2.b, y, name + ".mlp");
  }
  run.tap(name + ".out", x);
}

// §1.5, §1.6: 2×2 neighbouring patches side by side, fc1 → GELU (erf) → fc2. The merger norms each patch before they are joined, a DeepStack merger after.
void merger(const Run& run, const VitWeights::Merger& w, Tensor x, int64_t merge, bool norm_first, Tensor y) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const Tensor n = run.arena.tensor(x.rows, x.cols);
  const Tensor joined = n.join_rows(merge * merge);
  if (norm_first)
    ops.layer_norm(n, x, w.norm.w, w.norm.b, kEps);
  else
    ops.layer_norm(joined, x.join_rows(merge * merge), w.norm.w, w.norm.b, kEps);
  const Tensor f = run.arena.tensor(joined.rows, w.fc1.w.rows);
  const Product fc1{f, w.fc1.w, w.fc1.b, Then::gelu_erf};
  ops.linear(joined, &fc1, 1);
  ops.linear(y, f, w.fc2.w, w.fc2.b);
}

}  // namespace

void vit(const Run& run, const Config::Vision& c, const VitWeights& w, Tensor patches, Grid grid, const std::vector<Tensor>& features) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const std::vector<PatchPosition> where = patch_positions(grid, c.merge);
  int64_t side = 1;
  while (side * side < c.positions) ++side;

  // §1.1, §1.2: one affine map per patch, plus its learned position.
  const Tensor x = run.arena.tensor(grid.patches(), c.hidden);
  ops.linear(x, patches, w.patch_embed.w, w.patch_embed.b);
  run.tap("vit.patch_embd", x);
  const Interpolation positions = interpolate_positions(grid, where, side);
  ops.add_interpolated(x, w.positions, positions.index.data(), positions.weight.data());
  run.tap("vit.position_embd", x);

  const RotaryTable rotary = vit_rotary(where, c.hidden / c.heads);  // §1.3
  const Tensor cos = upload(run, rotary.cos, rotary.cols), sin = upload(run, rotary.sin, rotary.cols);

  for (int64_t i = 0; i < c.depth; ++i) {
    run.step("image", i, c.depth);
    block(run, c, w.blocks[size_t(i)], x, cos, sin, grid.h * grid.w, "vit.block." + std::to_string(i));
    const auto level = std::find(c.deepstack.begin(), c.deepstack.end(), i);
    if (level == c.deepstack.end()) continue;
    const size_t l = size_t(level - c.deepstack.begin());
    merger(run, w.deepstack[l], x, c.merge, false, features[1 + l]);
    run.tap("vit.deepstack." + std::to_string(l), features[1 + l]);
  }
  merger(run, w.merger, x, c.merge, true, features[0]);
  run.tap("vit.merger", features[0]);
  run.step("image", c.depth, c.depth);
}

}  // namespace bg
