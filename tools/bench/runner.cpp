// See runner.h. Read ask(): it is the whole path of an item.
#include "tools/bench/runner.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>

#include "tools/bench/metrics.h"

namespace tool {
namespace {

// A call about this item. Its own faults skip it; after the library's defects and without memory the next items would do no better.
void need(bg_status status, const bg_error& error) {
  if (status == BG_OK) return;
  const std::string message = error.message;
  if (status == BG_CANCELLED) throw Failure{kInterrupted, message};
  if (status == BG_INTERNAL || message == "out of memory") throw Failure{kFailed, message};
  throw Refused{message};
}

bool is_slide(const std::string& path) {
  for (const std::string ending : {".h5", ".safetensors"}) {
    if (path.size() < ending.size()) continue;
    const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
    if (std::equal(path.end() - std::ptrdiff_t(ending.size()), path.end(), ending.begin(), same)) return true;
  }
  return false;
}

MediumFile open_medium(const std::string& path, bool video, int64_t max_pixels) {
  bg_error error;
  MediumFile file;
  file.path = path;
  file.kind = video ? BG_VOLUME : is_slide(path) ? BG_SLIDE : BG_IMAGE;
  if (file.kind == BG_VOLUME) {
    bg_volume_file* p = nullptr;
    need(bg_volume_file_open(path.c_str(), &p, &error), error);
    file.volume.reset(p);
  } else if (file.kind == BG_SLIDE) {
    bg_slide_file* p = nullptr;
    need(bg_slide_file_open(path.c_str(), &p, &error), error);
    file.slide.reset(p);
  } else {
    bg_image_file* p = nullptr;
    need(bg_image_file_open(path.c_str(), max_pixels, &p, &error), error);
    file.image.reset(p);
  }
  return file;
}

void add(bg_session* session, const MediumFile& file, const RunnerSettings& settings) {
  bg_error error;
  if (file.kind == BG_IMAGE) need(bg_session_add_image(session, bg_image_file_pixels(file.image.get()), &settings.image, &error), error);
  if (file.kind == BG_VOLUME) need(bg_session_add_volume(session, bg_volume_file_voxels(file.volume.get()), &settings.volume, &error), error);
  if (file.kind == BG_SLIDE) {
    const bg_slide slide = {sizeof slide, bg_slide_file_tiles(file.slide.get()), bg_slide_file_width(file.slide.get()), bg_slide_file_features(file.slide.get())};
    need(bg_session_add_slide(session, &slide, settings.slide_tokens, &error), error);
  }
}

// Pictures and slides, then volumes: the order that "image_id" counts.
std::vector<MediumFile> open_files(const Item& item, int64_t max_pixels) {
  std::vector<MediumFile> files;
  for (const std::string& path : item.images) files.push_back(open_medium(path, false, max_pixels));
  for (const std::string& path : item.videos) files.push_back(open_medium(path, true, max_pixels));
  return files;
}

std::vector<MediumExtent> extents_of(const std::vector<MediumFile>& files) {
  std::vector<MediumExtent> extents;
  for (const MediumFile& file : files) {
    const bg_medium_size size = file.size();
    extents.push_back(file.kind == BG_SLIDE ? MediumExtent{0, 0, 0} : MediumExtent{size.width, size.height, size.depth});
  }
  return extents;
}

int64_t markers(const std::string& text, const std::vector<std::string>& names) {
  int64_t n = 0;
  for (const std::string& name : names)
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + name.size())) ++n;
  return n;
}

// Hands each turn the media that its text marks, the first one also those that nothing marks (spec: they come before the first user text).
class Queue {
 public:
  Queue(std::vector<MediumFile*> files, std::vector<std::string> names, const Item& item) : files_(std::move(files)), names_(std::move(names)) {
    free_ = int64_t(files_.size()) - markers(item.question, names_);
    for (const Item::Turn& turn : item.earlier) free_ -= markers(turn.question, names_);
  }
  void add_for(const std::string& question, bg_session* session, const RunnerSettings& settings) {
    int64_t count = markers(question, names_) + std::max<int64_t>(free_, 0);
    free_ = 0;
    for (; count > 0 && next_ < files_.size(); --count, ++next_) {
      add(session, *files_[next_], settings);
      *files_[next_] = {};  // its pixels are no longer needed
    }
  }

 private:
  std::vector<MediumFile*> files_;
  std::vector<std::string> names_;
  int64_t free_ = 0;
  size_t next_ = 0;
};

