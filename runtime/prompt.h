// The chat template, MODEL.md §5: turns and media → the sequence of tokens. Control tokens are placed here by id and nowhere else.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/config.h"
#include "runtime/tokenizer.h"

namespace bg {

enum class MediumKind { image, volume, slide };
const char* medium_name(MediumKind kind);  // "image", "volume", "slide"

// One place of the sequence: a text token, or the placeholder for one kept visual row.
struct Cell {
  int32_t id = 0;
  int32_t medium = -1;  // index of the session's medium, −1 for text
};

struct PromptMedium {
  int32_t medium = 0;   // index of the session's medium
  int64_t tokens = 0;   // placeholders: min(L, budget)
  MediumKind kind = MediumKind::image;
};

class Prompt {
 public:
  Prompt(const Config& config, const Tokenizer& tokenizer) : config_(config), tokenizer_(tokenizer) {}

  // "<|im_start|>system\n{text}<|im_end|>\n"
  void system(std::vector<Cell>& cells, const std::string& text) const;
  // "<|im_start|>user\n{text with media}<|im_end|>\n<|im_start|>assistant\n". Markers take the media in order: <image> the next image, or the next
  // slide where the text has no <slide> (the published data mark slides so); <slide> the next slide; <video> or <volume> the next volume. Media
  // without a marker come first: volumes, then images and slides in their order. Throws Error{invalid_argument} for a marker without a medium, and
  // for two volumes with no text between them, which the model cannot tell apart.
  void user(std::vector<Cell>& cells, const std::string& text, const std::vector<PromptMedium>& media) const;
  // The finished answer and "<|im_end|>\n".
  void answer(std::vector<Cell>& cells, const std::vector<int32_t>& ids) const;

 private:
  void plain(std::vector<Cell>& cells, const std::string& text) const;
  void place(std::vector<Cell>& cells, const PromptMedium& medium) const;

  const Config& config_;
  const Tokenizer& tokenizer_;
};

}  // namespace bg
