// Boxes in the model's text, MODEL.md §5b. One pass over the special tokens, one over the bytes between them: every byte is looked at a bounded number of
// times, whatever the text. What counts as a box:
//   between <|box_start|> and the next <|box_end|>: (x,y), (x,y,z), or two corners of two or three numbers;
//   anywhere else, and between the tokens where that fails: [4 numbers], [6 numbers], and chains (..),(..) of an even number of corners, two for each box.
// A chain of an odd number of corners is a list of points, a single (x,y) without tokens is prose: neither is a box. A number is -?digits[.digits].
#include "runtime/boxes.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "loaders/error.h"

namespace bg {
namespace {

constexpr size_t kLongestLabel = 256;  // bytes; longer names are cut, so that many boxes after one long name stay small
constexpr double kLargest = 1e15;      // beyond, the digits are no coordinate (and no exact integer)

enum class Mark { ref_start, ref_end, box_start, box_end };
struct Token {
  Mark mark;
  size_t at, end;  // bytes
};

std::vector<Token> find_tokens(std::string_view text) {
  static constexpr std::string_view names[4] = {"<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"};
  std::vector<Token> tokens;
  for (size_t at = text.find("<|"); at != std::string_view::npos; at = text.find("<|", at + 2)) {
    for (int i = 0; i < 4; ++i)
      if (text.substr(at, names[i].size()) == names[i]) tokens.push_back({Mark(i), at, at + names[i].size()});
  }
  return tokens;
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Numbers in brackets: at most six.
struct Tuple {
  int count = 0;
  double v[6] = {};
};

// A reader of one stretch of text without special tokens.
struct Reader {
  std::string_view text;
  size_t at, end;

  void skip_space() {
    while (at < end && is_space(text[at])) ++at;
  }
  bool take(char c) {
    if (at >= end || text[at] != c) return false;
    ++at;
    return true;
  }
  bool number(double& v) {
    size_t p = at;
    if (p < end && text[p] == '-') ++p;
    const size_t digits = p;
    while (p < end && is_digit(text[p])) ++p;
    if (p == digits) return false;
    if (p + 1 < end && text[p] == '.' && is_digit(text[p + 1])) {
      for (++p; p < end && is_digit(text[p]);) ++p;
    }
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + p, v, std::chars_format::fixed);
    if (error != std::errc() || stop != text.data() + p || !(std::fabs(v) <= kLargest)) return false;
    v += 0.0;  // −0 → 0
    at = p;
    return true;
  }
  // open number , … number close. Stays where it was when that is not there.
  bool tuple(char open, char close, Tuple& t) {
    const size_t start = at;
    t.count = 0;
    if (take(open)) {
      do {
        skip_space();
        if (t.count == 6 || !number(t.v[t.count])) break;
        ++t.count;
        skip_space();
        if (take(close)) return true;
      } while (take(','));
    }
    at = start;
    return false;
  }
};

void order(Box& box) {
  for (int i = 0; i < box.dimensions; ++i) {
    if (box.low[i] > box.high[i]) {
      std::swap(box.low[i], box.high[i]);
      box.swapped = true;
    }
    if (box.low[i] < 0 || box.high[i] > 1000) box.outside = true;
  }
}

Box make_box(const double* low, const double* high, int dimensions, bool point, size_t at, size_t end) {
  Box box;
  box.dimensions = dimensions;
  box.point = point;
  std::copy(low, low + dimensions, box.low);
  std::copy(high, high + dimensions, box.high);
  box.at = at;
  box.length = end - at;
  order(box);
  return box;
}

bool is_corner(const Tuple& t) { return t.count == 2 || t.count == 3; }

// What stands between the tokens, and nothing else: one corner or two of the same kind.
bool whole_form(Reader r, size_t at, size_t end, std::vector<Box>& found) {
  Tuple a, b;
  r.skip_space();
  if (!r.tuple('(', ')', a) || !is_corner(a)) return false;
  r.skip_space();
  const bool point = r.at == r.end;
  if (!point) {
    if (!r.take(',')) return false;
    r.skip_space();
    if (!r.tuple('(', ')', b) || b.count != a.count) return false;
    r.skip_space();
    if (r.at != r.end) return false;
  }
  found.push_back(make_box(a.v, point ? a.v : b.v, a.count, point, at, end));
  return true;
}

// Takes (..),(..),… as far as it goes; true with its boxes when it is made of pairs.
struct Corner {
  Tuple t;
  size_t at, end;
};
bool chain(Reader& r, std::vector<Box>& found) {
  std::vector<Corner> corners;
  for (Reader next = r;;) {
    Corner c;
    c.at = next.at;
    if (!next.tuple('(', ')', c.t) || !is_corner(c.t)) break;
    c.end = next.at;
    corners.push_back(c);
    r.at = next.at;
    next.skip_space();
    if (!next.take(',')) break;
    next.skip_space();
  }
  if (corners.empty() || corners.size() % 2 != 0) return false;
  for (size_t i = 0; i < corners.size(); i += 2)
    if (corners[i].t.count != corners[i + 1].t.count) return false;
  for (size_t i = 0; i < corners.size(); i += 2) {
    const Corner &a = corners[i], &b = corners[i + 1];
    found.push_back(make_box(a.t.v, b.t.v, a.t.count, false, a.at, b.end));
  }
  return true;
}

// The name that the next box gets. It lasts over spaces, separators and further boxes, and ends with the first other byte.
class Name {
 public:
  void set(std::string_view name) {
    while (!name.empty() && is_space(name.front())) name.remove_prefix(1);
    while (!name.empty() && is_space(name.back())) name.remove_suffix(1);
    if (name.size() > kLongestLabel) {
      size_t n = kLongestLabel;
      while (n > 0 && (uint8_t(name[n]) & 0xC0) == 0x80) --n;  // not inside a UTF-8 character
      name = name.substr(0, n);
    }
    name_ = name;
  }
  void pass(char c) {
    if (!is_space(c) && std::string_view(",;[]").find(c) == std::string_view::npos) name_.clear();
  }
  void put_on(std::vector<Box>& boxes, size_t first) const {
    for (size_t i = first; i < boxes.size(); ++i) boxes[i].label = name_;
  }

