// See tokenizer.h. The order of work: added tokens split off on the raw text, NFC of what lies between, the pattern's pieces, merges by rank.
#include "runtime/tokenizer.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>

#include "loaders/cursor.h"
#include "loaders/error.h"
#include "runtime/unicode.h"

namespace bg {
namespace {

constexpr size_t kMostText = size_t(64) << 20;  // bytes
constexpr size_t kLongestAdded = 256;           // bytes; bounds the work per byte of text

[[noreturn]] void bad(const std::string& what) {
  throw Error(Status::bad_file, "tokenizer: " + what + "; convert the checkpoint again");
}

std::string token_name(size_t id, std::string_view token) { return "token " + std::to_string(id) + " " + shown(token); }

// Bytes 33–126, 161–172 and 174–255 are printed as the code points of the same number, the other 68 as 256, 257, … in order.
bool prints_itself(int32_t byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

struct PrintableBytes {
  std::array<int16_t, 256 + 68> byte_of{};  // code point → byte, −1 where none
  PrintableBytes() {
    byte_of.fill(-1);
    size_t next = 256;
    for (int32_t byte = 0; byte < 256; ++byte) byte_of[prints_itself(byte) ? size_t(byte) : next++] = int16_t(byte);
  }
};

// A vocabulary entry in printable form → its bytes; false when it has a code point that stands for no byte.
bool raw_bytes(std::string& out, std::string_view printable) {
  static const PrintableBytes table;
  while (!printable.empty()) {
    const uint8_t first = uint8_t(printable[0]);
    const Utf8Part part = first < 0x80 ? Utf8Part{first, 1, true} : first_utf8(printable);
    if (!part.valid || size_t(part.code) >= table.byte_of.size() || table.byte_of[size_t(part.code)] < 0) return false;
    out += char(table.byte_of[size_t(part.code)]);
    printable.remove_prefix(size_t(part.size));
  }
  return true;
}

bool is_ascii_letter(int32_t code, char lower) { return code == lower || code == lower - 'a' + 'A'; }

// (?i:'s|'t|'re|'ve|'m|'ll|'d) at text[at]: its length in code points, 0 when there is none.
// U+017F (long s) folds to s, so the reference's case-insensitive 's takes it; no other code point outside ASCII folds into these.
size_t contraction(const std::vector<int32_t>& text, size_t at) {
  if (text[at] != '\'' || at + 1 == text.size()) return 0;
  const int32_t first = text[at + 1];
  if (is_ascii_letter(first, 's') || first == 0x17F) return 2;
  if (is_ascii_letter(first, 't') || is_ascii_letter(first, 'm') || is_ascii_letter(first, 'd')) return 2;
  if (at + 2 == text.size()) return 0;
  const int32_t second = text[at + 2];
  const bool re_ve = (is_ascii_letter(first, 'r') || is_ascii_letter(first, 'v')) && is_ascii_letter(second, 'e');
  return re_ve || (is_ascii_letter(first, 'l') && is_ascii_letter(second, 'l')) ? 3 : 0;
}

// End of the pattern's match at text[at], alternative by alternative. Some alternative matches everywhere, so the matches tile the text.
size_t piece_end(const std::vector<int32_t>& text, const std::vector<CharClass>& classes, size_t at) {
  const size_t size = text.size();
  const auto run = [&](size_t i, CharClass c) {
    while (i < size && classes[i] == c) ++i;
    return i;
  };
  if (const size_t length = contraction(text, at)) return at + length;

  // [^\r\n\p{L}\p{N}]?\p{L}+
  const size_t letters = at + (classes[at] == CharClass::other || classes[at] == CharClass::space ? 1 : 0);
  if (letters < size && classes[letters] == CharClass::letter) return run(letters, CharClass::letter);

  // \p{N}
  if (classes[at] == CharClass::number) return at + 1;

  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  const size_t others = at + (text[at] == ' ' ? 1 : 0);
  if (others < size && classes[others] == CharClass::other) return run(run(others, CharClass::other), CharClass::newline);

  // Whitespace is left. \s*[\r\n]+ gives back what follows the last newline of the run.
  size_t end = at, after_newline = at;
  while (end < size && (classes[end] == CharClass::space || classes[end] == CharClass::newline)) {
    ++end;
    if (classes[end - 1] == CharClass::newline) after_newline = end;
  }
  if (after_newline > at) return after_newline;
  // \s+(?!\S) leaves one whitespace to the text that follows; \s+ takes a single one.
  return end == size || end == at + 1 ? end : end - 1;
}

// Token → id, by open addressing: a real vocabulary asks half a million times, and nodes and chains took half of a program's start.
class IdOf {
 public:
  explicit IdOf(const std::vector<std::string_view>& tokens) : tokens_(tokens), slots_(std::bit_ceil(tokens.size() + tokens.size() / 2 + 1)) {}
  // The id of an equal token that is there already, −1 where there was none and `id` is now.
  int32_t add(int32_t id) {
    Slot& slot = slot_of(tokens_[size_t(id)]);
    if (slot.id >= 0) return slot.id;
    slot = {hash_of(tokens_[size_t(id)]), id};
    return -1;
  }
  int32_t find(std::string_view token) { return slot_of(token).id; }  // −1: none

 private:
  static constexpr size_t kMostTries = 1024;  // tokens made to fall on one place would take the square of their number; chance does not come near at ⅔ full
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  static uint32_t hash_of(std::string_view token) { return uint32_t(std::hash<std::string_view>()(token)); }
  Slot& slot_of(std::string_view token) {
    const uint32_t hash = hash_of(token);
    for (size_t n = 0, i = hash & (slots_.size() - 1); n < kMostTries; ++n, i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].id < 0 || (slots_[i].hash == hash && tokens_[size_t(slots_[i].id)] == token)) return slots_[i];
    }
    bad(std::to_string(kMostTries) + " tokens fall on one place of the hash table, where Qwen3's has 42 at most, the last " + shown(token));
  }
  const std::vector<std::string_view>& tokens_;
  std::vector<Slot> slots_;
};

}  // namespace

