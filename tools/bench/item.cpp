// See item.h.
#include "tools/bench/item.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tools/bench/labels.h"
#include "tools/options.h"

namespace tool {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr size_t kMostMedia = 64;        // images of one entry, and as many videos
constexpr size_t kMostOptions = 100;     // of one question
constexpr size_t kMostBoxes = 1000;      // of one entry
constexpr size_t kLongestLabel = 200;    // bytes, of a stage, a vendor …
constexpr size_t kLongestOption = 4096;  // bytes, also of a path
constexpr size_t kLongestName = 1024;    // bytes, of what a box shows

// The value of a key, or null where it is missing.
const Json& field(const Json& object, const char* key) {
  static const Json none;
  const auto found = object.find(key);
  return found == object.end() ? none : *found;
}

// The C API takes zero-terminated text, so a zero inside would cut it silently.
std::string text_of(const Json& value, const std::string& what, size_t longest) {
  if (!value.is_string()) throw Refused{what + " is not a text"};
  const std::string text = value.get<std::string>();
  if (text.size() > longest) throw Refused{what + " has " + std::to_string(text.size()) + " bytes; at most " + std::to_string(longest) + " are taken"};
  if (text.find('\0') != std::string::npos) throw Refused{what + " has a zero byte inside"};
  return text;
}

const Json& list_of(const Json& object, const char* key, size_t most) {
  static const Json none = Json::array();
  const Json& value = field(object, key);
  if (value.is_null()) return none;
  if (!value.is_array()) throw Refused{std::string("\"") + key + "\" is not a list"};
  if (value.size() > most) throw Refused{std::string("\"") + key + "\" has " + std::to_string(value.size()) + " entries; at most " + std::to_string(most) + " are taken"};
  return value;
}

std::string lower_case(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return c < 0x80 ? char(std::tolower(c)) : char(c); });
  return s;
}

bool ends_with(const std::string& text, const std::string& end) { return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0; }

std::string medium_path(const Json& value, const std::string& what) {
  if (value.is_array() || value.is_object())
    throw Refused{what + " is a " + (value.is_array() ? "list (a picture sequence)" : "JSON object") + "; one path of a file is taken"};
  std::string path = text_of(value, what, kLongestOption);
  path.erase(path.find_last_not_of(" \t\r\n") + 1);
  if (path.empty()) throw Refused{what + " is an empty path"};
  return path;
}

void read_messages(const Json& entry, Item& item) {
  const Json& messages = field(entry, "messages");
  if (!messages.is_array()) throw Refused{"\"messages\" is missing or not a list"};
  int64_t questions = 0, answers = 0, at = 0;
  for (const Json& message : messages) {
    const std::string what = "message " + std::to_string(++at);
    if (!message.is_object()) throw Refused{what + " is not a JSON object"};
    const std::string role = text_of(field(message, "role"), what + ": \"role\"", kLongestLabel);
    const std::string content = text_of(field(message, "content"), what + ": \"content\"", kMostRecordText);
    if (role == "system" && at == 1)
      item.system = content;
    else if (role == "user" && questions++ == answers) {
      if (questions > 1) item.earlier.push_back({item.question, item.reference});
      item.question = content;
    } else if (role == "assistant" && ++answers == questions)
      item.reference = content;
    else
      throw Refused{what + ": expected one system text at most, then user and assistant in turn"};
  }
  if (answers == 0) throw Refused{"no assistant message to compare with"};
  if (answers < questions) throw Refused{"the last question has no assistant message to compare with"};
  for (const Item::Turn& turn : item.earlier)
    if (turn.question.empty() || turn.answer.empty()) throw Refused{"an earlier question or answer is empty"};
  if (item.question.empty()) throw Refused{"the question is empty"};
  if (item.reference.empty()) throw Refused{"the reference answer is empty"};
}

