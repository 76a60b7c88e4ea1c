// Which type each tensor of the weights file gets. In: a tensor's name and shape, the type asked for. Out: its type, and the mix in words.
// Not here: how values are quantised (quantise.h).
#pragma once
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "runtime/names.h"
#include "weights_convert/tensor_plan.h"

namespace bg {

// asked F32, BF16, F16: every matrix. Quantised types:
//            decoder's layers                                                  embedding, output   ViT, slide branch, selectors   positions   vectors
//   Q8_0     Q8_0                                                              Q8_0                Q8_0                           F32         F32
//   Q6_K     Q6_K                                                              Q6_K                Q8_0                           F32         F32
//   Q4_K     Q4_K; attn_v and ffn_down Q6_K in the first and last eighth       Q6_K                Q8_0                           F32         F32
//            of the layers and in every third between (the field's Q4_K_M)
// Rows that are no whole blocks take the next of Q8_0, BF16 whose blocks fit; BF16 holds the published numbers exactly.
Type type_in_mix(const TensorSpec& spec, int64_t layers, Type asked);

// "decoder layers: Q4_K 252, Q6_K 36" for each part, then which tensors kept a wider type because of their rows. Empty for F32, BF16, F16.
std::vector<std::string> describe_mix(const std::vector<PlannedTensor>& tensors, int64_t layers, Type asked);

}  // namespace bg
