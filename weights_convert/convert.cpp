// The converter's story: read the small files (or the header of a weights file), plan, hash the inputs, write the header, stream the tensors, fill in
// their hashes, rename.
#include "weights_convert/convert.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "kernels/cpu/threads.h"
#include "kernels/panels.h"
#include "loaders/cursor.h"
#include "loaders/error.h"
#include "loaders/gguf.h"
#include "loaders/new_file.h"
#include "loaders/safetensors.h"
#include "loaders/sha256.h"
#include "runtime/config_fields.h"
#include "weights_convert/checkpoint_config.h"
#include "weights_convert/elements.h"
#include "weights_convert/gguf_writer.h"
#include "weights_convert/mix.h"
#include "weights_convert/quantise.h"
#include "weights_convert/tensor_plan.h"

namespace bg {
namespace {

constexpr uint64_t piece_elements = 1 << 20;  // streamed at a time, or one panel if that has more: at most 4 MiB in, as much out and in each step between
constexpr uint64_t piece_bytes = 4 << 20;
const std::string hash_to_come(64, '0');

class Progress {
 public:
  Progress(const ConvertOptions& options, uint64_t total) : options_(options), total_(total) {}
  void add(const char* phase, uint64_t bytes) {
    done_ += bytes;
    if (options_.progress && !options_.progress(phase, done_, total_)) throw Error(Status::cancelled, options_.target +
        ": conversion was cancelled; nothing was left behind");
  }

