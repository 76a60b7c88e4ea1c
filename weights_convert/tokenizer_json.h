// A published checkpoint's tokenizer.json → the tables that the weights file stores and runtime/tokenizer.h reads.
// In: the `tokenizers` package's file. Out: vocabulary, types, merges. Refused: every setting that our tokenizer does not implement.
// Not here: encoding, and tokenizer_config.json (its settings do not change the ids).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bg {

struct TokenizerTables {
  std::vector<std::string> tokens;  // by id: base vocabulary with bytes in printable form, added tokens in plain text
  std::vector<int32_t> types;       // by id, GGUF's: 1 normal, 3 control (special), 4 user-defined (added, not special)
  std::vector<std::string> merges;  // by rank: "left right"
};

// Throws Error{not_found, too_large}; Error{bad_file} when the file is damaged (ids missing, ids or tokens twice: the message lists them);
// Error{unsupported} when it is the file of another kind of tokenizer.
TokenizerTables read_tokenizer_json(const std::string& path);

}  // namespace bg