 private:
  std::string name_;
};

void plain_forms(std::string_view text, size_t at, size_t end, Name& name, std::vector<Box>& found) {
  for (Reader r{text, at, end}; r.at < end;) {
    const char c = text[r.at];
    const size_t start = r.at, first = found.size();
    Tuple t;
    if (c == '[' && r.tuple('[', ']', t)) {
      const int n = t.count / 2;
      if (t.count == 4 || t.count == 6) found.push_back(make_box(t.v, t.v + n, n, false, start, r.at));
    } else if (c == '(') {
      chain(r, found);
    }
    if (found.size() > first) {
      name.put_on(found, first);
      continue;
    }
    name.pass(r.at > start ? '(' : c);  // numbers that are no box are prose
    if (r.at == start) ++r.at;
  }
}

}  // namespace

std::vector<Box> find_boxes(std::string_view text) {
  std::vector<Box> found;
  Name name;
  size_t at = 0;
  const std::vector<Token> tokens = find_tokens(text);
  for (size_t i = 0; i < tokens.size(); ++i) {
    plain_forms(text, at, tokens[i].at, name, found);
    at = tokens[i].end;
    if (i + 1 == tokens.size()) break;
    const Token& next = tokens[i + 1];
    if (tokens[i].mark == Mark::ref_start && next.mark == Mark::ref_end) {
      name.set(text.substr(at, next.at - at));
      at = next.end;
      ++i;
    } else if (tokens[i].mark == Mark::box_start && next.mark == Mark::box_end) {
      const size_t first = found.size();
      if (!whole_form({text, at, next.at}, tokens[i].at, next.end, found)) continue;
      name.put_on(found, first);
      at = next.end;
      ++i;
    }
  }
  plain_forms(text, at, text.size(), name, found);
  return found;
}

SourceBox to_source(const Box& box, const int64_t size[3]) {
  SourceBox s;
  for (int i = 0; i < 3; ++i) {
    const bool flat = i >= box.dimensions;  // a 2-D box in a volume reaches through all slices
    if (!flat && size[i] < 1)
      throw Error(Status::invalid_argument, "box: axis " + std::to_string(i) + " of the medium has size " + std::to_string(size[i]) + "; expected at least 1");
    s.low[i] = flat ? 0 : box.low[i] / 1000 * double(size[i]);
    s.high[i] = flat ? double(size[i]) : box.high[i] / 1000 * double(size[i]);
  }
  return s;
}

// |to_source(to_thousandths(v)) − v| ≤ size/2000: half of a thousandth of the side, which is half a pixel up to size 1000 and is in the format, not in
// us, above. (Beside it the four roundings of double, below 5·2⁻⁵³·size for v in 0 … size.)
int64_t to_thousandths(double v, int64_t size) {
  const double scaled = v / double(size) * 1000;
  if (size < 1 || !(std::fabs(scaled) <= kLargest)) {
    throw Error(Status::invalid_argument, "box: position " + std::to_string(v) + " in a medium of size " + std::to_string(size) +
                                              " has no thousandths; expected a finite position and a size of at least 1");
  }
  const double down = std::floor(scaled), rest = scaled - down;  // exact; std::nearbyint would follow the caller's rounding mode
  const bool up = rest > 0.5 || (rest == 0.5 && std::fmod(down, 2) != 0);
  return int64_t(down) + (up ? 1 : 0);
}

}  // namespace bg
