// Inline SVG for the report: bars with intervals, reliability diagram, abstention curve, histogram. In: numbers and names. Out: an <svg> element,
// numbers with fixed decimals. Not here: what is plotted.
#pragma once
#include <string>
#include <vector>

#include "tools/bench/metrics.h"

namespace tool {

// Text as it may stand in HTML and SVG, in elements and quoted attributes.
std::string html_escaped(const std::string& text);

struct Bar {
  std::string label;
  double value = 0;           // 0 … 1
  double low = -1, high = -1;  // interval; −1: none
  double baseline = -1;       // the majority answer's value; −1: none
  int64_t n = 0;
};
struct BarSection {
  std::string title;  // "": no line of its own
  std::vector<Bar> bars;
};
std::string bars_svg(const std::vector<BarSection>& sections);
std::string reliability_svg(const Calibration& calibration);
std::string abstention_svg(const Abstention& abstention);
// Ten equal bins of 0 … 1.
std::string histogram_svg(const std::vector<double>& values, const std::string& x_title);

}  // namespace tool
