#include "tools/bench/plots.h"

#include <algorithm>
#include <cmath>

#include "tools/bench/report_tables.h"

namespace tool {
namespace {

const char* const kInk = "#334155";
const char* const kGrid = "#e2e8f0";
const char* const kFill = "#5b8def";
const char* const kMark = "#c2410c";

std::string px(double x) { return fixed(x, 1); }

std::string open_svg(double width, double height, const std::string& what) {
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"" + html_escaped(what) + "\" width=\"" + px(width) + "\" height=\"" + px(height) +
         "\" viewBox=\"0 0 " + px(width) + " " + px(height) + "\" font-family=\"sans-serif\" font-size=\"12\">\n";
}
std::string line(double x1, double y1, double x2, double y2, const char* colour, double width, const char* more = "") {
  return "<line x1=\"" + px(x1) + "\" y1=\"" + px(y1) + "\" x2=\"" + px(x2) + "\" y2=\"" + px(y2) + "\" stroke=\"" + colour + "\" stroke-width=\"" + px(width) + "\"" + more + "/>\n";
}
std::string rect(double x, double y, double w, double h, const char* colour) {
  return "<rect x=\"" + px(x) + "\" y=\"" + px(y) + "\" width=\"" + px(w) + "\" height=\"" + px(h) + "\" fill=\"" + colour + "\"/>\n";
}
std::string text(double x, double y, const std::string& s, const char* anchor = "start", const char* more = "") {
  return "<text x=\"" + px(x) + "\" y=\"" + px(y) + "\" text-anchor=\"" + anchor + "\" fill=\"" + kInk + "\"" + more + ">" + html_escaped(s) + "</text>\n";
}

// A square diagram with both axes 0 … 1 (or 0 … top on y).
struct Frame {
  double left = 56, right = 376, top = 16, bottom = 276, most = 1;
  double x(double v) const { return left + v * (right - left); }
  double y(double v) const { return bottom - v / most * (bottom - top); }
  std::string open(const std::string& what, const std::string& x_title, const std::string& y_title, int y_digits) const {
    std::string s = open_svg(right + 20, bottom + 46, what);
    for (int i = 0; i <= 5; ++i) {
      const double v = i / 5.0;
      s += line(left, y(v * most), right, y(v * most), kGrid, 1);
      s += text(x(v), bottom + 16, fixed(v, 1), "middle");
      s += text(left - 6, y(v * most) + 4, fixed(v * most, y_digits), "end");
    }
    s += text((left + right) / 2, bottom + 36, x_title, "middle");
    s += "<g transform=\"rotate(-90 14 " + px((top + bottom) / 2) + ")\">" + text(14, (top + bottom) / 2, y_title, "middle") + "</g>\n";
    return s;
  }
};

}  // namespace

std::string html_escaped(const std::string& s) {
  std::string out;
  for (char c : s) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c == '\'') out += "&#39;";
    else if ((uint8_t(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F) out += "\xEF\xBF\xBD";
    else out += c;
  }
  return out;
}

std::string bars_svg(const std::vector<BarSection>& sections) {
  constexpr double left = 230, right = 630, row = 20, head = 30, width = 800;
  double height = 32;
  for (const BarSection& s : sections) height += (s.title.empty() ? 0 : head) + row * double(s.bars.size());
  const auto x = [&](double v) { return left + std::clamp(v, 0.0, 1.0) * (right - left); };
  std::string out = open_svg(width, height, "bars with 95 % intervals; mark: majority answer");
  for (int i = 0; i <= 5; ++i) {
    out += line(x(i / 5.0), 6, x(i / 5.0), height - 20, kGrid, 1);
    out += text(x(i / 5.0), height - 6, fixed(i / 5.0, 1), "middle");
  }
  double y = 6;
  for (const BarSection& s : sections) {
    if (!s.title.empty()) {
      out += text(8, y + 20, s.title, "start", " font-weight=\"bold\"");
      y += head;
    }
    for (const Bar& b : s.bars) {
      const double middle = y + row / 2;
      out += text(left - 8, middle + 4, cut(b.label.empty() ? "(not known)" : b.label, 32), "end");
      out += rect(left, y + 4, x(b.value) - left, row - 8, kFill);
      if (b.low >= 0) {
        out += line(x(b.low), middle, x(b.high), middle, kInk, 1.5);
        for (double end : {b.low, b.high}) out += line(x(end), middle - 4, x(end), middle + 4, kInk, 1.5);
      }
      if (b.baseline >= 0) out += line(x(b.baseline), y + 2, x(b.baseline), y + row - 2, kMark, 3);
      out += text(right + 12, middle + 4, fixed(b.value, 3) + "  (n " + std::to_string(b.n) + ")");
      y += row;
    }
  }
  return out + "</svg>\n";
}

std::string reliability_svg(const Calibration& calibration) {
  const Frame f;
  std::string out = f.open("accuracy over confidence", "confidence (mean of the bin)", "accuracy", 1);
  out += line(f.x(0), f.y(0), f.x(1), f.y(1), kInk, 1, " stroke-dasharray=\"4 4\"");
  for (const Bin& b : calibration.bins) {
    if (b.n == 0) continue;
    const Share s{b.correct, b.n};
    const double x = f.x(b.confidence_sum / double(b.n));
    out += line(x, f.y(s.low()), x, f.y(s.high()), kInk, 1.5);
    out += "<circle cx=\"" + px(x) + "\" cy=\"" + px(f.y(s.value())) + "\" r=\"4.5\" fill=\"" + kFill + "\"><title>n " + std::to_string(b.n) + "</title></circle>\n";
  }
  return out + "</svg>\n";
}

std::string abstention_svg(const Abstention& abstention) {
  const Frame f;
  const size_t n = abstention.accuracy.size();
  std::string out = f.open("accuracy over coverage", "coverage (share of items answered, surest first)", "accuracy", 1), points;
  const size_t steps = std::min<size_t>(n, 400);  // as many points as can be seen
  for (size_t i = 1; i <= steps; ++i) {
    const size_t taken = n * i / steps;
    points += px(f.x(double(taken) / double(n))) + "," + px(f.y(abstention.accuracy[taken - 1])) + " ";
  }
  out += "<circle cx=\"" + px(f.x(1)) + "\" cy=\"" + px(f.y(abstention.accuracy.back())) + "\" r=\"3.5\" fill=\"" + kFill + "\"/>\n";
  return out + "<polyline points=\"" + points + "\" fill=\"none\" stroke=\"" + kFill + "\" stroke-width=\"2\"/>\n</svg>\n";
}

std::string histogram_svg(const std::vector<double>& values, const std::string& x_title) {
  int64_t counts[kBins] = {};
  for (double v : values) ++counts[std::clamp(int(v * kBins), 0, kBins - 1)];
  Frame f;
  f.most = std::ceil(double(std::max<int64_t>(1, *std::max_element(counts, counts + kBins))) / 5) * 5;  // whole numbers at the grid lines
  std::string out = f.open("histogram", x_title, "boxes", 0);
  for (int i = 0; i < kBins; ++i) {
    const double x = f.x(i / double(kBins)), wide = f.x((i + 1) / double(kBins)) - x;
    out += rect(x + 1, f.y(double(counts[i])), wide - 2, f.bottom - f.y(double(counts[i])), kFill);
    if (counts[i] > 0) out += text(x + wide / 2, f.y(double(counts[i])) - 3, std::to_string(counts[i]), "middle", " font-size=\"10\"");
  }
  return out + "</svg>\n";
}

}  // namespace tool