void read_media(const Json& entry, const std::string& folder, const Roots& roots, Item& item) {
  int64_t at = 0;
  for (const Json& value : list_of(entry, "images", kMostMedia)) item.images.push_back(roots.find(medium_path(value, "image " + std::to_string(++at)), folder));
  at = 0;
  for (const Json& value : list_of(entry, "videos", kMostMedia)) {
    const std::string what = "video " + std::to_string(++at), path = medium_path(value, what), name = lower_case(path);
    for (const char* ending : {".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif"})
      if (ends_with(name, ending)) throw Refused{what + " is a film (" + ending + "); volumes are taken: .nii, .nii.gz, .npy"};
    item.videos.push_back(roots.find(path, folder));
  }
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

void read_objects(const Json& entry, Item& item) {
  const Json& objects = field(entry, "objects");
  if (!objects.is_null() && !objects.is_object()) throw Refused{"\"objects\" is not a JSON object"};
  if (objects.is_object()) {
    for (const Json& name : list_of(objects, "ref", kMostBoxes)) item.names.push_back(text_of(name, "a name in \"ref\"", kLongestName));
    for (const Json& box : list_of(objects, "bbox", kMostBoxes)) {
      const std::string what = "box " + std::to_string(item.boxes.size() + 1);
      if (!box.is_array() || (box.size() != 4 && box.size() != 6)) throw Refused{what + ": expected a list of 4 numbers (x1 y1 x2 y2) or 6 (x1 y1 z1 x2 y2 z2)"};
      if (!std::all_of(box.begin(), box.end(), [](const Json& v) { return v.is_number(); })) throw Refused{what + ": an entry is no number"};
      item.boxes.push_back(box.get<std::vector<double>>());
    }
    const Json& type = field(objects, "bbox_type");
    const std::string word = type.is_null() ? "real" : text_of(type, "\"bbox_type\"", kLongestLabel);
    if (word != "real" && word != "norm1") throw Refused{"\"bbox_type\": expected \"real\" or \"norm1\""};
    item.fractions = word == "norm1";
    item.box_media.assign(item.boxes.size(), 0);
    const Json& media = list_of(objects, "image_id", kMostBoxes);
    if (!media.empty() && media.size() != item.boxes.size())
      throw Refused{"\"image_id\" has " + std::to_string(media.size()) + " entries for " + std::to_string(item.boxes.size()) + " boxes"};
    for (size_t i = 0; i < media.size(); ++i) {
      if (!media[i].is_number_integer()) throw Refused{"\"image_id\": an entry is no whole number"};
      item.box_media[i] = media[i].is_number_unsigned() && media[i].get<uint64_t>() > 2 * kMostMedia ? -1 : media[i].get<int64_t>();
    }
    const int64_t count = int64_t(item.images.size() + item.videos.size());
    for (int64_t medium : item.box_media)
      if (medium < 0 || medium >= count) throw Refused{"a box lies on a medium that is not there (" + std::to_string(count) + " images and videos; \"image_id\" counts from 0)"};
  }
  const auto count = [&](const char* part) {
    size_t n = count_of(item.question, part) + count_of(item.reference, part);
    for (const Item::Turn& turn : item.earlier) n += count_of(turn.question, part) + count_of(turn.answer, part);
    return n;
  };
  const size_t names = count("<ref-object>"), boxes = count("<bbox>");
  if (names != item.names.size()) throw Refused{std::to_string(names) + " <ref-object> for " + std::to_string(item.names.size()) + " names in \"ref\""};
  if (boxes != item.boxes.size()) throw Refused{std::to_string(boxes) + " <bbox> for " + std::to_string(item.boxes.size()) + " boxes in \"bbox\""};
}

std::string label_of(const Json& meta, const char* key) {
  const Json& value = field(meta, key);
  if (value.is_null()) return "";
  return text_of(value, std::string("meta \"") + key + "\"", kLongestLabel);
}

void read_meta(const Json& entry, Item& item) {
  const Json& meta = field(entry, "meta");
  if (meta.is_null()) return;
  if (!meta.is_object()) throw Refused{"\"meta\" is not a JSON object"};
  if (const std::string id = label_of(meta, "id"); !id.empty()) item.id = id;
  item.stage = label_of(meta, "stage");
  item.modality = label_of(meta, "modality");
  item.task = label_of(meta, "task");
  item.template_id = label_of(meta, "template");
  item.vendor = label_of(meta, "vendor");
  item.density = label_of(meta, "density");
  for (const Json& option : list_of(meta, "options", kMostOptions)) {
    const std::string text = text_of(option, "an option", kLongestOption);
    if (text.empty() || std::find(item.options.begin(), item.options.end(), text) != item.options.end()) throw Refused{"an option is empty or occurs twice"};
    item.options.push_back(text);
  }
  if (item.options.size() == 1) throw Refused{"one option is no choice"};
}

// Nothing but names and boxes, and what joins them.
bool only_boxes(std::string text) {
  if (text.find("<bbox>") == std::string::npos) return false;
  for (const std::string part : {"<ref-object>", "<bbox>", "and"})
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at)) text.erase(at, part.size());
  return text.find_first_not_of(" \t\r\n,;.:[]") == std::string::npos;
}

void fill_labels(const Labels& labels, Item& item) {
  if (item.stage.empty()) item.stage = labels.stage;
  if (item.modality.empty()) item.modality = labels.modality;
  if (item.task.empty()) item.task = labels.task;
  if (item.refused.empty() && item.options.empty() && (item.task.empty() || item.task == "closed_vqa")) item.options = offered_options(item.question, item.reference);
  if (item.task.empty() && !item.options.empty()) item.task = "closed_vqa";
  if (item.task.empty() && only_boxes(item.reference)) item.task = "grounding";
  for (std::string* label : {&item.stage, &item.modality, &item.task})
    if (label->empty()) *label = "unknown";
}

// round_half_even(v/size·1000), whatever the rounding mode.
int64_t to_thousandths(double v, int64_t size) {
  const double scaled = v / double(size) * 1000;
  if (!(scaled > -1 && scaled < 1001)) return -1;
  const double down = std::floor(scaled), rest = scaled - down;
  return int64_t(down) + (rest > 0.5 || (rest == 0.5 && std::fmod(down, 2) != 0) ? 1 : 0);
}

