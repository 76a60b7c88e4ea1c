// See item.h.
#include "tools/stage/item.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "loaders/cursor.h"
#include "loaders/sha256.h"

namespace stage {
namespace {

constexpr size_t kMostText = 1 << 20;    // bytes of a message
constexpr size_t kMostMedia = 64;        // files of one cell
constexpr double kMostCoordinate = 1e9;  // pixels or voxels

std::string column_name(const std::string& column) { return "column " + bg::shown(column); }

// Numbers with spaces between; NaN stands for what is no number.
std::vector<double> numbers_of(const std::string& text) {
  std::vector<double> out;
  const char *p = text.data(), *end = p + text.size();
  while (true) {
    while (p < end && *p == ' ') ++p;
    if (p == end || out.size() > 6) return out;
    double number = 0;
    const auto [next, error] = std::from_chars(p, end, number);
    const bool good = error == std::errc() && (next == end || *next == ' ');
    out.push_back(good ? number : NAN);
    p = std::find(next, end, ' ');
  }
}

}  // namespace

bool Item::holds(const std::vector<Condition>& when) const {
  return std::all_of(when.begin(), when.end(), [&](const Condition& c) {
    const std::string& v = value(c.column);
    return std::any_of(c.allowed.begin(), c.allowed.end(), [&](const std::string& a) { return a == "*" ? !v.empty() : a == v; });
  });
}

bool Item::meant() const {
  return value("modality") == t_.modality && holds(t_.when) && std::any_of(t_.answer.begin(), t_.answer.end(), [&](const Part& p) { return holds(p.when); });
}

std::string Item::empty_column(const Text& text) const {
  for (const Piece& p : text)
    if (p.kind != Piece::literal && value(p.text).empty()) return p.text;
  return "";
}

std::string Item::empty_column() const {
  for (const std::string& m : t_.media)
    if (value(m).empty()) return m;
  for (const Text& wording : t_.ask)
    if (const std::string column = empty_column(wording); !column.empty()) return column;
  for (const Part& part : t_.answer)
    if (holds(part.when))
      if (const std::string column = empty_column(part.text); !column.empty()) return column;
  return "";
}

std::string Item::hash(const char* purpose) const {
  const std::string text = std::to_string(settings_.seed) + "\n" + value("case") + "\n" + t_.id + "\n" + purpose;
  return bg::sha256_hex(text.data(), text.size());
}

std::string Item::pick() const { return hash("pick"); }

void Item::add(std::string& out, const Text& text) {
  for (const Piece& p : text) {
    if (p.kind == Piece::literal) out += p.text;
    if (p.kind == Piece::value) out += worded(p);
    if (p.kind == Piece::box) {
      boxes_.emplace_back(t_.ref.at(p.text), box(p.text));
      out += "<ref-object><bbox>";
    }
    if (out.size() > kMostText) throw Wrong{"the text is longer than " + std::to_string(kMostText) + " bytes"};
  }
}

std::string Item::worded(const Piece& p) const {
  const std::string& v = value(p.text);
  if (const char* marker = marker_in(v)) throw Wrong{column_name(p.text) + " contains " + marker + ", which would be taken for a medium or a box"};
  if (!p.words) return v;
  const auto found = p.words->find(v);
  if (found != p.words->end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [key, ignored] : *p.words) known.push_back(key);
  throw Wrong{column_name(p.text) + " has a value that is not in \"words\": " + bg::shown(p.map) + ", which has " + quoted_list(known)};
}

// "x1 y1 x2 y2" or "x1 y1 z1 x2 y2 z2": edges, in pixels or voxels of the stored medium.
Item::Json Item::box(const std::string& column) const {
  const std::vector<double> v = numbers_of(value(column));
  const size_t n = v.size() / 2;
  if (v.size() != 4 && v.size() != 6)
    throw Wrong{column_name(column) + ": a box of " + (v.size() > 6 ? "more than 6" : std::to_string(v.size())) +
                " numbers; expected \"x1 y1 x2 y2\" or \"x1 y1 z1 x2 y2 z2\""};
  if (n == 3 && t_.media.front() != "volume")
    throw Wrong{column_name(column) + ": a box of 6 numbers, but " + bg::shown(t_.media.front()) + " has no depth; expected \"x1 y1 x2 y2\""};
  Json out = Json::array();
  for (size_t i = 0; i < 2 * n; ++i) {
    if (!(std::abs(v[i]) <= kMostCoordinate)) throw Wrong{column_name(column) + ": number " + std::to_string(i + 1) + " of the box is no finite number up to 1e9"};
    if (v[i] == std::floor(v[i]))
      out.push_back(int64_t(v[i]));
    else
      out.push_back(v[i]);
  }
  for (size_t i = 0; i < n; ++i)
    if (const std::string axis(1, "xyz"[i]); !(v[i] < v[i + n])) throw Wrong{column_name(column) + ": " + axis + "1 of the box is not below " + axis + "2"};
  return out;
}

// Each file gives its marker, in order; images and slides stand in one list, volumes in the other.
void Item::read_media() {
  images_ = Json::array(), videos_ = Json::array();
  markers_.clear();
  for (const std::string& column : t_.media) {
    const std::string& cell = value(column);
    size_t files = 0;
    for (size_t start = 0; start <= cell.size();) {
      const size_t end = std::min(cell.find(';', start), cell.size());
      if (++files > kMostMedia) throw Wrong{column_name(column) + " has more than " + std::to_string(kMostMedia) + " paths"};
      (column == "volume" ? videos_ : images_).push_back(path(column, cell, start, end));
      markers_ += column == "volume" ? "<video>" : "<image>";
      start = end + 1;
    }
  }
}

std::string Item::path(const std::string& column, const std::string& cell, size_t start, size_t end) const {
  while (start < end && cell[start] == ' ') ++start;
  while (start < end && cell[end - 1] == ' ') --end;
  if (start == end) throw Wrong{column_name(column) + " has an empty path; expected paths with ; between"};
  const std::string path = cell.substr(start, end - start), &root = settings_.root;
  if (root.empty()) return path;
  if (path[0] == '/') throw Wrong{column_name(column) + " has a path that begins with /; leave --root out, or write paths relative to it"};
  return root + (root.back() == '/' ? "" : "/") + path;
}

std::string Item::question() {
  const size_t taken = std::stoull(hash("ask").substr(0, 16), nullptr, 16) % t_.ask.size();
  std::string out;
  for (size_t i = 0; i < t_.ask.size(); ++i) {
    if (i == taken) continue;
    add(out, t_.ask[i]);  // only to see that the row is in order for all wordings: that must not hang on the seed
    out.clear();
    boxes_.clear();
  }
  out = markers_;
  add(out, t_.ask[taken]);
  return out;
}

std::string Item::answer() {
  std::string out;
  for (const Part& part : t_.answer)
    if (holds(part.when)) add(out, part.text);
  if (out.empty()) throw Wrong{"the answer is empty: all its wordings are; narrow \"when\" or change \"words\""};
  if (!t_.options.empty() && std::find(t_.options.begin(), t_.options.end(), out) == t_.options.end())
    throw Wrong{"the answer is not one of the \"options\" " + quoted_list(t_.options) + "; correct the row, add the option, or narrow \"when\""};
  return out;
}

Item::Json Item::json() {
  boxes_.clear();
  read_media();
  Json messages = Json::array();
  if (const auto role = settings_.roles.find(t_.stage); role != settings_.roles.end()) messages.push_back({{"role", "system"}, {"content", role->second}});
  messages.push_back({{"role", "user"}, {"content", question()}});
  messages.push_back({{"role", "assistant"}, {"content", answer()}});
  Json out = {{"messages", std::move(messages)}, {"images", images_}, {"videos", videos_}};
  if (!boxes_.empty()) out["objects"] = objects();
  out["meta"] = meta();
  return out;
}

// A box lies in the template's first medium. Media are counted images first, then videos.
Item::Json Item::objects() const {
  Json out = {{"ref", Json::array()}, {"bbox", Json::array()}, {"bbox_type", "real"}, {"image_id", Json::array()}};
  for (const auto& [name, numbers] : boxes_) {
    out["ref"].push_back(name);
    out["bbox"].push_back(numbers);
    out["image_id"].push_back(t_.media.front() == "volume" ? images_.size() : 0);
  }
  return out;
}

Item::Json Item::meta() const {
  Json out = {{"id", value("case") + "/" + t_.id}, {"case", value("case")}, {"template", t_.id}, {"stage", t_.stage}, {"modality", t_.modality}, {"task", t_.task}};
  if (!t_.options.empty()) out["options"] = t_.options;
  for (const char* column : {"vendor", "density"})
    if (!value(column).empty()) out[column] = value(column);
  return out;
}

}  // namespace stage
