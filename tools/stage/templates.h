// Task templates: data files that say which question is asked of which rows, and what its answer is.
// In: .json files. Out: Template. Not here: rows (csv.h), the items that come of both (build.h).
//   {"words": {"assess": {"2": "benign finding"}},                       maps from a value to its wording, for {column|assess}
//    "templates": [{"id": "us.shape", "stage": "screening", "modality": "ultrasound", "task": "closed_vqa",
//      "media": ["image"],                                               columns whose files are shown, in this order
//      "when": {"mass": ["yes"], "shape": ["*"]},                        column → allowed values; "*": any but empty, "": empty
//      "ask": ["What shape is the mass?"],                               wordings of the question
//      "options": ["oval", "round"],                                     closed_vqa only: what the answer may be
//      "ref": {"mass_box": "mass"},                                      what a box of that column is called
//      "answer": "{shape}"}]}                                            or a list of parts: "text" or {"when": {...}, "text": "..."}
// {column}: the value. {column|map}: its wording. {box:column}: the box of that column. {{ and }}: braces.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tools/stage/text.h"

namespace stage {

using Words = std::map<std::string, std::string>;

struct Piece {
  enum Kind { literal, value, box } kind = literal;
  std::string text;                   // the text, or the column
  std::string map;                    // value: the map's name, or ""
  std::shared_ptr<const Words> words;  // of that name
};
using Text = std::vector<Piece>;

struct Condition {
  std::string column;
  std::vector<std::string> allowed;  // "*": any but empty
};

struct Part {
  std::vector<Condition> when;
  Text text;
};

struct Template {
  std::string file, id, stage, modality, task;
  std::vector<std::string> media;  // of image, slide, volume
  std::vector<Condition> when;
  std::vector<Text> ask;
  std::vector<std::string> options;
  std::vector<Part> answer;
  std::map<std::string, std::string> ref;

  std::string where() const;  // file and id, for messages
};

const std::vector<std::string>& stages();
const std::vector<std::string>& tasks();

// Each path is a .json file or a folder, which means its .json files sorted by name. Throws tool::Failure for a file that cannot be read at all;
// what is wrong with a template goes to `problems`. `files` counts the files read.
std::vector<Template> read_templates(const std::vector<std::string>& paths, Problems& problems, size_t& files);

}  // namespace stage