 private:
  const ConvertOptions& options_;
  uint64_t done_ = 0, total_;
};

// The field's numbers of general.file_type.
int64_t file_type(Type asked) {
  switch (asked) {
    case Type::f32: return 0;
    case Type::f16: return 1;
    case Type::q8_0: return 7;
    case Type::q4_k: return 15;
    case Type::q6_k: return 18;
    default: return 32;
  }
}

struct Input {
  std::unique_ptr<Safetensors> checkpoint;  // one of these two holds the tensors
  std::unique_ptr<Gguf> file;
  std::string name;                         // general.name
  CheckpointConfig config;
  TensorPlan plan;
  int64_t file_type = 0;                    // general.file_type
  std::vector<std::string> paths;           // every file that was read, the small ones first, then the shards in order
};

std::string base_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

Input read_folder(const std::string& folder, Type asked, Layout layout) {
  Input in;
  in.checkpoint = std::make_unique<Safetensors>(folder);
  in.name = base_name(std::filesystem::weakly_canonical(folder));
  in.config = read_checkpoint_config(folder, vocabulary_rows(*in.checkpoint, folder));
  in.plan = plan_tensors(*in.checkpoint, in.config.config, asked, layout, folder);
  in.file_type = file_type(asked);
  for (const std::string& name : in.config.files) in.paths.push_back(folder + "/" + name);
  if (!in.checkpoint->index_path().empty()) in.paths.push_back(in.checkpoint->index_path());
  for (const auto& file : in.checkpoint->files()) in.paths.push_back(file->path());
  return in;
}

// Everything but the tensors comes over as it is.
Input read_weights_file(const std::string& path, std::optional<Type> asked, Layout layout) {
  Input in;
  in.file = std::make_unique<Gguf>(path);
  const Gguf& f = *in.file;
  in.config.config = read_config(f);
  in.name = f.has("general.name") ? std::string(f.text("general.name")) : base_name(path);
  in.plan = plan_tensors(f, in.config.config, asked, layout);
  in.file_type = asked ? file_type(*asked) : f.has("general.file_type") ? f.integer("general.file_type") : file_type(Type::bf16);
  for (const std::string_view t : f.texts("tokenizer.ggml.tokens")) in.config.tokenizer.tokens.emplace_back(t);
  for (const int64_t t : f.integers("tokenizer.ggml.token_type")) in.config.tokenizer.types.push_back(int32_t(t));
  for (const std::string_view m : f.texts("tokenizer.ggml.merges")) in.config.tokenizer.merges.emplace_back(m);
  if (f.has("tokenizer.chat_template")) in.config.chat_template = std::string(f.text("tokenizer.chat_template"));
  in.paths = {path};
  return in;
}

Input read_input(const ConvertOptions& o) {
  const std::string& path = o.input;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return read_folder(path, o.matrices.value_or(Type::bf16), o.layout);
  if (std::filesystem::path(path).extension() == ".gguf") return read_weights_file(path, o.matrices, o.layout);
  throw Error(Status::not_found, path + ": is not a folder, nor a .gguf file; give the folder of a published checkpoint (config.json, *.safetensors, tokenizer.json)");
}

std::vector<std::string> hash_inputs(const std::vector<std::string>& paths, Progress& progress) {
  std::vector<std::string> all;
  for (const std::string& path : paths) {
    const MappedFile file(path);
    Sha256 hash;
    for (uint64_t at = 0; at < file.size(); at += piece_bytes) {
      const uint64_t n = std::min<uint64_t>(piece_bytes, file.size() - at);
      hash.update(file.data() + at, n);
      file.forget(at, n);
      progress.add("hashing", n);
    }
    all.push_back(base_name(path) + " " + hash.hex());
  }
  return all;
}

struct ConfigWriter {
  GgufHeader& header;
  void text(const char* key, const std::string& v) const { header.text(key, v); }
  void integer(const char* key, int64_t v) const { header.integer(key, v); }
  void later(const char* key, int64_t v) const { header.integer(key, v); }
  void real(const char* key, double v) const { header.real(key, v); }
  void boolean(const char* key, bool v) const { header.boolean(key, v); }
  void token(const char* key, int32_t v) const { header.integer(key, v); }
  void integers(const char* key, const std::vector<int64_t>& v) const { header.integers(key, v); }
  void tokens(const char* key, const std::vector<int32_t>& v) const { header.integers(key, {v.begin(), v.end()}); }
  void sections(const char* key, const int64_t (&v)[3]) const { header.integers(key, {v, v + 3}); }
};

GgufHeader make_header(const Input& in, const std::vector<std::string>& sources, const std::vector<std::string>& hashes) {
  const CheckpointConfig& c = in.config;
  GgufHeader h;
  h.text("general.architecture", architecture_name);
  h.text("general.name", in.name);
  h.integer("general.alignment", gguf_alignment);
  h.integer("general.file_type", in.file_type);
  visit_config(c.config, ConfigWriter{h});
  h.text("tokenizer.ggml.model", "gpt2");
  h.text("tokenizer.ggml.pre", "qwen2");
  h.texts("tokenizer.ggml.tokens", c.tokenizer.tokens);
  h.integers("tokenizer.ggml.token_type", {c.tokenizer.types.begin(), c.tokenizer.types.end()});
  h.texts("tokenizer.ggml.merges", c.tokenizer.merges);
  h.integer("tokenizer.ggml.eos_token_id", c.config.tokens.stop.front());
  if (!c.chat_template.empty()) h.text("tokenizer.chat_template", c.chat_template);
  h.texts("breastgpt.source", sources);
  h.texts("breastgpt.sha256", hashes);
  for (const PlannedTensor& t : in.plan.tensors) h.tensor(t.spec.name, t.spec.shape, t.to, t.to_layout);
  return h;
}

[[noreturn]] void refuse_value(const PlannedTensor& t, int64_t element, float value) {
  const bool finite = value - value == 0;
  char number[32];
  std::snprintf(number, sizeof number, "%.9g", double(value));
  throw Error(finite ? Status::unsupported : Status::bad_file,
              t.file->path() + ": tensor " + shown(t.source) + ", element " + std::to_string(element) + " is " + number +
                  (finite ? std::string(", too large for ") + type_name(t.to) +
                      "; convert with --type bf16 or f32" : "; weights must be finite, get the checkpoint again"));
}

// Rows of a tensor, in its new type and layout.
class Values {
 public:
  explicit Values(int threads) : threads_(threads) {}

