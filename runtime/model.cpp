// See model.h.
#include "runtime/model.h"

#include "loaders/error.h"
#include "loaders/sha256.h"

namespace bg {
namespace {

Tokenizer read_tokenizer(const Gguf& file, const Config& config) {
  const std::string model(file.text("tokenizer.ggml.model")), pre(file.text("tokenizer.ggml.pre"));
  if (model != "gpt2" || pre != "qwen2")
    throw Error(Status::unsupported, file.path() + ": tokenizer \"" + model + "\"/\"" + pre + "\": expected \"gpt2\"/\"qwen2\"; convert the checkpoint again");
  const std::vector<std::string_view> tokens = file.texts("tokenizer.ggml.tokens");
  std::vector<TokenType> types;
  for (int64_t t : file.integers("tokenizer.ggml.token_type")) {
    if (t != 1 && t != 3 && t != 4) throw Error(Status::bad_file, file.path() + ": tokenizer.ggml.token_type: expected 1, 3 or 4, got " + std::to_string(t));
    types.push_back(TokenType(t));
  }
  if (types.size() != tokens.size() || int64_t(tokens.size()) != config.text.vocab)
    throw Error(Status::bad_file, file.path() + ": " + std::to_string(tokens.size()) + " tokens and " + std::to_string(types.size()) + " token types for an embedding of " +
                                      std::to_string(config.text.vocab) + " rows; they must agree");
  try {
    return Tokenizer(tokens, types, file.texts("tokenizer.ggml.merges"));
  } catch (const Error& e) {
    throw Error(e.status(), file.path() + ": " + e.what());
  }
}

std::string weights_hash(const Gguf& file) {
  Sha256 sum;
  for (std::string_view hash : file.texts("breastgpt.sha256")) sum.update(hash.data(), hash.size());
  return sum.hex();
}

}  // namespace

Model::Model(const std::string& path)
    : file(path),
      config(read_config(file)),
      weights(read_weights(file, config)),
      tokenizer(read_tokenizer(file, config)),
      weights_sha256(weights_hash(file)),
      weight_types(bg::weight_types(weights.decoder)),
      packed_bytes(PackedWeights::bytes(weights)) {}

const Weights& Model::in_panels(int threads, const Callbacks& callbacks) const {
  if (packed_bytes == 0) return weights;
  std::lock_guard<std::mutex> lock(packing_);
  if (packed_) return packed_->weights();
  packed_ = PackedWeights::make(weights, threads);
  if (packed_) {
    file.mapping().forget(0, file.file_bytes());  // the rows are not needed again
    return packed_->weights();
  }
  if (callbacks.log)
    callbacks.log(1, "no memory to pack the weights into panels (" + std::to_string(packed_bytes) +
                         " bytes): going on with the file's rows, slower; breastgpt-convert --layout panels makes a file that needs no packing");
  return weights;
}

const SlideFactor& Model::slide_factor(int64_t level) const {
  std::lock_guard<std::mutex> lock(factoring_);
  const auto known = factors_.find(level);
  return known != factors_.end() ? known->second : factors_.emplace(level, factor_of(weights.slide.projector_of(size_t(level)))).first->second;
}

namespace {
std::string gpu_name(const std::string& backend) { return backend == "cuda" ? "cuda:0" : backend; }
}  // namespace

uint64_t Model::bytes_on_device(const std::string& backend) const {
  std::lock_guard<std::mutex> lock(packing_);
  const auto found = on_device_.find(gpu_name(backend));
  return found == on_device_.end() || !found->second ? 0 : found->second->bytes().device;
}

const DeviceWeights& Model::on_device(const std::string& backend, int threads, uint64_t allowed, const Callbacks& callbacks) const {
  std::lock_guard<std::mutex> lock(packing_);
  std::unique_ptr<DeviceWeights>& there = on_device_[gpu_name(backend)];
  if (!there) there = std::make_unique<DeviceWeights>(weights, config, make_device(backend, threads), allowed, callbacks);
  return *there;
}

}  // namespace bg
