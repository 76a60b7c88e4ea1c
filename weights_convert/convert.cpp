// The converter's story: read the small files, plan, hash the inputs, write the header, stream the tensors, fill in their hashes, rename.
#include "weights_convert/convert.h"

#include <algorithm>
#include <filesystem>
#include <cstdio>

#include "loaders/cursor.h"
#include "loaders/error.h"
#include "loaders/new_file.h"
#include "loaders/safetensors.h"
#include "loaders/sha256.h"
#include "runtime/config_fields.h"
#include "weights_convert/checkpoint_config.h"
#include "weights_convert/elements.h"
#include "weights_convert/gguf_writer.h"
#include "weights_convert/tensor_plan.h"

namespace bg {
namespace {

constexpr uint64_t piece_elements = 1 << 20;  // streamed at a time: at most 4 MiB in, 4 MiB out
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

struct Input {
  Safetensors weights;
  CheckpointConfig config;
  TensorPlan plan;
};

std::string base_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// Every file that was read, the small ones first, then the shards in order.
std::vector<std::string> input_paths(const std::string& folder, const Input& in) {
  std::vector<std::string> paths;
  for (const std::string& name : in.config.files) paths.push_back(folder + "/" + name);
  if (!in.weights.index_path().empty()) paths.push_back(in.weights.index_path());
  for (const auto& file : in.weights.files()) paths.push_back(file->path());
  return paths;
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

GgufHeader make_header(const ConvertOptions& options, const Input& in, const std::vector<std::string>& sources, const std::vector<std::string>& hashes) {
  const CheckpointConfig& c = in.config;
  const int64_t file_type = options.matrices == Type::f32 ? 0 : options.matrices == Type::f16 ? 1 : 32;  // the field's numbers: all F32, mostly F16, mostly BF16
  GgufHeader h;
  h.text("general.architecture", architecture_name);
  h.text("general.name", base_name(std::filesystem::weakly_canonical(options.folder)));
  h.integer("general.alignment", gguf_alignment);
  h.integer("general.file_type", file_type);
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
  for (const PlannedTensor& t : in.plan.tensors) h.tensor(t.spec.name, t.spec.shape, t.to);
  return h;
}

[[noreturn]] void refuse_value(const PlannedTensor& t, const std::string& file, int64_t element, float value) {
  const bool finite = value - value == 0;
  char number[32];
  std::snprintf(number, sizeof number, "%.9g", double(value));
  throw Error(finite ? Status::unsupported : Status::bad_file,
              file + ": tensor " + shown(t.source->name) + ", element " + std::to_string(element) + " is " + number +
                  (finite ? std::string(", too large for ") + type_name(t.to) +
                      "; convert with --type bf16 or f32" : "; weights must be finite, get the checkpoint again"));
}

// Streams one tensor through conversion and hash into the file. Returns the hash of the bytes as stored.
std::string write_tensor(NewFile& out, const PlannedTensor& t, const MappedFile& file, std::vector<uint8_t>& buffer, Progress& progress) {
  const uint64_t from = type_size(t.from), to = type_size(t.to), elements = t.source->bytes / from;
  Sha256 hash;
  for (uint64_t at = 0; at < elements; at += piece_elements) {
    const uint64_t n = std::min(piece_elements, elements - at);
    const uint8_t* x = t.source->data + at * from;
    const int64_t wrong = convert_elements(buffer.data(), t.to, x, t.from, int64_t(n));
    if (wrong >= 0) refuse_value(t, file.path(), int64_t(at) + wrong, element_value(x, t.from, wrong));
    hash.update(buffer.data(), n * to);
    out.append(buffer.data(), n * to);
    file.forget(t.source->offset + at * from, n * from);
    progress.add("converting", n * to);
  }
  const uint8_t zeros[gguf_alignment] = {};
  out.append(zeros, gguf_padded(elements * to) - elements * to);
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

void write_file(const ConvertOptions& options, const Input& in, const std::vector<std::string>& inputs, uint64_t data_bytes) {
  uint64_t total = data_bytes;
  for (const std::string& path : inputs) total += std::filesystem::file_size(path);
  Progress progress(options, total);

  NewFile out(options.target);  // before the long work, so that a folder that cannot be written is told at once
  const std::vector<std::string> sources = hash_inputs(inputs, progress);
  std::vector<std::string> hashes(in.plan.tensors.size(), hash_to_come);
  const std::string header = make_header(options, in, sources, hashes).bytes();
  out.append(header.data(), header.size());
  std::vector<uint8_t> buffer(piece_elements * sizeof(float));
  for (size_t i = 0; i < hashes.size(); ++i) {
    const PlannedTensor& t = in.plan.tensors[i];
    hashes[i] = write_tensor(out, t, *in.weights.files()[t.source->file], buffer, progress);
  }
  // Hashes have a fixed length: the same header with the true ones fits over the first one exactly.
  const std::string final_header = make_header(options, in, sources, hashes).bytes();
  if (final_header.size() != header.size()) throw Error(Status::internal, options.target + ": the header changed its size");
  out.overwrite(0, final_header.data(), final_header.size());
  progress.add("converting", 0);
  out.commit();
}

}  // namespace

ConvertSummary convert_checkpoint(const ConvertOptions& options) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(options.folder, ignored))
    throw Error(Status::not_found, options.folder +
        ": is not a folder; give the folder of a published checkpoint (config.json, *.safetensors, tokenizer.json)");
  Input in{Safetensors(options.folder), {}, {}};
  in.config = read_checkpoint_config(options.folder, vocabulary_rows(in.weights, options.folder));
  in.plan = plan_tensors(in.weights, in.config.config, options.matrices, options.folder);

  ConvertSummary summary;
  summary.model_type = in.config.config.model_type;
  summary.notes = in.plan.notes;
  uint64_t stored = 0;
  for (const PlannedTensor& t : in.plan.tensors) {
    ConvertSummary::Group& group = summary.by_type[type_name(t.to)];
    const uint64_t bytes = t.source->bytes / type_size(t.from) * type_size(t.to);
    ++group.tensors;
    group.bytes += bytes;
    stored += bytes;
  }
  const std::vector<std::string> inputs = input_paths(options.folder, in);
  // Sizes depend on the lengths of names and hashes only, so placeholders tell the size of the file.
  std::vector<std::string> sources;
  for (const std::string& path : inputs) sources.push_back(base_name(path) + " " + hash_to_come);
  const GgufHeader header = make_header(options, in, sources, std::vector<std::string>(in.plan.tensors.size(), hash_to_come));
  summary.file_bytes = header.bytes().size() + header.data_bytes();
  check_target(options.target, inputs, summary.file_bytes);
  if (!options.dry_run) write_file(options, in, inputs, stored);
  return summary;
}

}  // namespace bg
