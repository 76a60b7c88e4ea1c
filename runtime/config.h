// The model's sizes and switches, as the checkpoint's config.json states them (spec: config keys in parentheses). Nothing is hard-coded:
// the converter writes these into the weights file's metadata, the runtime reads them back and checks them against each other.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bg {

class Gguf;

struct Config {
  std::string model_type;  // "breastgpt" or "qwen3_vl" (model_type)

  struct Text {
    int64_t layers = 0;      // text_config.num_hidden_layers
    int64_t hidden = 0;      // .hidden_size
    int64_t ffn = 0;         // .intermediate_size
    int64_t heads = 0;       // .num_attention_heads
    int64_t kv_heads = 0;    // .num_key_value_heads
    int64_t head_dim = 0;    // .head_dim
    int64_t vocab = 0;       // rows of the embedding matrix
    int64_t context = 0;     // .max_position_embeddings
    float rms_eps = 1e-6f;   // .rms_norm_eps
    double rope_theta = 0;   // .rope_theta
    int64_t mrope_section[3] = {0, 0, 0};  // .rope_scaling.mrope_section: t, y, x; sums to head_dim/2
    bool tied = false;       // tie_word_embeddings: output matrix is the embedding matrix
  } text;

  struct Vision {
    int64_t depth = 0, hidden = 0, ffn = 0, heads = 0;         // vision_config.depth, hidden_size, intermediate_size, num_heads
    int64_t patch = 16, temporal_patch = 2, merge = 2;         // .patch_size, .temporal_patch_size, .spatial_merge_size
    int64_t positions = 0;                                     // .num_position_embeddings, a square
    std::vector<int64_t> deepstack;                            // .deepstack_visual_indexes, ascending
  } vision;

  struct Preparation {                                         // what media are brought to, as the training data were
    int64_t image_tokens = 1024;                               // image_max_tokens: a picture has at most this many tokens before selection
    int64_t volume_side = 384, volume_slices = 48;             // volume_side, volume_slices: voxels of the longest side, slices
  } preparation;

  struct Slide {                                               // only in model_type breastgpt
    int64_t feature_dim = 768, layers = 3, heads = 8;          // feature_dim, long_net_layers, long_net_heads
  } slide;

  struct Selector {
    std::string kind = "CoverageTokenSelector";                // selector: or "ConceptSelector"
    bool use_text = false;                                     // selector_use_txt
    bool enabled = true;                                       // do_select; always false for qwen3_vl
    int64_t image_tokens = 64, volume_tokens = 128, slide_tokens = 128;  // image_token_num, video_token_num, histo_token_num
  } selector;

  struct Tokens {                                              // ids in the vocabulary
    int32_t image_pad = 0, video_pad = 0, slide_pad = -1;      // image_token_id, video_token_id, histo_token_id (−1: none)
    int32_t vision_start = 0, vision_end = 0;                  // vision_start_token_id, vision_end_token_id
    int32_t im_start = 0, im_end = 0;                          // by content, from the tokenizer
    std::vector<int32_t> stop;                                 // generation_config.eos_token_id, else im_end and endoftext
  } tokens;

  bool plain_qwen() const { return model_type == "qwen3_vl"; }
};

Config read_config(const Gguf& file);      // throws Error{bad_file, unsupported}, naming the key
// Relations between the sizes (positive, heads divide, sections sum, ids inside the vocabulary …). `where` starts the message.
void check_config(const Config& c, const std::string& where);

}  // namespace bg
