// Every key of the configuration in the weights file's metadata, stated once: the converter writes through this list, read_config reads through it.
// C is Config or const Config; V has text, integer, real, boolean, token, integers, sections, tokens, and later: an integer that files made before it came
// do not have. Each takes a key and a field.
// Not here: checks (runtime/config.cpp).
#pragma once
#include "runtime/config.h"

namespace bg {

inline constexpr char architecture_name[] = "breastgpt";  // general.architecture

template <class C, class V>
void visit_config(C& c, V&& v) {
  v.text("breastgpt.model_type", c.model_type);

  v.integer("breastgpt.block_count", c.text.layers);
  v.integer("breastgpt.embedding_length", c.text.hidden);
  v.integer("breastgpt.feed_forward_length", c.text.ffn);
  v.integer("breastgpt.attention.head_count", c.text.heads);
  v.integer("breastgpt.attention.head_count_kv", c.text.kv_heads);
  v.integer("breastgpt.attention.key_length", c.text.head_dim);
  v.integer("breastgpt.vocab_size", c.text.vocab);
  v.integer("breastgpt.context_length", c.text.context);
  v.real("breastgpt.attention.layer_norm_rms_epsilon", c.text.rms_eps);
  v.real("breastgpt.rope.freq_base", c.text.rope_theta);
  v.sections("breastgpt.rope.dimension_sections", c.text.mrope_section);
  v.boolean("breastgpt.tied_embeddings", c.text.tied);

  v.integer("breastgpt.vision.block_count", c.vision.depth);
  v.integer("breastgpt.vision.embedding_length", c.vision.hidden);
  v.integer("breastgpt.vision.feed_forward_length", c.vision.ffn);
  v.integer("breastgpt.vision.attention.head_count", c.vision.heads);
  v.integer("breastgpt.vision.patch_size", c.vision.patch);
  v.integer("breastgpt.vision.temporal_patch_size", c.vision.temporal_patch);
  v.integer("breastgpt.vision.spatial_merge_size", c.vision.merge);
  v.integer("breastgpt.vision.position_count", c.vision.positions);
  v.integers("breastgpt.vision.deepstack_layers", c.vision.deepstack);
  v.later("breastgpt.preparation.image_tokens", c.preparation.image_tokens);
  v.later("breastgpt.preparation.volume_side", c.preparation.volume_side);
  v.later("breastgpt.preparation.volume_slices", c.preparation.volume_slices);

  if (!c.plain_qwen()) {
    v.integer("breastgpt.slide.feature_length", c.slide.feature_dim);
    v.integer("breastgpt.slide.block_count", c.slide.layers);
    v.integer("breastgpt.slide.attention.head_count", c.slide.heads);
    v.text("breastgpt.selector.kind", c.selector.kind);
    v.boolean("breastgpt.selector.use_text", c.selector.use_text);
    v.integer("breastgpt.selector.image_tokens", c.selector.image_tokens);
    v.integer("breastgpt.selector.volume_tokens", c.selector.volume_tokens);
    v.integer("breastgpt.selector.slide_tokens", c.selector.slide_tokens);
    v.token("breastgpt.token.slide_pad", c.tokens.slide_pad);
  }
  v.boolean("breastgpt.selector.enabled", c.selector.enabled);

  v.token("breastgpt.token.image_pad", c.tokens.image_pad);
  v.token("breastgpt.token.video_pad", c.tokens.video_pad);
  v.token("breastgpt.token.vision_start", c.tokens.vision_start);
  v.token("breastgpt.token.vision_end", c.tokens.vision_end);
  v.token("breastgpt.token.im_start", c.tokens.im_start);
  v.token("breastgpt.token.im_end", c.tokens.im_end);
  v.tokens("breastgpt.token.stop", c.tokens.stop);
}

}  // namespace bg
