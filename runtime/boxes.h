// Boxes in the model's text → source pixels or voxels. MODEL.md §5b (spec/prompt.md "Boxes"). In: an answer's raw text with its special tokens written out
// (<|box_start|> …). Out: boxes with their labels, in numbers 0 … 1000 and in source units. Not here: drawing (loaders/draw.h).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bg {

struct Box {
  // Between <|object_ref_start|> and <|object_ref_end|> right before it (only spaces, commas, semicolons, square brackets and other boxes between), or "".
  // Outer spaces removed, at most 256 bytes.
  std::string label;
  int dimensions = 2;         // 2: x, y; 3: x, y, z
  bool point = false;         // a single position, low == high
  double low[3] = {0, 0, 0}, high[3] = {0, 0, 0};  // 0 … 1000 as written, corners ordered
  bool swapped = false;       // the corners had to be ordered
  bool outside = false;       // a value outside 0 … 1000, kept as written
  size_t at = 0, length = 0;  // bytes of the form in the text: from <|box_start|> or the first bracket to its end, without the name
};

// Every form of spec/prompt.md: <|box_start|>(x1,y1),(x2,y2)<|box_end|>, points, 3-D, with or without object_ref names, plain [x1, y1, x2, y2] (six
// numbers: 3-D) and (x1,y1),(x2,y2). What exactly counts stands in boxes.cpp. Time and memory are linear in the text.
std::vector<Box> find_boxes(std::string_view text);

// 0 … 1000 → source units: v/1000·size, x by width, y by height, z by slices. size: (width, height, slices).
struct SourceBox {
  double low[3] = {0, 0, 0}, high[3] = {0, 0, 0};  // pixels or voxels, edges
};
// A 2-D box in a volume reaches through all slices. Throws Error for a size below 1 along an axis that the box has.
SourceBox to_source(const Box& box, const int64_t size[3]);
// The reverse, as the training data wrote it: round_half_even(v/size·1000). Throws Error when v is not finite or size < 1.
int64_t to_thousandths(double v, int64_t size);

}  // namespace bg
