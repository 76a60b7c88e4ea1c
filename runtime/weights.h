// Named tensors of the weights file → typed structs, every shape and type checked against the name table (runtime/names.h).
// Matrices stay in the mapped file; nothing is copied. Lifetime: the Gguf they were read from.
#pragma once
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "loaders/gguf.h"
#include "runtime/config.h"

namespace bg {

struct Linear {
  Weight w;                // (outputs, inputs)
  const float* b = nullptr;  // (outputs) or none
};

struct Norm {
  const float* w = nullptr;  // (D)
  const float* b = nullptr;  // (D); none for RMSNorm
};

struct VitWeights {
  struct Block {
    Norm norm1, norm2;             // (d)
    Linear qkv, proj, fc1, fc2;    // (3d, d), (d, d), (f, d), (d, f)
  };
  struct Merger {
    Norm norm;        // (d), or (4d) in DeepStack mergers
    Linear fc1, fc2;  // (4d, 4d), (h, 4d)
  };
  Linear patch_embed;            // (d, 1536)
  Weight positions;              // (side², d)
  std::vector<Block> blocks;
  Merger merger;
  std::vector<Merger> deepstack;  // one per level
};

struct DecoderWeights {
  struct Layer {
    Norm attn_norm, ffn_norm;       // (D), RMS
    Norm q_norm, k_norm;            // (head dim), RMS per head
    Weight q, k, v, o;              // (H·d, D), (K·d, D), (K·d, D), (D, H·d)
    Weight gate, up, down;          // (F, D), (F, D), (D, F)
  };
  Weight embed;                     // (V, D)
  std::vector<Layer> layers;
  Norm norm;                        // (D), RMS
  Weight output;                    // (V, D); the embedding itself when tied
};

struct SlideWeights {
  struct Layer {
    Norm norm1, norm2;            // (d)
    Linear q, k, v, out;          // (d, d)
    Linear up, down;              // (4d, d), (d, 4d)
  };
  std::vector<Layer> layers;
  Linear projector;               // (h, d): last state → top features
  std::vector<Linear> deepstack;  // (h, d), one per layer: state after it → DeepStack features
  const Linear& projector_of(size_t level) const { return level == 0 ? projector : deepstack[level - 1]; }  // 0: top
};

struct ConceptWeights {           // of one learned selector
  Weight q, k;                    // (h, h)
  Weight queries;                 // (32, h)
  Weight gate;                    // (1, h)
  float gate_bias = 0;
};

struct Weights {
  VitWeights vit;
  DecoderWeights decoder;
  SlideWeights slide;                         // empty in a plain qwen3_vl
  ConceptWeights concept_top, concept_deep;   // only with the ConceptSelector; no data otherwise
};

// Every matrix that is multiplied: those that lie, or are packed, in panels. Not those that are only read row by row: learned positions and concepts, and an
// embedding that is not the output matrix too (a tied one is in the list as the output).
std::vector<Weight*> multiplied(Weights& w);

// Everything there is, in the order in which an answer needs it most often: what every token reads first, what only pictures and slides need after it.
struct AllWeights {
  struct Vector {
    const float** data;
    int64_t size;
  };
  std::vector<Vector> vectors;    // norms and biases
  std::vector<Weight*> matrices;  // a tied embedding is in the list twice, with one address
};
AllWeights all_of(Weights& w, const Config& config);

// Throws Error{bad_file} that lists every missing, unknown or misshapen tensor, and every one of a type it must not have: matrices may be quantised,
// norms and biases are F32.
Weights read_weights(const Gguf& file, const Config& config);

// The types of the matrices in the decoder's layers, that of most values first: "BF16", "Q4_K + Q6_K".
std::string weight_types(const DecoderWeights& decoder);

}  // namespace bg