Tokenizer::Tokenizer(const std::vector<std::string_view>& tokens, const std::vector<TokenType>& types, const std::vector<std::string_view>& merges)
    : types_(types) {
  if (tokens.size() != types.size()) bad(std::to_string(tokens.size()) + " tokens but " + std::to_string(types.size()) + " token types");
  if (tokens.size() >= INT32_MAX || merges.size() >= INT32_MAX) bad("2^31 or more tokens or merges");
  add_tokens(tokens);
  add_merges(tokens, merges);
}

void Tokenizer::add_tokens(const std::vector<std::string_view>& tokens) {
  bytes_.resize(tokens.size());
  byte_id_.fill(-1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (token.empty()) bad("token " + std::to_string(id) + " is empty");
    switch (types_[id]) {
      case TokenType::normal:
        if (!raw_bytes(bytes_[id], token)) bad(token_name(id, token) + " is not bytes in printable form");
        if (bytes_[id].size() == 1) byte_id_[uint8_t(bytes_[id][0])] = int32_t(id);
        break;
      case TokenType::control:
      case TokenType::user_defined:
        bytes_[id] = token;
        if (token.size() > kLongestAdded) {
          bad(token_name(id, token) + ": an added token of " + std::to_string(token.size()) + " bytes, at most " + std::to_string(kLongestAdded));
        }
        if (valid_utf8(token) != token) bad(token_name(id, token) + ": an added token that is not UTF-8");
        added_.push_back(int32_t(id));
        added_start_[uint8_t(token[0])] = true;
        break;
      default:
        bad(token_name(id, token) + " has type " + std::to_string(int(types_[id])) + ", expected 1 (normal), 3 (control) or 4 (user-defined)");
    }
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte_id_[byte] < 0) bad("no token for the single byte " + std::to_string(byte));
  }
  std::sort(added_.begin(), added_.end(), [&](int32_t a, int32_t b) { return bytes_[size_t(a)] < bytes_[size_t(b)]; });
}

