// See parts.h.
#include "tools/bench/parts.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tools/bench/record.h"
#include "tools/options.h"

namespace tool {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string part_name(int64_t i, int64_t n) { return std::to_string(i) + "-of-" + std::to_string(n) + ".jsonl"; }
std::string parts_folder(const std::string& out) { return (fs::path(out) / "parts").string(); }
std::string part_path(const std::string& out, Shard s) { return (fs::path(parts_folder(out)) / part_name(s.i, s.n)).string(); }
Json header(Shard s, const Json& run) { return {{"part", s.i}, {"of", s.n}, {"run", run}}; }

int open_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const int code = fd < 0 ? errno : EINVAL;
    if (fd >= 0) close(fd);
    throw Failure{kFailed, path + ": cannot be opened as a file: " + std::strerror(code) + "; check the folder given with -o"};
  }
  return fd;
}

// The whole lines of a file; what follows the last line break is not one. whole_bytes: how far they reach.
std::vector<std::string> whole_lines(const std::string& path, size_t* whole_bytes = nullptr) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) throw Failure{kFailed, path + ": cannot be read"};
  std::vector<std::string> lines;
  size_t at = 0;
  for (size_t end; (end = bytes.find('\n', at)) != std::string::npos; at = end + 1) lines.push_back(bytes.substr(at, end - at));
  if (whole_bytes) *whole_bytes = at;
  return lines;
}

// "options.max_tokens: 4 there, 5 now; …"
std::string differences(const Json& there, const Json& now) {
  const auto shown = [](const Json& flat, const std::string& key) {
    const auto found = flat.find(key);
    std::string value = found == flat.end() ? "nothing" : found->dump(-1, ' ', false, Json::error_handler_t::replace);
    if (value.size() > 80) value = value.substr(0, 12) + "…";
    return value;
  };
  const Json a = there.flatten(), b = now.flatten();
  std::string out;
  const auto note = [&](const std::string& key) { out += (out.empty() ? "" : "; ") + key.substr(1) + ": " + shown(a, key) + " there, " + shown(b, key) + " now"; };
  for (const auto& [key, value] : b.items())
    if (!a.contains(key) || a[key] != value) note(key);
  for (const auto& [key, value] : a.items())
    if (!b.contains(key)) note(key);
  return out;
}

void check_header(const std::string& path, const std::string& line, Shard shard, const Json& run) {
  const Json there = Json::parse(line, nullptr, false);
  const bool whole = there.is_object() && there.contains("part") && there.contains("of") && there.contains("run") && there["run"].is_object();
  if (!whole || there["part"] != shard.i || there["of"] != shard.n)
    throw Failure{kFailed, path + ": line 1 is not the header of this part; give another folder with -o, or delete the file"};
  if (nlohmann::json(there["run"]) == nlohmann::json(run)) return;
  throw Failure{kFailed, path + ": was made by another run (" + differences(there["run"], run) + "); give another folder with -o, repeat the run as it was, or delete " +
                             fs::path(path).parent_path().string()};
}

// Lines of part `shard` after its header, each a record in its place.
void check_records(const std::string& path, const std::vector<std::string>& lines, Shard shard, int64_t items) {
  int64_t index = shard.i - 1;
  for (size_t i = 1; i < lines.size(); ++i, index += shard.n) {
    const std::string where = path + ": line " + std::to_string(i + 1);
    if (index >= items || record_from_json(lines[i], where).index != index)
      throw Failure{kFailed, where + ": is not the record of " + (index >= items ? "any item" : "item " + std::to_string(index)) + "; delete the file to answer its items again"};
  }
}

// Every part that is in the folder belongs to this run.
void check_folder(const std::string& out, int64_t n, const Json& run) {
  for (const fs::directory_entry& entry : fs::directory_iterator(parts_folder(out))) {
    const std::string name = entry.path().filename().string();
    char* end = nullptr;
    const long long i = std::strtoll(name.c_str(), &end, 10);
    if (std::strncmp(end, "-of-", 4) != 0) continue;
    const long long of = std::strtoll(end + 4, &end, 10);
    if (std::strcmp(end, ".jsonl") != 0 || name != part_name(i, of)) continue;
    if (of != n)
      throw Failure{kFailed, entry.path().string() + ": the folder holds parts of a run in " + std::to_string(of) + ", this one is in " + std::to_string(n) +
                                 "; give the same --shard i/" + std::to_string(of) + ", or another folder with -o"};
    std::ifstream in(entry.path(), std::ios::binary);
    std::string line;
    if (std::getline(in, line) && !in.eof()) check_header(entry.path().string(), line, {i, n}, run);
  }
}

}  // namespace

