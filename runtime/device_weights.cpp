// See device_weights.h.
#include "runtime/device_weights.h"

#include <algorithm>
#include <map>

#include "kernels/panels.h"
#include "loaders/error.h"

namespace bg {
namespace {

constexpr uint64_t kAlign = 256;
constexpr int64_t kPiece = 64;  // panels that are packed at a time, where the file has rows

uint64_t rounded(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// In the file's memory: a matrix, or a vector as a matrix of one row. Each address once; where it goes, from the first to the last that is needed.
struct Part {
  Weight w;
  bool packed;  // rows in the file, panels on the device
  uint64_t bytes;
  bool on_device = false;
  uint64_t at = 0;
};

struct Parts {
  std::vector<Part> list;
  DeviceWeights::Bytes bytes;
};

Parts parts_of(Weights w, const Config& config, uint64_t allowed) {
  std::vector<const void*> multiplied_in_rows;
  for (const Weight* m : multiplied(w))
    if (m->layout == Layout::rows) multiplied_in_rows.push_back(m->data);
  std::sort(multiplied_in_rows.begin(), multiplied_in_rows.end());

  Parts parts;
  std::map<const void*, size_t> known;
  const auto add = [&](const Weight& m) {
    if (m.data == nullptr || !known.emplace(m.data, parts.list.size()).second) return;
    const bool packed = m.layout == Layout::rows && std::binary_search(multiplied_in_rows.begin(), multiplied_in_rows.end(), m.data);
    parts.list.push_back({m, packed, rounded(weight_bytes(m.type, m.rows, m.cols, packed ? Layout::panels : m.layout))});
  };
  const AllWeights all = all_of(w, config);
  for (const AllWeights::Vector& v : all.vectors) add({*v.data, Type::f32, 1, v.size});
  for (const Weight* m : all.matrices) add(*m);
  for (Part& p : parts.list) {  // the first that does not fit leaves room for smaller ones behind it
    p.on_device = parts.bytes.device + p.bytes <= allowed;
    uint64_t& used = p.on_device ? parts.bytes.device : parts.bytes.host;
    p.at = used;
    used += p.bytes;
  }
  return parts;
}

}  // namespace

int gpu_number(const std::string& backend) {
  if (backend == "cuda") return 0;
  if (backend.rfind("cuda:", 0) != 0) return -1;
  const std::string number = backend.substr(5);
  if (number.empty() || number.size() > 3 || number.find_first_not_of("0123456789") != std::string::npos)
    throw Error(Status::invalid_argument, "backend \"" + backend + "\": expected cuda:N with the number of a GPU, such as cuda:0");
  return std::stoi(number);
}

std::unique_ptr<Device> make_device(const std::string& backend, int threads) {
  return backend == "emulated" ? make_emulated_device(threads, false) : make_cuda_device(gpu_number(backend));
}

uint64_t free_device_memory(const std::string& backend) { return make_device(backend, 1)->info().free; }

DeviceWeights::Bytes DeviceWeights::plan(const Weights& w, const Config& config, uint64_t allowed) { return parts_of(w, config, allowed).bytes; }

DeviceWeights::DeviceWeights(const Weights& from, const Config& config, std::unique_ptr<Device> device, uint64_t allowed, const Callbacks& callbacks)
    : device_(std::move(device)), weights_(from) {
  const Parts parts = parts_of(from, config, allowed);
  bytes_ = parts.bytes;
  on_device_ = static_cast<char*>(device_->allocate(size_t(bytes_.device)));
  if (!on_device_)
    throw Error(Status::too_large, "the GPU has no " + std::to_string(bytes_.device) + " bytes left for the weights; free some, or lower vram so that more of them stay with the host");
  on_host_ = bytes_.host > 0 ? static_cast<char*>(device_->allocate_host(size_t(bytes_.host))) : nullptr;
  if (bytes_.host > 0 && !on_host_) {
    give_back();
    throw Error(Status::too_large, "no " + std::to_string(bytes_.host) + " bytes of host memory for the weights that do not fit the GPU");
  }
  if (bytes_.host > 0 && callbacks.log)
    callbacks.log(1, std::to_string(bytes_.host) + " bytes of the weights do not fit the GPU and are read over the bus: answers will be slower");

  try {
    std::map<const void*, const Part*> where;
    std::vector<char> panels;
    uint64_t done = 0;
    for (const Part& p : parts.list) {
      if (callbacks.progress) callbacks.progress("weights", int64_t(done), int64_t(bytes_.device + bytes_.host));
      if (callbacks.cancel && callbacks.cancel()) throw Error(Status::cancelled, "cancelled by the caller while weights went to the GPU");
      char* to = (p.on_device ? on_device_ : on_host_) + p.at;
      if (p.packed)
        upload(to, p.w, panels);
      else
        device_->upload(to, p.w.data, weight_bytes(p.w.type, p.w.rows, p.w.cols, p.w.layout));
      where[p.w.data] = &p;
      done += p.bytes;
    }
    device_->release_staging();
    const auto there = [&](const void* data) { return static_cast<void*>((where.at(data)->on_device ? on_device_ : on_host_) + where.at(data)->at); };
    const AllWeights all = all_of(weights_, config);
    for (const AllWeights::Vector& v : all.vectors) *v.data = static_cast<const float*>(there(*v.data));
    for (Weight* m : all.matrices) {
      if (m->data == nullptr) continue;
      if (where.at(m->data)->packed) m->layout = Layout::panels;
      m->data = there(m->data);
    }
  } catch (...) {
    give_back();
    throw;
  }
}

DeviceWeights::~DeviceWeights() { give_back(); }

void DeviceWeights::give_back() {
  device_->release(on_device_);
  if (on_host_ != nullptr) device_->release_host(on_host_);
}

void DeviceWeights::upload(void* to, const Weight& w, std::vector<char>& panels) {
  const size_t one = panel_bytes(w.type, w.cols);
  for (int64_t p = 0; p < panels_of(w.rows); p += kPiece) {
    const int64_t last = std::min(p + kPiece, panels_of(w.rows));
    panels.resize(size_t(last - p) * one + 64);
    char* aligned = panels.data() + (64 - reinterpret_cast<uintptr_t>(panels.data()) % 64) % 64;
    pack_panels(aligned, w, p, last);
    device_->upload(static_cast<char*>(to) + size_t(p) * one, aligned, size_t(last - p) * one);
  }
}

}  // namespace bg
