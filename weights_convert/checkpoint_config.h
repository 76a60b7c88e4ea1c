// The small files of a checkpoint folder → Config and what else goes into the weights file: config.json, generation_config.json, preprocessor
// configurations, chat template, tokenizer. Not here: tensors (tensor_plan.h), the reading of tokenizer.json (tokenizer_json.h).
#pragma once
#include <string>
#include <vector>

#include "runtime/config.h"
#include "weights_convert/tokenizer_json.h"

namespace bg {

struct CheckpointConfig {
  Config config;              // checked (check_config)
  TokenizerTables tokenizer;  // exactly config.text.vocab tokens: "[PAD<id>]" where the tokenizer has none
  std::string chat_template;  // "" when the checkpoint has none
  std::vector<std::string> files;  // names of the files that were read, for breastgpt.source
};

// vocab: rows of the embedding matrix. Throws Error naming file and key.
CheckpointConfig read_checkpoint_config(const std::string& folder, int64_t vocab);

}  // namespace bg
