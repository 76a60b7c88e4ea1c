// See mix.h.
#include "weights_convert/mix.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace bg {
namespace {

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

bool is_wider_layer(int64_t layer, int64_t layers) {
  const int64_t eighth = layers / 8;
  return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

// What the table of mix.h says of a matrix, whatever its rows.
Type wanted(const TensorSpec& spec, int64_t layers, Type asked) {
  const std::string& name = spec.name;
  if (!is_quantised(asked)) return asked;
  if (name == "v.position_embd.weight") return Type::f32;
  if (name == "token_embd.weight" || name == "output.weight") return asked == Type::q4_k ? Type::q6_k : asked;
  if (!starts_with(name, "blk.")) return Type::q8_0;
  const bool sensitive = contains(name, "attn_v.") || contains(name, "ffn_down.");
  return asked == Type::q4_k && sensitive && is_wider_layer(std::stoll(name.substr(4)), layers) ? Type::q6_k : asked;
}

const char* part_of(const std::string& name) {
  if (starts_with(name, "blk.")) return "decoder layers";
  if (starts_with(name, "v.")) return "ViT";
  if (starts_with(name, "s.")) return "slide branch";
  return starts_with(name, "sel.") ? "selectors" : "embedding and output";
}

// "v.blk.12.ffn_down.weight" → "v.blk.*.ffn_down.weight"
std::string pattern_of(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool number = i > 0 && std::isdigit(static_cast<unsigned char>(name[i])) && (out.back() == '.' || out.back() == '*');
    if (!number) out += name[i];
    else if (out.back() != '*') out += '*';
  }
  return out;
}

}  // namespace

Type type_in_mix(const TensorSpec& spec, int64_t layers, Type asked) {
  if (!spec.matrix) return Type::f32;
  Type type = wanted(spec, layers, asked);
  const int64_t row = spec.shape.back();
  if (row % block_values(type) != 0) type = Type::q8_0;
  if (row % block_values(type) != 0) type = Type::bf16;
  return type;
}

std::vector<std::string> describe_mix(const std::vector<PlannedTensor>& tensors, int64_t layers, Type asked) {
  std::vector<std::string> lines;
  if (!is_quantised(asked)) return lines;
  std::vector<std::string> parts;
  std::map<std::string, std::map<std::string, int64_t>> counts;  // part → type → tensors
  std::map<std::string, int64_t> kept;
  for (const PlannedTensor& t : tensors) {
    if (!t.spec.matrix) continue;
    const std::string part = part_of(t.spec.name);
    if (counts[part][type_name(t.to)]++ == 0 && std::find(parts.begin(), parts.end(), part) == parts.end()) parts.push_back(part);
    const Type want = wanted(t.spec, layers, asked);
    if (t.to == want) continue;
    kept["rows of " + std::to_string(t.spec.shape.back()) + " are no whole " + type_name(want) + " blocks: " + pattern_of(t.spec.name) + " " + type_name(t.to)]++;
  }
  for (const std::string& part : parts) {
    std::string line;
    for (const auto& [type, n] : counts[part]) line += (line.empty() ? ": " : ", ") + type + " " + std::to_string(n);
    lines.push_back(part + line);
  }
  for (const auto& [text, n] : kept) lines.push_back(text + " (" + std::to_string(n) + ")");
  return lines;
}

}  // namespace bg
