// One item through the model: a fresh session, its media, the options scored, the greedy answer, its boxes. In: Item. Out: Record. Not here: which items,
// files of records.
#pragma once
#include <string>
#include <vector>

#include "tools/bench/item.h"
#include "tools/bench/record.h"
#include "tools/session.h"

namespace tool {

struct RunnerSettings {
  bg_session_params session{};  // its strings and callbacks outlive the runner
  bg_image_params image{};
  bg_volume_params volume{};
  int64_t slide_tokens = 0;
  int64_t max_pixels = 0;
  int64_t max_tokens = 1024;
};

// What cannot be answered becomes a skipped record. Throws Failure for what is not the item's fault: a defect of the library, memory that ran out, an
// interruption.
Record answer_item(const bg_model* model, const RunnerSettings& settings, const Item& item);

}  // namespace tool
