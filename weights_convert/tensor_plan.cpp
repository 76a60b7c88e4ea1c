// See tensor_plan.h.
#include "weights_convert/tensor_plan.h"

#include <set>

#include "loaders/cursor.h"
#include "loaders/error.h"
#include "runtime/weights.h"
#include "weights_convert/mix.h"

namespace bg {
namespace {

const char embedding[] = "model.language_model.embed_tokens.weight";

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

bool starts_with_any(const std::string& name, std::initializer_list<const char*> prefixes) {
  for (const char* prefix : prefixes)
    if (name.rfind(prefix, 0) == 0) return true;
  return false;
}

// Names of the parts that BreastGPT adds may carry a leading "model.".
bool is_added_part(const std::string& name) { return starts_with_any(name, {"slide.", "visual_selector.", "deepstack_selector."}); }

bool is_step_counter(const std::string& name) {
  const std::string bare = name.rfind("model.", 0) == 0 ? name.substr(6) : name;
  return bare == "visual_selector._step" || bare == "deepstack_selector._step";
}

Layout layout_of(const TensorSpec& spec, Layout asked) { return spec.multiplied ? asked : Layout::rows; }

bool weight_type(const std::string& dtype, Type& type) {
  type = dtype == "F32" ? Type::f32 : dtype == "BF16" ? Type::bf16 : Type::f16;
  return dtype == "F32" || dtype == "BF16" || dtype == "F16";
}

}  // namespace

int64_t vocabulary_rows(const Safetensors& checkpoint, const std::string& where) {
  const SafetensorsTensor* t = checkpoint.find(embedding);
  if (!t) {
    for (const SafetensorsTensor& other : checkpoint.tensors())
      if (starts_with_any(other.name, {"model.layers.", "model.embed_tokens.", "visual.", "language_model."}))
        throw Error(Status::unsupported, where + ": tensor " + shown(other.name) +
                                             " is named as in exports from before \"model.language_model.\"; save the checkpoint again with transformers 4.57 or newer");
    throw Error(Status::bad_file, where + ": tensor \"" + embedding + "\" is missing; not a checkpoint of this model, or shards are missing");
  }
  if (t->shape.size() != 2 || t->shape[0] < 1 || t->shape[0] > 1 << 24)
    throw Error(Status::bad_file, where + ": tensor \"" + embedding + "\" has shape " + shape_text(t->shape) + ", expected [vocabulary, hidden]");
  return t->shape[0];
}

TensorPlan plan_tensors(const Safetensors& checkpoint, const Config& config, Type asked, Layout layout, const std::string& where) {
  TensorPlan plan;
  std::vector<std::string> wrong;
  std::set<std::string> used;
  for (TensorSpec& spec : tensor_specs(config)) {
    const SafetensorsTensor* source = checkpoint.find(spec.published);
    if (is_added_part(spec.published)) {
      const SafetensorsTensor* prefixed = checkpoint.find("model." + spec.published);
      if (source && prefixed) wrong.push_back("repeated: " + shown(spec.published) + ", also with a leading \"model.\"");
      if (prefixed) used.insert(prefixed->name);
      if (!source) source = prefixed;
    }
    if (!source) {
      wrong.push_back("missing: " + shown(spec.published) + ", expected " + shape_text(spec.published_shape));
      continue;
    }
    used.insert(source->name);
    PlannedTensor planned{spec, source->name, source->data, checkpoint.files()[source->file].get()};
    planned.to = type_in_mix(spec, config.text.layers, asked);
    planned.to_layout = layout_of(spec, layout);
    if (source->shape != spec.published_shape)
      wrong.push_back("wrong shape: " + shown(source->name) + ", expected " + shape_text(spec.published_shape) + ", found " + shape_text(source->shape));
    else if (!weight_type(source->dtype, planned.from))
      wrong.push_back("wrong type: " + shown(source->name) + ", expected F32, BF16 or F16, found " + source->dtype);
    plan.tensors.push_back(std::move(planned));
  }
  for (const SafetensorsTensor& t : checkpoint.tensors()) {
    if (used.count(t.name) > 0) continue;
    if (is_step_counter(t.name)) {
      plan.notes.push_back("left out: " + t.name + " (a training counter)");
    } else if (config.text.tied && t.name == "lm_head.weight") {
      plan.notes.push_back("left out: lm_head.weight (config.json ties it to the embedding matrix)");
    } else {
      wrong.push_back("unknown: " + shown(t.name) + " " + shape_text(t.shape));
    }
  }
  if (wrong.empty()) return plan;
  std::string message = where + ": " + std::to_string(wrong.size()) + (wrong.size() == 1 ? " tensor does" : " tensors do") +
                        " not fit config.json; use weights and config.json of the same checkpoint:";
  for (const std::string& line : wrong) message += "\n  " + line;
  throw Error(Status::bad_file, message);
}

TensorPlan plan_tensors(const Gguf& file, const Config& config, std::optional<Type> asked, Layout layout) {
  read_weights(file, config);  // checks names, shapes and types
  TensorPlan plan;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const GgufTensor& t = *file.find(spec.name);
    if (is_quantised(t.type) && asked)
      throw Error(Status::unsupported, file.path() + ": tensor " + shown(t.name) + " is " + type_name(t.type) +
                                           ", quantised already; give the checkpoint's folder, or a weights file made with --type f32, bf16 or f16" +
                                           " (without --type all types stay)");
    const Type to = asked ? type_in_mix(spec, config.text.layers, *asked) : t.type;
    plan.tensors.push_back({spec, t.name, t.data, &file.mapping(), t.type, to, t.layout, layout_of(spec, layout)});
  }
  return plan;
}

}  // namespace bg