  // Rows [first, first + n) → out; panels are written whole, so first is then a multiple of 16.
  void convert(std::vector<uint8_t>& out, const PlannedTensor& t, int64_t first, int64_t n) {
    const uint8_t* x = t.from_layout == Layout::panels ? unpacked(t, first, n) : t.data + uint64_t(first) * stored_bytes(t.from, t.cols());
    if (t.to_layout == Layout::rows) {
      out.resize(stored_bytes(t.to, n * t.cols()));
      change_type(out.data(), t, x, first, n);
      return;
    }
    typed_.resize(stored_bytes(t.to, n * t.cols()));
    change_type(typed_.data(), t, x, first, n);
    const Weight rows{typed_.data(), t.to, n, t.cols()};
    const size_t panel = panel_bytes(t.to, t.cols());
    out.resize(size_t(panels_of(n)) * panel);
    threads_.run(panels_of(n), [&](int64_t p, int) { pack_panels(out.data() + size_t(p) * panel, rows, p, p + 1); });
  }

 private:
  const uint8_t* unpacked(const PlannedTensor& t, int64_t first, int64_t n) {
    const Weight panels{t.data, t.from, t.rows(), t.cols(), Layout::panels};
    const size_t row = stored_bytes(t.from, t.cols());
    unpacked_.resize(size_t(n) * row);
    threads_.run(n, [&](int64_t i, int) { unpack_row(unpacked_.data() + size_t(i) * row, panels, first + i); });
    return unpacked_.data();
  }

  // x: n rows in the tensor's old type → out, in its new one.
  void change_type(uint8_t* out, const PlannedTensor& t, const uint8_t* x, int64_t first, int64_t rows) {
    const int64_t n = rows * t.cols(), at = first * t.cols();
    if (t.from == t.to && is_quantised(t.to)) {  // blocks stay what they are
      std::memcpy(out, x, stored_bytes(t.to, n));
      return;
    }
    if (is_quantised(t.to)) floats_.resize(size_t(n));
    const int64_t wrong = is_quantised(t.to) ? convert_elements(floats_.data(), Type::f32, x, t.from, n) : convert_elements(out, t.to, x, t.from, n);
    if (wrong >= 0) refuse_value(t, at + wrong, element_value(x, t.from, wrong));
    if (!is_quantised(t.to)) return;
    for (int64_t i = 0; i < n; ++i)
      if (std::fabs(floats_[size_t(i)]) > kLargestQuantised) refuse_value(t, at + i, floats_[size_t(i)]);
    constexpr int64_t share = 1 << 14;  // whole blocks of every type
    threads_.run((n + share - 1) / share, [&](int64_t part, int) {
      const int64_t from = part * share;
      quantise(out + stored_bytes(t.to, from), t.to, floats_.data() + from, std::min(share, n - from));
    });
  }

