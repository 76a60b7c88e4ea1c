// breastgpt info, plan, verify: what a weights file holds, what a question would need, whether the file is whole.
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tools/session.h"

namespace tool {
namespace {

double megabytes(uint64_t bytes) { return double(bytes) / 1e6; }

const std::vector<Option> kModelOption = {{"--model", "FILE", "weights file made by breastgpt-convert", "-m"}};

// "info model.gguf" and "info -m model.gguf" both name the file; info alone speaks of the machine.
std::string model_argument(const Options& o) {
  if (o.arguments().size() > 1 || (o.has("--model") && !o.arguments().empty())) throw Failure{kUsage, "one weights file at a time"};
  return o.has("--model") ? o.text("--model") : o.arguments().empty() ? "" : o.arguments()[0];
}

// What Linux says of 2 MiB pages: "[always] madvise never".
const char* huge_pages() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(in, text);
  const bool available = text.find("[always]") != std::string::npos || text.find("[madvise]") != std::string::npos;
  return available ? "available" : "not available: weights are read some percent slower";
}

void print_machine() {
  std::printf("breastgpt %s\nthis machine: backend cpu/%s, %d threads\n", bg_version(), bg_instruction_set(), bg_session_params_default().threads);
  std::string usable, missing;
  int here = 0;
  for (int i = 0; const char* name = bg_built_instruction_set(i, &here); ++i) (here ? usable : missing) += std::string(" ") + name;
  std::printf("instructions: built in and here:%s; built in only:%s\n", usable.c_str(), missing.empty() ? " none" : missing.c_str());
  const char *why = nullptr, *cuda = bg_cuda_build();
  std::printf("GPU code:     %s\n", cuda ? cuda : "none: built without CUDA");
  const char* gpu = bg_gpu(0, &why);
  std::printf("GPUs:         %s%s\n", gpu ? gpu : "none: ", gpu ? "" : why);
  for (int i = 1; gpu && (gpu = bg_gpu(i, nullptr)); ++i) std::printf("              %s\n", gpu);
  std::printf("huge pages:   %s\n", huge_pages());
}

void verify_progress(void*, const char*, int64_t done, int64_t total) {
  std::fprintf(stderr, done == total ? "\r\033[K" : "\rverify %3lld %%", static_cast<long long>(total > 0 ? done * 100 / total : 0));
}

int is_cancelled(void*) { return interrupted(); }

}  // namespace

int run_info(int argc, char** argv) {
  const Options o("breastgpt info", "[model.gguf]", kModelOption, argc, argv);
  if (o.help()) {
    std::printf("%s", o.help_text().c_str());
    return kOk;
  }
  const std::string path = model_argument(o);
  print_machine();
  if (path.empty()) return kOk;
  const ModelPtr model = open_model(path);
  bg_model_info i{};
  i.struct_size = sizeof i;
  bg_error error;
  check(bg_model_get_info(model.get(), &i, &error), error);
  std::printf("file:         %s, %.1f MB, %lld tensors, %.3f G parameters\n", i.path, megabytes(i.file_bytes), static_cast<long long>(i.tensors), double(i.parameters) / 1e9);
  std::printf("model:        %s, weights %s, sha256 %s\n", i.type, i.weight_type, i.weights_sha256);
  std::printf("decoder:      %lld layers, width %lld, ffn %lld, %lld heads (%lld kv) of %lld, vocabulary %lld, context %lld\n", static_cast<long long>(i.layers), static_cast<long long>(i.hidden),
              static_cast<long long>(i.ffn), static_cast<long long>(i.heads), static_cast<long long>(i.kv_heads), static_cast<long long>(i.head_dim), static_cast<long long>(i.vocabulary),
              static_cast<long long>(i.context));
  std::printf("ViT:          %lld blocks, width %lld, ffn %lld, %lld heads, %lld DeepStack levels\n", static_cast<long long>(i.vit_depth), static_cast<long long>(i.vit_hidden),
              static_cast<long long>(i.vit_ffn), static_cast<long long>(i.vit_heads), static_cast<long long>(i.deepstack_levels));
  std::printf("selector:     %s%s, tokens per image %lld, volume %lld, slide %lld\n", i.selector, i.selector_uses_text ? " with text" : "", static_cast<long long>(i.image_tokens),
              static_cast<long long>(i.volume_tokens), static_cast<long long>(i.slide_tokens));
  return kOk;
}

