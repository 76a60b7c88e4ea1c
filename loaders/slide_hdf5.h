// What reading and writing HDF5 share: libhdf5 made quiet and safe for one call, its handles, its words. Include only where BG_WITH_HDF5.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <hdf5.h>

#include "loaders/error.h"
#include "loaders/slide_features.h"

namespace bg {

// What the process that runs libhdf5 sends. Heads of two uint64 (kind, bytes), then the bytes.
enum class SlideFrame : uint64_t {
  error = 1,      // one byte Status, then the message; the last frame
  shape = 2,      // int64 tiles, width, 0 or 1 for coords
  attribute = 3,  // key, zero byte, value
  features = 4,   // the next float32 of (tiles, width)
  coords = 5,     // the next int64 of (tiles, 2)
  done = 6,       // everything was sent
};

class SlidePipe {
 public:
  explicit SlidePipe(int fd) : fd_(fd) {}
  void send(SlideFrame kind, const void* data, uint64_t bytes) const;
  void send(SlideFrame kind, const std::string& text) const { send(kind, text.data(), text.size()); }

 private:
  int fd_;
};

// To be called in that process only (slide_hdf5_child.cpp).
void read_hdf5_slide(const std::string& path, uint64_t file_bytes, const SlidePipe& pipe);
void write_hdf5_file(const std::string& path, const SlideFeatures& slide);

// libhdf5 for one file: it does not print its errors and loads no plug-ins that files ask for.
class Hdf5 {
 public:
  explicit Hdf5(const std::string& path);
  Hdf5(const Hdf5&) = delete;
  Hdf5& operator=(const Hdf5&) = delete;

  const std::string& path() const { return path_; }
  [[noreturn]] void fail(Status status, const std::string& what) const { throw Error(status, path_ + ": " + what); }
  // libhdf5 refused: its innermost message is appended.
  [[noreturn]] void damaged(const std::string& what) const;
  [[noreturn]] void not_written(const std::string& what) const;
  hid_t file_access() const;  // property list: plain file, no locks (they fail on network shares), everything closed with the file

 private:
  std::string words() const;
  std::string path_;
};

// A handle of libhdf5; negative: none.
class Hdf5Id {
 public:
  Hdf5Id(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Hdf5Id() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Id(Hdf5Id&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Id& operator=(Hdf5Id&&) = delete;
  operator hid_t() const { return id_; }
  bool ok() const { return id_ >= 0; }
  bool close_now() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// Attributes of an open dataset, as text. Other than scalars of numbers and text: left out.
std::vector<std::pair<std::string, std::string>> read_attributes(const Hdf5& hdf5, hid_t dataset, const char* dataset_name);
// A canonical whole number becomes int64, a canonical decimal float64, all else text (UTF-8, variable length, as h5py writes it).
void write_attribute(const Hdf5& hdf5, hid_t dataset, const std::string& name, const std::string& value, bool as_text);

}  // namespace bg