void Tokenizer::add_merges(const std::vector<std::string_view>& tokens, const std::vector<std::string_view>& merges) {
  IdOf ids(tokens);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (const int32_t known = ids.add(int32_t(id)); known >= 0) bad(token_name(id, tokens[id]) + " is also token " + std::to_string(known));
  }
  const auto normal_id = [&](std::string_view token, size_t rank) {
    const int32_t id = ids.find(token);
    if (id < 0 || types_[size_t(id)] != TokenType::normal) {
      bad("merge " + std::to_string(rank) + " " + shown(merges[rank]) + " needs the token " + shown(token) + ", which the vocabulary does not have");
    }
    return id;
  };

  std::vector<int32_t> left(merges.size()), right(merges.size());
  merged_.resize(merges.size());
  first_.assign(tokens.size() + 1, 0);
  std::string whole;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
      bad("merge " + std::to_string(rank) + " " + shown(merge) + " is not two tokens with one space between");
    }
    left[rank] = normal_id(merge.substr(0, space), rank);
    right[rank] = normal_id(merge.substr(space + 1), rank);
    whole.assign(merge, 0, space).append(merge, space + 1);
    // Vocabularies are numbered in the order of their merges: most searches, and those that wait for memory, are spared.
    const size_t likely = rank > 0 ? size_t(merged_[rank - 1]) + 1 : 0;
    const bool found = likely < tokens.size() && tokens[likely] == whole && types_[likely] == TokenType::normal;
    merged_[rank] = found ? int32_t(likely) : normal_id(whole, rank);
    ++first_[size_t(left[rank]) + 1];
  }
  std::partial_sum(first_.begin(), first_.end(), first_.begin());

  // By left, in the order of ranks, then each left's by right.
  std::vector<int32_t> next(first_.begin(), first_.end() - 1);
  merges_.resize(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) merges_[size_t(next[size_t(left[rank])]++)] = {right[rank], int32_t(rank)};
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto begin = merges_.begin() + first_[id], end = merges_.begin() + first_[id + 1];
    std::sort(begin, end, [](const Merge& a, const Merge& b) { return std::pair(a.right, a.rank) < std::pair(b.right, b.rank); });
    const auto twice = std::adjacent_find(begin, end, [](const Merge& a, const Merge& b) { return a.right == b.right; });
    if (twice != end) {
      const int32_t lower = twice->rank, upper = (twice + 1)->rank;
      bad("merge " + std::to_string(upper) + " " + shown(merges[size_t(upper)]) + " is also merge " + std::to_string(lower));
    }
  }
}

int32_t Tokenizer::rank_of(int32_t left, int32_t right) const {
  const auto begin = merges_.begin() + first_[size_t(left)], end = merges_.begin() + first_[size_t(left) + 1];
  const auto found = std::lower_bound(begin, end, right, [](const Merge& m, int32_t r) { return m.right < r; });
  return found != end && found->right == right ? found->rank : kNoRank;
}

// The longest added token that text begins with, −1 when there is none: the sorted list is narrowed byte by byte.
int32_t Tokenizer::longest_added(std::string_view text) const {
  if (!added_start_[uint8_t(text[0])]) return -1;
  int32_t longest = -1;
  auto begin = added_.begin(), end = added_.end();  // those that share the first `depth` bytes with text; the one that ends there comes first
  for (size_t depth = 0; depth < text.size() && begin != end; ++depth) {
    const uint8_t wanted = uint8_t(text[depth]);
    const auto byte_at_depth = [&](int32_t id) { return depth < bytes_[size_t(id)].size() ? int(uint8_t(bytes_[size_t(id)][depth])) : -1; };
    begin = std::partition_point(begin, end, [&](int32_t id) { return byte_at_depth(id) < wanted; });
    end = std::partition_point(begin, end, [&](int32_t id) { return byte_at_depth(id) == wanted; });
    if (begin != end && bytes_[size_t(*begin)].size() == depth + 1) longest = *begin;
  }
  return longest;
}

std::vector<int32_t> Tokenizer::encode_parts(std::string_view text, bool with_control) const {
  if (text.size() > kMostText) {
    throw Error(Status::too_large,
                "text of " + std::to_string(text.size()) + " bytes: at most " + std::to_string(kMostText) + " are encoded at once; shorten it");
  }
  std::vector<int32_t> ids;
  size_t plain = 0;  // start of the text that is not encoded yet
  for (size_t at = 0; at < text.size();) {
    const int32_t id = longest_added(text.substr(at));
    if (id < 0) {
      ++at;
      continue;
    }
    const size_t length = bytes_[size_t(id)].size();
    // As in the reference, a control token that stays text still hides any added token that begins inside it.
    if (with_control || !is_control(id)) {
      encode_plain(ids, text.substr(plain, at - plain));
      ids.push_back(id);
      plain = at + length;
    }
    at += length;
  }
  encode_plain(ids, text.substr(plain));
  return ids;
}