  cpu::Threads threads_;
  std::vector<float> floats_;
  std::vector<uint8_t> unpacked_, typed_;
};

// Streams one tensor through conversion and hash into the file. Returns the hash of the bytes as stored.
std::string write_tensor(NewFile& out, const PlannedTensor& t, Values& values, std::vector<uint8_t>& buffer, Progress& progress) {
  const uint64_t from_row = t.from_layout == Layout::panels ? panel_bytes(t.from, t.cols()) / kPanelRows : stored_bytes(t.from, t.cols());
  const int64_t unit = t.to_layout == Layout::panels ? kPanelRows : 1, piece = std::max<int64_t>(int64_t(piece_elements) / t.cols() / unit, 1) * unit;  // rows
  const uint64_t start = uint64_t(t.data - t.file->data());
  uint64_t stored = 0;
  Sha256 hash;
  for (int64_t at = 0; at < t.rows(); at += piece) {
    const int64_t n = std::min(piece, t.rows() - at);
    values.convert(buffer, t, at, n);
    hash.update(buffer.data(), buffer.size());
    out.append(buffer.data(), buffer.size());
    stored += buffer.size();
    t.file->forget(size_t(start + uint64_t(at) * from_row), size_t(uint64_t(n) * from_row));
    progress.add("converting", buffer.size());
  }
  const uint8_t zeros[gguf_alignment] = {};
  out.append(zeros, gguf_padded(stored) - stored);
  return hash.hex();
}

void check_target(const std::string& target, const std::vector<std::string>& inputs, uint64_t bytes) {
  std::error_code ignored;
  for (const std::string& input : inputs)
    if (std::filesystem::equivalent(target, input, ignored)) throw Error(Status::invalid_argument, target + ": is one of the input files; give another name");
  const std::filesystem::path parent = std::filesystem::path(target).parent_path();
  const std::filesystem::space_info space = std::filesystem::space(parent.empty() ? "." : parent, ignored);
  if (!ignored && space.available < bytes)
    throw Error(Status::io, target + ": needs " + std::to_string(bytes) + " bytes, the disk has " + std::to_string(space.available) +
        "; free some space or choose another folder");
}

void write_file(const ConvertOptions& options, const Input& in, uint64_t data_bytes) {
  uint64_t total = data_bytes;
  for (const std::string& path : in.paths) total += std::filesystem::file_size(path);
  Progress progress(options, total);

  NewFile out(options.target);  // before the long work, so that a folder that cannot be written is told at once
  const std::vector<std::string> sources = hash_inputs(in.paths, progress);
  std::vector<std::string> hashes(in.plan.tensors.size(), hash_to_come);
  const std::string header = make_header(in, sources, hashes).bytes();
  out.append(header.data(), header.size());
  std::vector<uint8_t> buffer;
  Values values(options.threads);
  for (size_t i = 0; i < hashes.size(); ++i) hashes[i] = write_tensor(out, in.plan.tensors[i], values, buffer, progress);
  // Hashes have a fixed length: the same header with the true ones fits over the first one exactly.
  const std::string final_header = make_header(in, sources, hashes).bytes();
  if (final_header.size() != header.size()) throw Error(Status::internal, options.target + ": the header changed its size");
  out.overwrite(0, final_header.data(), final_header.size());
  progress.add("converting", 0);
  out.commit();
}

}  // namespace

ConvertSummary convert_checkpoint(const ConvertOptions& options) {
  const Input in = read_input(options);
  ConvertSummary summary;
  summary.model_type = in.config.config.model_type;
  summary.notes = in.plan.notes;
  if (options.matrices) summary.mix = describe_mix(in.plan.tensors, in.config.config.text.layers, *options.matrices);
  uint64_t stored = 0;
  for (const PlannedTensor& t : in.plan.tensors) {
    ConvertSummary::Group& group = summary.by_type[std::string(type_name(t.to)) + (t.to_layout == Layout::panels ? " in panels" : "")];
    const uint64_t bytes = weight_bytes(t.to, t.rows(), t.cols(), t.to_layout);
    ++group.tensors;
    group.bytes += bytes;
    stored += bytes;
  }
  // Sizes depend on the lengths of names and hashes only, so placeholders tell the size of the file.
  std::vector<std::string> sources;
  for (const std::string& path : in.paths) sources.push_back(base_name(path) + " " + hash_to_come);
  const GgufHeader header = make_header(in, sources, std::vector<std::string>(in.plan.tensors.size(), hash_to_come));
  summary.file_bytes = header.bytes().size() + header.data_bytes();
  check_target(options.target, in.paths, summary.file_bytes);
  if (!options.dry_run) write_file(options, in, stored);
  return summary;
}

}  // namespace bg
