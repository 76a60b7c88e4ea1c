// The story: pictures, volumes and slides become visual rows (media.h), then one path to text. A Session is one conversation: it owns the KV cache, the kept visual rows and the
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
#include "runtime/media.h"
#include "runtime/plan.h"
#include "runtime/sampler.h"
#include "runtime/trace.h"

namespace bg {

struct SessionOptions {
  std::string backend = "cpu";  // "cpu" (the best instruction set), "cpu/avx2" …: the built ones, "ref" (float), "ref64" (double), "cuda", "cuda:1" …: GPUs,
                                // "emulated": a GPU's kernels on the CPU, for tests
  int threads = 1;
  int64_t context = 4096;       // tokens of prompt, answers and visual rows together; at most the model's
  int64_t chunk = 512;          // prompt tokens processed at once: memory against speed, never the result
  bool cublas = false;          // a GPU's products of many rows by cuBLASLt: other bits than our own kernels', and than another version's
  uint64_t vram = 0;            // bytes of a GPU's memory that model and session may take (MemoryPlan::device_total); 0: what is free
  uint64_t memory_cap = 0;      // bytes the session may take for itself (MemoryPlan::total); 0: no cap
  std::string selector;         // "": the checkpoint's; "coverage", "coverage-text", "concept" (needs its weights), "none"
  Precision precision = Precision::fast;  // of the CPU backends; ref computes in its own type
  std::string kv_type;          // of the KV cache: "f32", "bf16", "q8_0"; "" or "auto": BF16 with fast, F32 with float32. ref: always its own
  std::string trace_folder;     // "": no trace
  bool trace_data = false;
  Callbacks callbacks;
};

std::unique_ptr<Ops> make_ops(const std::string& backend, int threads, Precision precision, bool cublas = false);  // throws Error{invalid_argument, unsupported}, DeviceError

struct Generation {
  int64_t max_tokens = 1024;
  Sampling sampling;
};

struct Answer {
  std::string text;
  std::string marked_text;        // with control tokens written out, as boxes need them
  std::vector<int32_t> ids;       // produced tokens, the stop token not included
  std::vector<double> logprobs;   // natural logarithm, one per id
  bool stopped = false;           // true: a stop token; false: max_tokens or the context was reached
  int64_t prompt_tokens = 0;      // of the whole transcript up to the answer
  int64_t reused_tokens = 0;      // of these, taken from the cache
  double prompt_seconds = 0, decode_seconds = 0, media_seconds = 0;  // media: what was added since the last answer
};

// One of several given answers, scored: log p(option | prompt), exact also for options of several tokens.
struct Score {
  std::vector<int32_t> ids;      // the option's tokens
  double logprob = 0;            // Σ natural logarithms over them
  double end_logprob = 0;        // of the stop token right after them
  double probability = 0;        // softmax of logprob over the options given
};

// What a session shall look at; one of the three.
struct MediumInput {
  MediumKind kind = MediumKind::image;
  Pixels pixels;                 // image
  ImageOptions image;       // max_pixels 0: the model's
  Voxels voxels;                 // volume
  VolumeOptions volume;
  const float* features = nullptr;  // slide: (tiles, width)
  int64_t tiles = 0, width = 0;
  int64_t budget = 0;            // kept tokens; 0: the model's own
};

class Session {
 public:
  Session(std::shared_ptr<const Model> model, const SessionOptions& options);
  ~Session();

  // Memory a fresh session takes for one turn with these media (their data pointers are not read) and this text.
  static MemoryPlan plan(const Model& model, const SessionOptions& options, const std::vector<MediumInput>& media, const std::string& system, const std::string& question);

  void system(const std::string& text);  // before the first question
  void add(const MediumInput& input);    // encodes a picture, volume or slide for the next question
  // on_text gets whole UTF-8 characters as they come; false stops the answer.
  const Answer& ask(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text);
  // A turn that happened elsewhere: the question with what was added for it, and the answer it got. Nothing is generated.
  void given(const std::string& question, const std::string& answer);
  // Scores given answers to a question; the conversation stays as it was before.
  std::vector<Score> score(const std::string& question, const std::vector<std::string>& options);

  const std::vector<std::unique_ptr<Medium>>& media() const { return media_; }
  const Ops& ops() const { return *ops_; }
  const SelectorChoice& selector() const { return selector_; }

 private:
  // Runs what may use a GPU: when that fails the session is over.
  template <class Body>
  auto guarded(const Body& body);
  void add_medium(const MediumInput& input);
  const Answer& answer_question(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text);
  std::vector<Score> score_options(const std::string& question, const std::vector<std::string>& options);
  Run run(Arena& arena);
  MemoryPlan plan_of(uint64_t media, uint64_t workspace, uint64_t pixels) const;
  const Weights& weights();
  void check_cap(const MemoryPlan& plan) const;
  // A question made ready: the transcript with it, and the position of what comes after.
  struct Question {
    std::vector<Cell> cells;
    int64_t next_position = 0;
  };
  std::vector<Cell> cells_with(const std::string& question) const;
  uint64_t plan_prompt(int64_t tokens, const std::vector<Cell>& cells, int64_t logit_rows) const;
  Question read_prompt(const Run& run, std::vector<Cell> cells, Tensor logits);
  void select_for(const Run& run, const std::vector<Cell>& cells);
  void forget_from(const std::vector<Cell>& cells);
  Chunk make_chunk(const Run& run, const std::vector<Cell>& cells, const std::vector<int64_t>& slots, const std::vector<Position>& positions, int64_t first, int64_t count) const;
  void generate(const Run& run, Tensor logits, int64_t next_position, const Generation& generation, const std::function<bool(const std::string&)>& on_text);

  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  std::unique_ptr<Ops> ops_;
  SelectorChoice selector_;
  Type kv_type_;
  const Weights* weights_ = nullptr;    // see weights()
  DevicePlan device_;                   // on a GPU
  bool over_ = false;                   // the GPU failed
  std::unique_ptr<Trace> trace_;
  Prompt prompt_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::unique_ptr<Medium>> media_;
  std::vector<PromptMedium> pending_;   // added since the last question
  std::vector<Cell> transcript_;        // finished turns
  std::vector<Cell> cached_;            // what the cache's rows stand for
  Answer answer_;
  double media_seconds_ = 0;
  uint64_t media_bytes_ = 0;
};

}  // namespace bg