void Tokenizer::encode_plain(std::vector<int32_t>& ids, std::string_view text) const {
  const std::vector<int32_t> codes = nfc(text);
  std::vector<CharClass> classes(codes.size());
  std::transform(codes.begin(), codes.end(), classes.begin(), char_class);
  std::string piece;
  for (size_t at = 0; at < codes.size();) {
    const size_t end = piece_end(codes, classes, at);
    piece.clear();
    for (; at < end; ++at) append_utf8(piece, codes[at]);
    encode_piece(ids, piece);
  }
}

// Byte-pair merges of one piece: always the pair of the lowest rank, the leftmost of equals, until no pair has a rank.
void Tokenizer::encode_piece(std::vector<int32_t>& ids, std::string_view piece) const {
  struct Symbol {
    int32_t id, previous, next;  // a list in text order; −1 at its ends
    int32_t rank;                // of the merge with next; kNoRank where there is none
  };
  const int32_t size = int32_t(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int32_t i = 0; i < size; ++i) symbols[size_t(i)] = {byte_id_[uint8_t(piece[size_t(i)])], i - 1, i + 1 < size ? i + 1 : -1, kNoRank};

  std::vector<uint64_t> heap;  // rank << 32 | place, smallest on top; stale where the symbol's rank has changed since
  const auto rank_pair = [&](int32_t place) {
    Symbol& symbol = symbols[size_t(place)];
    symbol.rank = symbol.next < 0 ? kNoRank : rank_of(symbol.id, symbols[size_t(symbol.next)].id);
    if (symbol.rank == kNoRank) return;
    heap.push_back(uint64_t(symbol.rank) << 32 | uint32_t(place));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i < size; ++i) rank_pair(i);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const int32_t rank = int32_t(heap.back() >> 32), place = int32_t(heap.back() & UINT32_MAX);
    heap.pop_back();
    Symbol& symbol = symbols[size_t(place)];
    if (symbol.rank != rank) continue;
    Symbol& gone = symbols[size_t(symbol.next)];
    symbol.id = merged_[size_t(rank)];
    symbol.next = gone.next;
    gone.rank = kNoRank;
    if (symbol.next >= 0) symbols[size_t(symbol.next)].previous = place;
    rank_pair(place);
    if (symbol.previous >= 0) rank_pair(symbol.previous);
  }
  for (int32_t i = size > 0 ? 0 : -1; i >= 0; i = symbols[size_t(i)].next) ids.push_back(symbols[size_t(i)].id);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const { return encode_parts(text, false); }

std::vector<int32_t> Tokenizer::encode_with_special(std::string_view text) const { return encode_parts(text, true); }

std::string_view Tokenizer::bytes(int32_t id) const {
  return id >= 0 && size_t(id) < bytes_.size() ? std::string_view(bytes_[size_t(id)]) : std::string_view();
}

bool Tokenizer::is_control(int32_t id) const { return id >= 0 && size_t(id) < types_.size() && types_[size_t(id)] == TokenType::control; }

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_control) const {
  std::string raw;
  for (const int32_t id : ids) {
    if (!skip_control || !is_control(id)) raw += bytes(id);
  }
  return valid_utf8(raw);
}

int32_t Tokenizer::find(std::string_view token) const {
  const auto found = std::lower_bound(added_.begin(), added_.end(), token, [&](int32_t id, std::string_view t) { return bytes_[size_t(id)] < t; });
  return found != added_.end() && bytes_[size_t(*found)] == token ? *found : -1;
}

int64_t Tokenizer::size() const { return int64_t(bytes_.size()); }

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Part part = first_utf8(rest);
    if (part.incomplete) break;
    rest.remove_prefix(size_t(part.size));
  }
  std::string whole = valid_utf8(std::string_view(pending_).substr(0, pending_.size() - rest.size()));
  pending_.erase(0, pending_.size() - rest.size());
  return whole;
}

std::string Utf8Stream::finish() {
  const std::string tail = valid_utf8(pending_);
  pending_.clear();
  return tail;
}

}  // namespace bg
