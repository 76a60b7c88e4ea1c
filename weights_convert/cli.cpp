// See cli.h.
#include "weights_convert/cli.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <new>
#include <thread>

#include "loaders/error.h"
#include "runtime/breastgpt.h"
#include "weights_convert/convert.h"

namespace bg {
namespace {

const char help[] =
    R"(breastgpt-convert: a published checkpoint, or a weights file of breastgpt → one weights file for breastgpt

usage: breastgpt-convert CHECKPOINT_DIR -o MODEL.gguf [--type TYPE] [--layout LAYOUT] [--threads N] [--dry-run]

CHECKPOINT_DIR  folder with config.json, tokenizer.json and model.safetensors, or shards with
                model.safetensors.index.json; model_type breastgpt or qwen3_vl. Also read when present:
                generation_config.json, preprocessor_config.json, video_preprocessor_config.json,
                chat_template.jinja, chat_template.json, tokenizer_config.json.
                Or a .gguf file that this program made: with --type f32, bf16 or f16 to get any type; a quantised one to
                get another layout.

-o, --output FILE   the weights file (GGUF v3). Written under a temporary name beside it and renamed when complete;
                    an existing file is replaced. After any failure nothing is left behind.
--type TYPE         type of the matrices: bf16 (default for a checkpoint), f16, f32. Norms and biases are always F32.
                    Without it a .gguf file's types stay as they are.
                    Values are rounded to nearest even; a value that does not fit is an error.
                    Quantised, as mixes that keep the sensitive tensors wider (each is printed):
                      q8_0    every matrix Q8_0 (8.5 bits per weight)
                      q6_k    decoder and embeddings Q6_K (6.6 bits), the rest Q8_0
                      q4_k_m  decoder Q4_K (4.5 bits), of attn_v and ffn_down about half Q6_K; embeddings Q6_K, the rest Q8_0
                    Learned positions stay F32. Rows that are no whole blocks (of 32 or 256 values) take Q8_0 or BF16.
--layout LAYOUT     panels (default): the matrices lie as the CPU kernels read them, sixteen rows side by side; other programs
                    refuse such tensors. rows: the public layout, for other programs; breastgpt packs it in memory.
--threads N         threads that quantise (default: as many as the machine has); the file is the same for any number.
--dry-run           check configuration, tokenizer, names, shapes, types and disk space; write nothing.
--help, --version   this text; the version.

exit codes: 0 done; 1 the conversion failed (the message says why); 2 wrong usage.
Stopped by a signal (Ctrl-C): what was written is removed, and the process ends by that signal.
)";

struct Arguments {
  ConvertOptions options;
  bool help = false, version = false;
  std::string wrong;  // usage error
};

Arguments parse(const std::vector<std::string>& all) {
  Arguments a;
  a.options.threads = std::clamp(int(std::thread::hardware_concurrency()), 1, 1024);
  bool options_over = false;
  for (size_t i = 0; i < all.size() && a.wrong.empty(); ++i) {
    std::string name = all[i], value;
    const size_t equals = name.rfind("--", 0) == 0 && !options_over ? name.find('=') : std::string::npos;
    const bool attached = equals != std::string::npos;
    if (attached) value = name.substr(equals + 1), name.resize(equals);
    const auto needs_value = [&] {
      if (attached) return true;
      if (i + 1 < all.size()) return value = all[++i], true;
      a.wrong = name + " needs a value";
      return false;
    };
    if (options_over || name.empty() || name[0] != '-') {
      if (all[i].empty()) a.wrong = "CHECKPOINT_DIR is empty";
      else if (!a.options.input.empty()) a.wrong = "more than one CHECKPOINT_DIR: \"" + all[i] + "\"";
      a.options.input = all[i];
    } else if (name == "-o" || name == "--output") {
      if (needs_value()) a.options.target = value;
    } else if (name == "--type") {
      if (!needs_value()) break;
      if (value == "f32") a.options.matrices = Type::f32;
      else if (value == "bf16") a.options.matrices = Type::bf16;
      else if (value == "f16") a.options.matrices = Type::f16;
      else if (value == "q8_0") a.options.matrices = Type::q8_0;
      else if (value == "q6_k") a.options.matrices = Type::q6_k;
      else if (value == "q4_k_m") a.options.matrices = Type::q4_k;
      else a.wrong = "--type \"" + value + "\": expected f32, bf16, f16, q8_0, q6_k or q4_k_m";
    } else if (name == "--layout") {
      if (!needs_value()) break;
      if (value == "panels") a.options.layout = Layout::panels;
      else if (value == "rows") a.options.layout = Layout::rows;
      else a.wrong = "--layout \"" + value + "\": expected panels or rows";
    } else if (name == "--threads") {
      if (!needs_value()) break;
      const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), a.options.threads);
      if (problem != std::errc() || end != value.data() + value.size() || a.options.threads < 1 || a.options.threads > 1024)
        a.wrong = "--threads \"" + value + "\": expected 1 to 1024";
    } else if (attached) {
      a.wrong = "unknown option \"" + all[i] + "\"";
    } else if (name == "--dry-run") {
      a.options.dry_run = true;
    } else if (name == "--help" || name == "-h") {
      a.help = true;
    } else if (name == "--version") {
      a.version = true;
    } else if (name == "--") {
      options_over = true;
    } else {
      a.wrong = "unknown option \"" + name + "\"";
    }
  }
  if (a.wrong.empty() && !a.help && !a.version) {
    if (a.options.input.empty()) a.wrong = "CHECKPOINT_DIR is missing";
    else if (a.options.target.empty()) a.wrong = "-o MODEL.gguf is missing";
  }
  return a;
}

