// BreastStage-Bench files → items. In: paths of JSON arrays or JSONL files, told by their first character. Out: all their items in order, and each file's
// hash. A file that is no JSON is an error with line and byte; an entry that only breaks the format is an item with a reason (item.h).
#pragma once
#include <string>
#include <vector>

#include "tools/bench/item.h"

namespace tool {

struct DataFile {
  std::string name;    // without folders: parts of one run may be made where the folders differ
  std::string sha256;  // of its bytes
};

struct Dataset {
  std::vector<DataFile> files;
  std::vector<Item> items;
};

// limit: the first items only, 0: all. Throws Failure{kFailed}.
Dataset read_dataset(const std::vector<std::string>& paths, const Labels& labels, const Roots& roots, int64_t limit);

}  // namespace tool
