// One entry of a BreastStage-Bench file (messages, images, videos, objects, our own optional "meta") → an item that can be asked. In: a parsed JSON
// value. Out: Item, refused with a reason where it breaks the format; expand() puts names and boxes into the text once the media's sizes are known.
// Not here: files (dataset.h), the model (runner.h).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "tools/bench/record.h"

namespace tool {

// An item that cannot be asked; the run goes on without it.
struct Refused {
  std::string why;
};

// Where media are. --root DIR: relative paths are below it (several: the first that has the file); --root OLD=NEW: a path that begins with the folders
// OLD begins with NEW instead (the first that fits).
class Roots {
 public:
  explicit Roots(const std::vector<std::string>& given);  // throws Failure{kUsage}
  std::string find(const std::string& path, const std::string& data_folder) const;

 private:
  std::vector<std::pair<std::string, std::string>> rewrites_;
  std::vector<std::string> folders_;
};

struct Item {
  int64_t index = 0;                         // over all data files, from 0
  std::string id, stage, modality, task;     // "unknown" where nothing says
  std::string template_id, vendor, density;  // "": not known
  std::string system, question, reference;   // as in the file: <ref-object> and <bbox> still stand
  struct Turn {
    std::string question, answer;
  };
  std::vector<Turn> earlier;                 // turns before the last one, which is asked: they are given to the model as they stand
  std::vector<std::string> images, videos;   // paths after Roots; an .h5 or .safetensors among the images is a slide
  std::vector<std::string> options;          // possible answers of a closed question
  std::vector<std::string> names;            // for <ref-object>, in order
  std::vector<std::vector<double>> boxes;    // for <bbox>: x1 y1 x2 y2 or x1 y1 z1 x2 y2 z2
  std::vector<int64_t> box_media;            // of each box: images, then videos
  bool fractions = false;                    // bbox_type "norm1": 0 … 1; otherwise pixels or voxels of the medium as stored
  std::string refused;                       // why it cannot be asked; "": it can
};

struct Labels {  // for entries that do not say; "": not given
  std::string stage, modality, task;
};

// Never throws for what the entry holds. folder: of the data file; id: for entries without one.
Item read_item(const nlohmann::json& entry, const std::string& id, const std::string& folder, const Labels& labels, const Roots& roots);

// Width, height, depth of a medium as stored; depth 1 for pictures, all 0 for slides (they have no pixel frame).
using MediumExtent = std::array<int64_t, 3>;

struct Expanded {
  std::vector<Item::Turn> earlier;  // questions and answers with all tokens, as in the training data
  std::string question;  // with <|object_ref_start|> … and <|box_start|> … as in the training data
  std::string reference; // without these tokens, as the runtime gives an answer's text
  std::vector<RecordBox> boxes;  // of the reference
};
// Throws Refused for a box that does not fit its medium.
Expanded expand(const Item& item, const std::vector<MediumExtent>& media);

}  // namespace tool