int run_plan(int argc, char** argv) {
  const Options o("breastgpt plan", "-m model.gguf [--image a.png] [--volume b.nii.gz] [--slide c.h5] [options] \"question\"", with_session_options({}), argc, argv);
  if (o.help()) {
    std::printf("%s", o.help_text().c_str());
    return kOk;
  }
  if (questions_of(o).size() != 1) throw Failure{kUsage, "plan takes one question; see breastgpt plan --help"};
  std::vector<std::string> strings;
  const bg_session_params params = session_params(o, strings);
  const bg_image_params image = image_params(o);
  const bg_volume_params volume = volume_params(o);
  const std::string system = system_text(o);
  const ModelPtr model = open_model(o.required("--model"));
  std::vector<bg_medium_size> sizes;
  for (const MediumFile& file : open_media(o)) sizes.push_back(file.size());
  bg_memory_plan plan{};
  plan.struct_size = sizeof plan;
  bg_error error;
  check(bg_plan(model.get(), &params, sizes.data(), int64_t(sizes.size()), &image, &volume, slide_budget(o), system.c_str(), o.arguments()[0].c_str(), &plan, &error), error);
  std::printf("weights      %12.3f MB  mapped file, shared between processes\n", megabytes(plan.weights));
  if (plan.packed_weights > 0)
    std::printf("packed       %12.3f MB  weights in panels, because the file has rows; breastgpt-convert --layout panels makes one that needs none\n",
                megabytes(plan.packed_weights));
  std::printf("KV cache     %12.3f MB\n", megabytes(plan.kv_cache));
  std::printf("visual rows  %12.3f MB\n", megabytes(plan.media));
  std::printf("workspace    %12.3f MB  largest stage, and the backend's own\n", megabytes(plan.workspace));
  std::printf("pixels       %12.3f MB  preparing the largest picture or volume\n", megabytes(plan.pixels));
  if (plan.device_total > 0) {
    std::printf("on the GPU   %12.3f MB  weights %.3f MB, KV cache, visual rows and workspace\n", megabytes(plan.device_total), megabytes(plan.device_weights));
    std::printf("on the host  %12.3f MB  pixels, and weights that do not fit the GPU (%.3f MB)\n", megabytes(plan.total), megabytes(plan.host_weights));
    return kOk;
  }
  std::printf("total        %12.3f MB  without the weights\n", megabytes(plan.total));
  return kOk;
}

int run_verify(int argc, char** argv) {
  const Options o("breastgpt verify", "model.gguf", kModelOption, argc, argv);
  if (o.help()) {
    std::printf("%s", o.help_text().c_str());
    return kOk;
  }
  const std::string path = model_argument(o);
  if (path.empty()) throw Failure{kUsage, "no weights file given; see breastgpt verify --help"};
  const ModelPtr model = open_model(path);
  const bg_callbacks callbacks{sizeof callbacks, nullptr, nullptr, isatty(STDERR_FILENO) == 1 ? verify_progress : nullptr, is_cancelled};
  bg_error error;
  check(bg_model_verify(model.get(), &callbacks, &error), error);
  bg_model_info i{};
  i.struct_size = sizeof i;
  check(bg_model_get_info(model.get(), &i, &error), error);
  std::printf("%s: all %lld tensors are as they were written; weights %s\n", path.c_str(), static_cast<long long>(i.tensors), i.weights_sha256);
  return kOk;
}

}  // namespace tool
