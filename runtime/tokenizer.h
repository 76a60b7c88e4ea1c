// Byte-level BPE (MODEL.md §5) from the weights file's vocabulary. In: UTF-8 text. Out: token ids, and back.
// Special tokens are never made from text: user text containing "<|im_end|>" stays text. The prompt places them by id (runtime/prompt.h).
// Not here: the chat template.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bg {

enum class TokenType : uint8_t { normal = 1, control = 3, user_defined = 4 };  // GGUF tokenizer.ggml.token_type

class Tokenizer {
 public:
  // tokens[id]: the vocabulary in printable form (bytes mapped to code points), added tokens in plain text.
  // merges: "left right" in rank order. Throws Error{bad_file} when a merge or a byte has no token, or a token or a merge is repeated.
  Tokenizer(const std::vector<std::string_view>& tokens, const std::vector<TokenType>& types, const std::vector<std::string_view>& merges);

  // Plain text → ids: NFC, then added non-special tokens (user_defined) are split off as the reference does, then the pattern, then merges.
  // Control tokens in the text stay text. Invalid UTF-8: each maximal invalid part becomes U+FFFD (as Python's errors="replace").
  // O(n log n). Throws Error{too_large} above 64 MiB.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same with control tokens recognised: only for tests and for text that we wrote ourselves.
  std::vector<int32_t> encode_with_special(std::string_view text) const;

  // The raw bytes of one token (added tokens: their text). Ids outside the vocabulary give "".
  std::string_view bytes(int32_t id) const;
  bool is_control(int32_t id) const;
  // ids → text; invalid UTF-8 becomes U+FFFD; control tokens are left out when skip_control.
  std::string decode(const std::vector<int32_t>& ids, bool skip_control = true) const;
  int32_t find(std::string_view token) const;  // id of an added token by its text, −1 when absent
  int64_t size() const;

 private:
  struct Merge {
    int32_t right, rank;
  };
  static constexpr int32_t kNoRank = INT32_MAX;

  void add_tokens(const std::vector<std::string_view>& tokens);
  void add_merges(const std::vector<std::string_view>& tokens, const std::vector<std::string_view>& merges);
  std::vector<int32_t> encode_parts(std::string_view text, bool with_control) const;
  void encode_plain(std::vector<int32_t>& ids, std::string_view text) const;
  void encode_piece(std::vector<int32_t>& ids, std::string_view piece) const;
  int32_t longest_added(std::string_view text) const;
  int32_t rank_of(int32_t left, int32_t right) const;

  std::vector<std::string> bytes_;      // by id
  std::vector<TokenType> types_;        // by id
  std::array<int32_t, 256> byte_id_{};  // byte → its token
  std::vector<int32_t> added_;          // ids of control and user_defined tokens, sorted by their text
  std::array<bool, 256> added_start_{};  // whether an added token begins with this byte
  std::vector<Merge> merges_;           // sorted by left, then right; those of one left are merges_[first_[left] … first_[left + 1])
  std::vector<int32_t> first_;
  std::vector<int32_t> merged_;         // rank → id of left + right
};

// Streaming: feed token bytes, get only whole UTF-8 characters; finish() flushes an incomplete tail as U+FFFD.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace bg