Shard parse_shard(const std::string& text) {
  Shard s;
  char* end = nullptr;
  errno = 0;
  s.i = std::strtoll(text.c_str(), &end, 10);
  if (*end == '/') s.n = std::strtoll(end + 1, &end, 10);
  if (errno || s.i < 1 || s.n < s.i || s.n > 100000 || text != std::to_string(s.i) + "/" + std::to_string(s.n))
    throw Failure{kUsage, "--shard " + text + ": expected i/n with 1 <= i <= n <= 100000, such as 2/8"};
  return s;
}

Part::Part(const std::string& out, Shard shard, const Json& run, int64_t items) : path_(part_path(out, shard)), shard_(shard), next_(shard.i - 1) {
  std::error_code error;
  fs::create_directories(parts_folder(out), error);
  if (error) throw Failure{kFailed, parts_folder(out) + ": cannot be made: " + error.message()};
  check_folder(out, shard.n, run);
  fd_ = open_file(path_);
  try {
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) throw Failure{kFailed, path_ + ": another process works on this part; wait for it, or share the run with --shard i/n"};
      throw Failure{kFailed, path_ + ": cannot be locked: " + std::strerror(errno) + "; choose a folder with -o whose file system has locks"};
    }
    size_t whole = 0;
    const std::vector<std::string> lines = whole_lines(path_, &whole);
    if (ftruncate(fd_, off_t(whole)) != 0) throw Failure{kFailed, path_ + ": cannot be written: " + std::strerror(errno)};
    if (lines.empty()) {
      write(header(shard, run).dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      check_header(path_, lines[0], shard, run);
      check_records(path_, lines, shard, items);
      next_ += shard.n * int64_t(lines.size() - 1);
    }
  } catch (...) {
    close(fd_);
    throw;
  }
}

Part::~Part() { close(fd_); }

void Part::append(const std::string& line) {
  write(line);
  next_ += shard_.n;
}

// A line goes out in one piece and reaches the disk before the next item is begun.
void Part::write(const std::string& line) {
  const std::string bytes = line + "\n";
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Failure{kFailed, path_ + ": cannot be written: " + std::strerror(errno) + "; make room, the same command goes on from there"};
    done += size_t(n);
  }
  if (fdatasync(fd_) != 0) throw Failure{kFailed, path_ + ": cannot be made durable: " + std::strerror(errno)};
}

MergeLock::MergeLock(const std::string& out) : fd_(open_file((fs::path(parts_folder(out)) / "merge.lock").string())) {
  if (flock(fd_, LOCK_EX) == 0) return;
  const int code = errno;
  close(fd_);
  throw Failure{kFailed, parts_folder(out) + "/merge.lock: cannot be locked: " + std::strerror(code)};
}

MergeLock::~MergeLock() { close(fd_); }

Parts read_parts(const std::string& out, int64_t n, const Json& run, int64_t items) {
  Parts result;
  result.lines.resize(size_t(items));
  for (int64_t i = 1; i <= n; ++i) {
    const Shard shard{i, n};
    const std::string path = part_path(out, shard);
    std::error_code ignored;
    const std::vector<std::string> lines = fs::is_regular_file(path, ignored) ? whole_lines(path) : std::vector<std::string>();
    const int64_t own = (items - i) / n + 1;  // items with index % n == i − 1; none when i > items
    if (lines.empty() || int64_t(lines.size()) < 1 + (i > items ? 0 : own)) {
      result.missing.push_back(i);
      continue;
    }
    check_header(path, lines[0], shard, run);
    check_records(path, lines, shard, items);
    for (size_t k = 1; k < lines.size(); ++k) result.lines[size_t(i - 1 + int64_t(k - 1) * n)] = lines[k];
  }
  if (!result.missing.empty()) result.lines.clear();
  return result;
}

}  // namespace tool
