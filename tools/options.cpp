// See options.h.
#include "tools/options.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace tool {

Options::Options(const std::string& command, const std::string& usage, const std::vector<Option>& table, int argc, char** argv) : command_(command), usage_(usage), table_(table) {
  bool only_arguments = false;
  for (int i = 0; i < argc; ++i) {
    std::string arg = argv[i];
    if (only_arguments || arg.size() < 2 || arg[0] != '-') {
      arguments_.push_back(arg);
      continue;
    }
    if (arg == "--") {
      only_arguments = true;
      continue;
    }
    if (arg == "--help" || arg == "-h") {
      help_ = true;
      continue;
    }
    std::string value;
    bool has_value = false;
    if (const size_t equals = arg.find('='); arg.compare(0, 2, "--") == 0 && equals != std::string::npos) {
      value = arg.substr(equals + 1);
      arg.resize(equals);
      has_value = true;
    }
    const auto found = std::find_if(table_.begin(), table_.end(), [&](const Option& o) { return arg == o.name || (*o.short_name && arg == o.short_name); });
    if (found == table_.end()) throw Failure{kUsage, "unknown option " + arg + "; see " + command_ + " --help"};
    const bool wants_value = *found->value;
    if (!wants_value && has_value) throw Failure{kUsage, arg + " takes no value"};
    if (wants_value && !has_value) {
      if (i + 1 == argc) throw Failure{kUsage, arg + " needs a value: " + found->value};
      value = argv[++i];
    }
    values_[found->name].push_back(value);
    given_.emplace_back(found->name, value);
  }
}

std::string Options::help_text() const {
  std::string out = "usage: " + command_ + " " + usage_ + "\n\n";
  for (const Option& o : table_) {
    std::string left = "  " + std::string(*o.short_name ? std::string(o.short_name) + ", " : "") + o.name + (*o.value ? " " : "") + o.value;
    left.resize(std::max<size_t>(left.size() + 2, 30), ' ');
    out += left + o.help + "\n";
  }
  return out + "  -h, --help                  this text\n";
}

std::string Options::text(const std::string& name, const std::string& otherwise) const { return has(name) ? values_.at(name).back() : otherwise; }

const std::vector<std::string>& Options::all(const std::string& name) const {
  static const std::vector<std::string> none;
  return has(name) ? values_.at(name) : none;
}

int64_t Options::integer(const std::string& name, int64_t otherwise, int64_t low, int64_t high) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  char* end = nullptr;
  errno = 0;
  const long long v = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end || errno || v < low || v > high)
    throw Failure{kUsage, name + " " + value + ": expected a whole number from " + std::to_string(low) + " to " + std::to_string(high)};
  return v;
}

double parse_real(const std::string& text, const std::string& what) {
  char* end = nullptr;
  const double v = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !std::isfinite(v)) throw Failure{kUsage, what + ": expected a number, got \"" + text + "\""};
  return v;
}

double Options::real(const std::string& name, double otherwise) const { return has(name) ? parse_real(text(name), name) : otherwise; }

uint64_t Options::bytes(const std::string& name) const {
  if (!has(name)) return 0;
  const std::string value = text(name);
  char* end = nullptr;
  const double v = std::strtod(value.c_str(), &end);
  const std::string unit = end;
  const double scale = unit.empty() ? 1 : unit == "K" ? 1e3 : unit == "M" ? 1e6 : unit == "G" ? 1e9 : 0;
  if (end == value.c_str() || scale == 0 || !(v > 0) || v * scale > 1e18) throw Failure{kUsage, name + " " + value + ": expected bytes such as 800M or 2G"};
  return uint64_t(v * scale);
}

std::string Options::required(const std::string& name) const {
  if (!has(name)) throw Failure{kUsage, name + " is missing; see " + command_ + " --help"};
  return text(name);
}

void check(bg_status status, const bg_error& error) {
  if (status == BG_OK) return;
  throw Failure{status == BG_CANCELLED ? kInterrupted : kFailed, std::string(error.message)};
}

}  // namespace tool
