// Boxes against boxes: intersection over union, the best pairing, the median box of the majority baseline.
// In: boxes in 0 … 1000 of their medium. Not here: parsing of boxes (runtime/boxes.h), counting over records.
#pragma once
#include <vector>

#include "tools/bench/record.h"

namespace tool {

// Area (2-D) or volume (3-D) of the intersection over that of the union. 0 for boxes of different dimension, on different media (when both are known),
// and where the union is empty (two points).
double box_iou(const RecordBox& a, const RecordBox& b);

// IoU of each reference box with the predicted box paired with it, 0 where none is: the one-to-one pairing with the largest sum of IoU, labels not
// looked at. The first 200 boxes of either side take part.
std::vector<double> paired_iou(const std::vector<RecordBox>& reference, const std::vector<RecordBox>& predicted);

// Each coordinate's median over boxes of one dimension (of an even number: the mean of the middle two). `boxes` is not empty.
RecordBox median_box(const std::vector<RecordBox>& boxes);

}  // namespace tool