void score(bg_session* session, Record& record) {
  std::vector<const char*> texts;
  for (const std::string& option : record.options) texts.push_back(option.c_str());
  const bg_score* scores = nullptr;
  bg_error error;
  need(bg_session_score(session, record.question.c_str(), texts.data(), int64_t(texts.size()), &scores, &error), error);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!std::isfinite(scores[i].probability)) throw Refused{"the model gives option " + std::to_string(i + 1) + " no probability (not a number)"};
    record.option_probabilities.push_back(scores[i].probability);
  }
}

void read_boxes(bg_session* session, Record& record) {
  const bg_box* boxes = nullptr;
  int64_t count = 0;
  bg_error error;
  need(bg_session_boxes(session, &boxes, &count, &error), error);
  for (int64_t i = 0; i < count; ++i) {
    const bg_box& b = boxes[i];
    RecordBox box;
    box.label = b.label;
    box.dimensions = b.dimensions;
    box.medium = b.medium;
    // Coordinates of any size may be written; beyond ±1e9 they are equally wrong, and products of them would overflow.
    for (int axis = 0; axis < b.dimensions; ++axis) {
      box.low[axis] = std::clamp(b.low[axis], -1e9, 1e9);
      box.high[axis] = std::clamp(b.high[axis], -1e9, 1e9);
    }
    record.boxes.push_back(std::move(box));
  }
}

void ask(const bg_model* model, const RunnerSettings& settings, const Item& item, Record& record) {
  if (!item.refused.empty()) throw Refused{item.refused};
  bg_error error;
  bg_session* opened = nullptr;
  check(bg_session_open(model, &settings.session, &opened, &error), error);
  const SessionPtr session(opened);
  if (!item.system.empty()) need(bg_session_system(session.get(), item.system.c_str(), &error), error);
  std::vector<MediumFile> files = open_files(item, settings.max_pixels);
  const Expanded text = expand(item, extents_of(files));
  std::vector<MediumFile*> flat, deep;  // markers of pictures and slides, and of volumes
  for (MediumFile& file : files) (file.kind == BG_VOLUME ? deep : flat).push_back(&file);
  Queue pictures(flat, {"<image>", "<slide>"}, item), volumes(deep, {"<video>", "<volume>"}, item);
  const auto add_for = [&](const std::string& question) {
    pictures.add_for(question, session.get(), settings);
    volumes.add_for(question, session.get(), settings);
  };
  for (size_t i = 0; i < text.earlier.size(); ++i) {
    add_for(item.earlier[i].question);
    need(bg_session_given(session.get(), text.earlier[i].question.c_str(), text.earlier[i].answer.c_str(), &error), error);
  }
  add_for(item.question);
  if (text.question.size() > kMostRecordText || text.reference.size() > kMostRecordText)
    throw Refused{"question or reference answer longer than " + std::to_string(kMostRecordText) + " bytes"};
  record.question = text.question;
  record.reference = text.reference;
  record.reference_boxes = text.boxes;

  if (!record.options.empty()) score(session.get(), record);
  bg_generation how = bg_generation_default();  // greedy
  how.max_tokens = settings.max_tokens;
  const bg_answer* answer = nullptr;
  need(bg_session_ask(session.get(), record.question.c_str(), &how, nullptr, nullptr, &answer, &error), error);
  record.prediction = answer->text;
  if (record.prediction.size() > kMostRecordText)
    throw Refused{"the answer has " + std::to_string(record.prediction.size()) + " bytes; at most " + std::to_string(kMostRecordText) + " are kept"};
  record.stopped = answer->stopped;
  double sum = 0;
  for (int64_t i = 0; i < answer->count; ++i) sum += answer->logprobs[i];
  if (answer->count > 0) record.mean_logprob = sum / double(answer->count);
  read_boxes(session.get(), record);
}

// What is known of an item before it is asked.
Record blank(const Item& item) {
  Record r;
  r.index = item.index;
  r.id = item.id;
  r.stage = item.stage;
  r.modality = item.modality;
  r.task = item.task;
  r.template_id = item.template_id;
  r.vendor = item.vendor;
  r.density = item.density;
  r.question = item.question;
  r.reference = item.reference;
  r.options = item.options;
  for (size_t i = 0; i < r.options.size() && r.reference_option < 0; ++i)
    if (closed_equal(r.reference, r.options[i], r.options, r.question)) r.reference_option = int64_t(i);
  r.mean_logprob = std::numeric_limits<double>::quiet_NaN();
  return r;
}

}  // namespace

Record answer_item(const bg_model* model, const RunnerSettings& settings, const Item& item) {
  Record record = blank(item);
  try {
    ask(model, settings, item, record);
  } catch (const Refused& r) {
    record = blank(item);
    record.skipped = r.why;
  } catch (const Failure& f) {
    throw Failure{f.code, "item " + std::to_string(item.index) + " (" + item.id + "): " + f.message};
  }
  return record;
}

}  // namespace tool
