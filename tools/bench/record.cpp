// Records to JSON and back. What comes back was a file in between: every field is checked.
#include "tools/bench/record.h"

#include <cmath>
#include <limits>

#include "loaders/error.h"
#include "loaders/json_text.h"
#include "tools/options.h"

namespace tool {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

constexpr size_t kMostOptions = 1000, kMostBoxes = 10000;

// The fields of one JSON object, taken by name; what is missing or of another type is an error that starts with `where`.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("expected a JSON object");
  }

  [[noreturn]] void fail(const std::string& what) const { throw Failure{kFailed, where_ + ": " + what + "; delete the line, and its item is answered again"}; }

  const Json& get(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(std::string("\"") + key + "\" is missing");
    return *found;
  }
  std::string text(const char* key) const { return text(get(key), key); }
  std::string text(const Json& value, const char* key) const {
    if (!value.is_string()) fail(std::string("\"") + key + "\" must be a text");
    if (value.get_ref<const std::string&>().size() > kMostRecordText) fail(std::string("\"") + key + "\" is longer than " + std::to_string(kMostRecordText) + " bytes");
    return value;
  }
  int64_t integer(const char* key, int64_t low, int64_t high) const {
    const Json& v = get(key);
    const bool whole = v.is_number_integer() && !(v.is_number_unsigned() && v.get<uint64_t>() > uint64_t(INT64_MAX));
    if (!whole || v.get<int64_t>() < low || v.get<int64_t>() > high)
      fail(std::string("\"") + key + "\" must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return v.get<int64_t>();
  }
  double real(const Json& v, const char* key) const {
    if (!v.is_number() || !std::isfinite(v.get<double>())) fail(std::string("\"") + key + "\" must hold finite numbers");
    return v.get<double>();
  }
  const Json& array(const char* key, size_t most) const {
    const Json& v = get(key);
    if (!v.is_array() || v.size() > most) fail(std::string("\"") + key + "\" must be a list of at most " + std::to_string(most) + " values");
    return v;
  }

 private:
  const Json& object_;
  std::string where_;
};

Ordered boxes_to_json(const std::vector<RecordBox>& boxes) {
  Ordered list = Ordered::array();
  for (const RecordBox& b : boxes) {
    Ordered corners = Ordered::array();
    for (int i = 0; i < b.dimensions; ++i) corners.push_back(b.low[i]);
    for (int i = 0; i < b.dimensions; ++i) corners.push_back(b.high[i]);
    list.push_back({{"label", b.label}, {"box", corners}, {"medium", b.medium}});
  }
  return list;
}

std::vector<RecordBox> boxes_from_json(const Fields& record, const char* key, const std::string& where) {
  std::vector<RecordBox> boxes;
  for (const Json& v : record.array(key, kMostBoxes)) {
    const Fields fields(v, where + ": \"" + key + "\"");
    RecordBox b;
    b.label = fields.text("label");
    b.medium = fields.integer("medium", -1, INT32_MAX);
    const Json& corners = fields.array("box", 6);
    if (corners.size() != 4 && corners.size() != 6) fields.fail("\"box\" must hold 4 or 6 numbers");
    b.dimensions = int(corners.size() / 2);
    for (int i = 0; i < b.dimensions; ++i) {
      b.low[i] = fields.real(corners[size_t(i)], "box");
      b.high[i] = fields.real(corners[size_t(i + b.dimensions)], "box");
      // Far beyond 0 … 1000 a product of sides would overflow.
      if (!(b.low[i] <= b.high[i]) || !(std::fabs(b.low[i]) <= 1e9) || !(std::fabs(b.high[i]) <= 1e9)) fields.fail("\"box\" must hold low corner, high corner, each within ±1e9");
    }
    boxes.push_back(std::move(b));
  }
  return boxes;
}

}  // namespace

Ordered to_json(const Record& r) {
  Ordered j;
  j["index"] = r.index;
  j["id"] = r.id;
  j["stage"] = r.stage;
  j["modality"] = r.modality;
  j["task"] = r.task;
  j["template"] = r.template_id;
  j["vendor"] = r.vendor;
  j["density"] = r.density;
  j["question"] = r.question;
  j["reference"] = r.reference;
  j["prediction"] = r.prediction;
  j["options"] = r.options;
  j["option_probabilities"] = r.option_probabilities;
  j["reference_option"] = r.reference_option;
  j["stopped"] = r.stopped;
  j["mean_logprob"] = std::isfinite(r.mean_logprob) ? Ordered(r.mean_logprob) : Ordered(nullptr);
  j["boxes"] = boxes_to_json(r.boxes);
  j["reference_boxes"] = boxes_to_json(r.reference_boxes);
  j["skipped"] = r.skipped;
  return j;
}

std::string to_line(const Record& record) { return to_json(record).dump(-1, ' ', false, Ordered::error_handler_t::replace); }

Record record_from_json(const std::string& line, const std::string& where) {
  Json root;
  try {
    root = bg::parse_json(line, where);
  } catch (const bg::Error& e) {
    throw Failure{kFailed, e.what()};
  }
  const Fields f(root, where);
  Record r;
  r.index = f.integer("index", 0, INT64_MAX);
  r.id = f.text("id");
  r.stage = f.text("stage");
  r.modality = f.text("modality");
  r.task = f.text("task");
  r.template_id = f.text("template");
  r.vendor = f.text("vendor");
  r.density = f.text("density");
  r.question = f.text("question");
  r.reference = f.text("reference");
  r.prediction = f.text("prediction");
  for (const Json& v : f.array("options", kMostOptions)) r.options.push_back(f.text(v, "options"));
  double sum = 0;
  for (const Json& v : f.array("option_probabilities", kMostOptions)) {
    const double p = f.real(v, "option_probabilities");
    if (!(p >= 0 && p <= 1)) f.fail("\"option_probabilities\" must lie in 0 … 1");
    r.option_probabilities.push_back(p);
    sum += p;
  }
  if (!r.option_probabilities.empty() && (r.option_probabilities.size() != r.options.size() || !(std::fabs(sum - 1) <= 1e-6)))
    f.fail("\"option_probabilities\" must be one per option, with sum 1");
  r.reference_option = f.integer("reference_option", -1, int64_t(r.options.size()) - 1);
  r.stopped = int(f.integer("stopped", 0, 1));
  const Json& logprob = f.get("mean_logprob");
  r.mean_logprob = logprob.is_null() ? std::numeric_limits<double>::quiet_NaN() : f.real(logprob, "mean_logprob");
  r.boxes = boxes_from_json(f, "boxes", where);
  r.reference_boxes = boxes_from_json(f, "reference_boxes", where);
  r.skipped = f.text("skipped");
  return r;
}

}  // namespace tool