std::string size_text(uint64_t bytes) {
  char text[48];
  if (bytes >= 1'000'000'000) std::snprintf(text, sizeof text, "%.2f GB", double(bytes) / 1e9);
  else std::snprintf(text, sizeof text, "%.2f MB", double(bytes) / 1e6);
  return text;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// "converting [#####-----]  50 %  8.80 GB of 17.60 GB, 950 MB/s", at most ten times a second, on one line.
class Bar {
 public:
  explicit Bar(std::ostream& err) : err_(err) {}
  void show(const char* phase, uint64_t done, uint64_t total) {
    if (done < total && seconds_since(last_) < 0.1) return;
    last_ = Clock::now();
    constexpr int width = 30;
    const double share = total == 0 ? 1 : double(done) / double(total);
    const int filled = int(share * width);
    char text[160];
    std::snprintf(text, sizeof text, "\r%-10s [%s%s] %3d %%  %s of %s, %.0f MB/s   ", phase, std::string(size_t(filled), '#').c_str(),
                  std::string(size_t(width - filled), '-').c_str(), int(share * 100), size_text(done).c_str(), size_text(total).c_str(),
                  double(done) / 1e6 / (seconds_since(start_) + 1e-9));
    err_ << text << std::flush;
    shown_ = true;
  }
  void finish() {
    if (shown_) err_ << '\n';
    shown_ = false;
  }

 private:
  std::ostream& err_;
  Clock::time_point start_ = Clock::now(), last_ = {};
  bool shown_ = false;
};

void print_summary(std::ostream& out, const Arguments& a, const ConvertSummary& s, double seconds) {
  out << a.options.input << ": " << s.model_type << '\n';
  for (const std::string& note : s.notes) out << "  " << note << '\n';
  for (const std::string& line : s.mix) out << "  " << line << '\n';
  for (const auto& [type, group] : s.by_type) out << "  " << type << ": " << group.tensors << " tensors, " << group.bytes << " bytes\n";
  char time[32];
  std::snprintf(time, sizeof time, "%.1f s", seconds);
  out << a.options.target << ": " << s.file_bytes << " bytes (" << size_text(s.file_bytes) << ")"
      << (a.options.dry_run ? ", dry run: nothing written, " : ", written in ") << time << '\n';
}

}  // namespace

int run_convert(const std::vector<std::string>& arguments, const ConvertCli& cli) {
  Arguments a = parse(arguments);
  if (!a.wrong.empty()) {
    cli.err << "breastgpt-convert: " << a.wrong
            << "\nusage: breastgpt-convert CHECKPOINT_DIR -o MODEL.gguf [--type TYPE] [--layout LAYOUT] [--threads N] [--dry-run]   (--help for more)\n";
    return exit_usage;
  }
  if (a.help || a.version) {
    if (a.help) cli.out << help;
    else cli.out << "breastgpt-convert " << bg_version() << '\n';
    return exit_ok;
  }
  const Clock::time_point start = Clock::now();
  Bar bar(cli.err);
  a.options.progress = [&](const char* phase, uint64_t done, uint64_t total) {
    if (cli.show_progress) bar.show(phase, done, total);
    return !(cli.interrupted && cli.interrupted());
  };
  std::string problem;
  try {
    const ConvertSummary summary = convert_checkpoint(a.options);
    bar.finish();
    print_summary(cli.out, a, summary, seconds_since(start));
    return exit_ok;
  } catch (const Error& error) {
    problem = error.what();
  } catch (const std::bad_alloc&) {
    problem = "not enough memory";
  } catch (const std::exception& error) {  // the standard library's own, such as a file system's
    problem = error.what();
  }
  bar.finish();
  cli.err << "breastgpt-convert: " << problem << '\n';
  return exit_failed;
}

}  // namespace bg
