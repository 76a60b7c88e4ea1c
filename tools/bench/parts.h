// The files out/parts/<i>-of-<n>.jsonl of a run: a header line that says what the run is, then one record a line, in order. They make a run that was
// ended at any moment go on where it was, and let n processes share it. In: header, lines. Out: what is left to do; all lines when all parts are there.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace tool {

struct Shard {
  int64_t i = 1, n = 1;  // part i of n has the items with index % n == i − 1
};
Shard parse_shard(const std::string& text);  // "2/8"; throws Failure{kUsage}

// Part i, held by this process alone as long as the object lives.
class Part {
 public:
  // Makes or opens the file, locks it, cuts a half-written last line off. run: everything that the results depend on. Throws Failure when the folder
  // holds parts of another run or of another n, when another process has the part, or when a line is no record in its place.
  Part(const std::string& out, Shard shard, const nlohmann::ordered_json& run, int64_t items);
  ~Part();
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  int64_t next() const { return next_; }          // index of the first item that is not done; items or more: all are
  void append(const std::string& line);           // the record of item next()

 private:
  void write(const std::string& line);
  std::string path_;
  Shard shard_;
  int64_t next_ = 0;
  int fd_ = -1;
};

// Only one process at a time puts a run's results together.
class MergeLock {
 public:
  explicit MergeLock(const std::string& out);  // waits
  ~MergeLock();
  MergeLock(const MergeLock&) = delete;
  MergeLock& operator=(const MergeLock&) = delete;

 private:
  int fd_ = -1;
};

struct Parts {
  std::vector<std::string> lines;  // by item; only when nothing is missing
  std::vector<int64_t> missing;    // parts that are not complete
};
Parts read_parts(const std::string& out, int64_t n, const nlohmann::ordered_json& run, int64_t items);

}  // namespace tool
