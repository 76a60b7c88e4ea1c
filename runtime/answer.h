// The story: pictures become visual rows, then one path to text. A Session is one conversation: it owns the KV cache, the kept visual rows and the
// transcript; the model is shared. One thread at a time.
//
// What a session computes is defined without its cache: the answer to a turn is the answer a fresh session would give to the whole transcript. The
// cache is used where that holds and refilled where it does not (a text-guided selection changes when the text grows).
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/model.h"
#include "runtime/plan.h"
#include "runtime/preprocess.h"
#include "runtime/prompt.h"
#include "runtime/sampler.h"
#include "runtime/selector.h"
#include "runtime/trace.h"

namespace bg {

struct SessionOptions {
  std::string backend = "cpu";  // "cpu" (the best instruction set), "cpu/avx2", "cpu/portable", "ref" (float), "ref64" (double)
  int threads = 1;
  int64_t context = 4096;       // tokens of prompt, answers and visual rows together; at most the model's
  int64_t chunk = 512;          // prompt tokens processed at once: memory against speed, never the result
  uint64_t memory_cap = 0;      // bytes the session may take for itself (MemoryPlan::total); 0: no cap
  std::string trace_folder;     // "": no trace
  bool trace_data = false;
  Callbacks callbacks;
};

std::unique_ptr<Ops> make_ops(const std::string& backend, int threads);  // throws Error{invalid_argument, unsupported}

// A picture the session has seen.
struct Medium {
  ImageSteps steps;             // sizes and window
  Grid grid;                    // patches
  int64_t merged_rows = 0, merged_cols = 0;  // of tokens
  int64_t tokens = 0;           // L, before selection
  int64_t budget = 0;           // k
  std::string pixels_sha256;    // of the pixels as given
  std::vector<Kept> kept;       // per level: top, then DeepStack
  std::vector<Tensor> rows;     // per level, (n, h): the kept rows; all L rows when the selection depends on the text
  int64_t kept_tokens() const { return std::min(tokens, budget); }
};

struct Generation {
  int64_t max_tokens = 1024;
  Sampling sampling;
};

struct Answer {
  std::string text;
  std::vector<int32_t> ids;       // produced tokens, the stop token not included
  std::vector<double> logprobs;   // natural logarithm, one per id
  bool stopped = false;           // true: a stop token; false: max_tokens or the context was reached
  int64_t prompt_tokens = 0;      // of the whole transcript up to the answer
  int64_t reused_tokens = 0;      // of these, taken from the cache
  double prompt_seconds = 0, decode_seconds = 0, image_seconds = 0;  // image: pictures added since the last answer
};

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options);
  ~Session();

  // Memory a fresh session takes for one turn with these pictures and this text.
  static MemoryPlan plan(const Model& model, const SessionOptions& options, const std::vector<Size>& images, const ImageOptions& image_options, int64_t budget,
                         const std::string& system, const std::string& question);

  void system(const std::string& text);  // before the first question
  // Encodes a picture for the next question. budget 0: the model's own.
  void add_image(const Pixels& pixels, const ImageOptions& options, int64_t budget);
  // on_text gets whole UTF-8 characters as they come; false stops the answer.
  const Answer& ask(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text);

  const std::vector<std::unique_ptr<Medium>>& media() const { return media_; }
  const Ops& ops() const { return *ops_; }

 private:
  struct Prefill;
  Run run(Arena& arena);
  void check_cap(const MemoryPlan& plan) const;
  void select_with_text(const Run& run, const std::vector<Cell>& cells);
  void forget_from(const std::vector<Cell>& cells);
  Chunk make_chunk(const Run& run, const std::vector<Cell>& cells, const std::vector<int64_t>& slots, const std::vector<Position>& positions, int64_t first, int64_t count) const;
  void generate(const Run& run, Tensor logits, int64_t next_position, const Generation& generation, const std::function<bool(const std::string&)>& on_text);

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Trace> trace_;
  Prompt prompt_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::unique_ptr<Medium>> media_;
  std::vector<PromptMedium> pending_;   // added since the last question
  std::vector<Cell> transcript_;        // finished turns
  std::vector<Cell> cached_;            // what the cache's rows stand for
  Answer answer_;
  double image_seconds_ = 0;
  uint64_t media_bytes_ = 0;
};

}  // namespace bg