RecordBox record_box(const Item& item, size_t i, const std::vector<MediumExtent>& media) {
  const std::vector<double>& v = item.boxes[i];
  const MediumExtent& extent = media[size_t(item.box_media[i])];
  const std::string what = "box " + std::to_string(i + 1);
  RecordBox box;
  box.medium = item.box_media[i];
  box.dimensions = int(v.size() / 2);
  if (extent[0] == 0) throw Refused{what + " lies on a slide, which has no pixel frame"};
  if (box.dimensions == 3 && extent[2] == 1) throw Refused{what + " has 6 numbers, but its medium has no depth"};
  for (size_t axis = 0; axis < v.size() / 2; ++axis) {
    const int64_t size = item.fractions ? 1 : extent[axis];
    const int64_t low = to_thousandths(v[axis], size), high = to_thousandths(v[axis + v.size() / 2], size);
    if (low < 0 || high < 0 || low > 1000 || high > 1000)
      throw Refused{what + ": a number lies outside its medium (0 … " + std::to_string(size) + " along " + "xyz"[axis] + "); is \"bbox_type\" right?"};
    if (low > high) throw Refused{what + ": its corners are swapped along " + "xyz"[axis]};
    box.low[axis] = double(low);
    box.high[axis] = double(high);
  }
  return box;
}

// "(x1,y1),(x2,y2)"
std::string corners(const RecordBox& box) {
  const auto corner = [&](const double* v) {
    std::string out = "(";
    for (int axis = 0; axis < box.dimensions; ++axis) out += (axis ? "," : "") + std::to_string(int64_t(v[axis]));
    return out + ")";
  };
  return corner(box.low) + "," + corner(box.high);
}

}  // namespace

Roots::Roots(const std::vector<std::string>& given) {
  for (const std::string& root : given) {
    const size_t equals = root.find('=');
    if (root.empty() || equals == 0) throw Failure{kUsage, "--root " + root + ": expected a folder, or OLD=NEW"};
    if (equals == std::string::npos)
      folders_.push_back(root);
    else
      rewrites_.emplace_back(root.substr(0, equals), root.substr(equals + 1));
  }
}

std::string Roots::find(const std::string& path, const std::string& data_folder) const {
  std::string moved = path;
  for (const auto& [from, to] : rewrites_) {
    if (path.compare(0, from.size(), from) != 0 || (from.back() != '/' && path.size() > from.size() && path[from.size()] != '/')) continue;
    moved = to + path.substr(from.size());
    break;
  }
  if (fs::path(moved).is_absolute()) return moved;
  for (const std::string& folder : folders_) {
    std::error_code ignored;
    if (fs::exists(fs::path(folder) / moved, ignored)) return (fs::path(folder) / moved).string();
  }
  return (fs::path(folders_.empty() ? data_folder : folders_.front()) / moved).string();
}

Item read_item(const Json& entry, const std::string& id, const std::string& folder, const Labels& labels, const Roots& roots) {
  Item item;
  item.id = id;
  try {
    if (!entry.is_object()) throw Refused{"not a JSON object"};
    read_meta(entry, item);  // first, so that a refused entry is listed under its own name
    read_messages(entry, item);
    read_media(entry, folder, roots, item);
    read_objects(entry, item);
  } catch (const Refused& r) {
    item.refused = r.why;
  }
  fill_labels(labels, item);
  return item;
}

Expanded expand(const Item& item, const std::vector<MediumExtent>& media) {
  Expanded out;
  size_t name = 0, box = 0;
  const auto walk = [&](const std::string& text, bool tokens, std::vector<RecordBox>* boxes) {
    std::string result, label;  // label: of the boxes that follow, as long as only separators stand between
    for (size_t at = 0; at < text.size();) {
      if (text.compare(at, 12, "<ref-object>") == 0) {
        label = item.names[name++];
        result += tokens ? "<|object_ref_start|>" + label + "<|object_ref_end|>" : label;
        at += 12;
      } else if (text.compare(at, 6, "<bbox>") == 0) {
        RecordBox next = record_box(item, box++, media);
        next.label = label;
        result += tokens ? "<|box_start|>" + corners(next) + "<|box_end|>" : corners(next);
        if (boxes) boxes->push_back(next);
        at += 6;
      } else {
        if (!std::strchr(" \t\r\n,;[]", text[at])) label.clear();
        result += text[at++];
      }
    }
    return result;
  };
  for (const Item::Turn& turn : item.earlier) {
    std::string question = walk(turn.question, true, nullptr);
    out.earlier.push_back({std::move(question), walk(turn.answer, true, nullptr)});
  }
  out.question = walk(item.question, true, nullptr);
  out.reference = walk(item.reference, false, &out.boxes);
  return out;
}

}  // namespace tool
