// A GPU's table for tests that keep their tensors in host memory: around every operation what it is given goes to the device, and what came out comes back. So
// each test of a kernel runs on a GPU as it is. In: a table whose memory the host may not be able to read. Memory of this table is the host's.
// What the device has beside a tensor is not there: tensors are copied from the first to the last element (gaps of rows included), into memory of exactly that
// size at the same address modulo 256, so that compute-sanitizer sees every access outside and kernels meet the alignment that the test chose.
// Not here: recorded steps (the operations of a step run one by one); speed.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/ops.h"
#include "kernels/panels.h"

namespace kernels_test {

class Mirror : public bg::Ops {
 public:
  explicit Mirror(bg::Ops* device) : device_(device), host_(bg::make_ref_ops(bg::Type::f32)) {}
  const char* name() const override { return device_->name(); }
  bg::Type type() const override { return bg::Type::f32; }
  void* allocate(size_t bytes) override { return host_->allocate(bytes); }
  void release(void* p, size_t bytes) override { host_->release(p, bytes); }

  void write(bg::Tensor y, const float* x) override { call({&y}, [&] { device_->write(y, x); }); }
  void read(float* y, bg::Tensor x) override { call({&x}, [&] { device_->read(y, x); }); }
  void read(double* y, bg::Tensor x) override { call({&x}, [&] { device_->read(y, x); }); }
  void copy(bg::Tensor y, bg::Tensor x) override { call({&y, &x}, [&] { device_->copy(y, x); }); }
  void gather_rows(bg::Tensor y, bg::Tensor x, const int64_t* index) override { call({&y, &x}, [&] { device_->gather_rows(y, x, index); }); }
  void scatter_rows(bg::Tensor y, bg::Tensor x, const int64_t* index) override { call({&y, &x}, [&] { device_->scatter_rows(y, x, index); }); }
  void scatter_add_rows(bg::Tensor y, bg::Tensor x, const int64_t* index) override { call({&y, &x}, [&] { device_->scatter_add_rows(y, x, index); }); }
  void embed(bg::Tensor y, bg::Weight w, const int32_t* ids) override { call({&y, &w}, [&] { device_->embed(y, w, ids); }); }
  void add_interpolated(bg::Tensor y, bg::Weight table, const int32_t* index, const float* weight) override {
    call({&y, &table}, [&] { device_->add_interpolated(y, table, index, weight); });
  }
  void linear(bg::Tensor x, const bg::Product* products, int64_t n, bg::Phase phase) override {
    std::vector<bg::Product> there(products, products + n);
    std::vector<Given> given = {&x};
    for (bg::Product& p : there) {
      given.push_back(&p.y);
      given.push_back(&p.w);
      given.push_back({&p.bias, p.w.rows});
    }
    call(given, [&] { device_->linear(x, there.data(), n, phase); });
  }
  void gated(bg::Tensor y, bg::Tensor x, bg::Weight gate, bg::Weight up, bg::Phase phase) override {
    call({&y, &x, &gate, &up}, [&] { device_->gated(y, x, gate, up, phase); });
  }
  void layer_norm(bg::Tensor y, bg::Tensor x, const float* w, const float* b, float eps) override {
    call({&y, &x, {&w, x.cols}, {&b, x.cols}}, [&] { device_->layer_norm(y, x, w, b, eps); });
  }
  void rms_norm(bg::Tensor y, bg::Tensor x, const float* w, float eps) override { call({&y, &x, {&w, x.cols}}, [&] { device_->rms_norm(y, x, w, eps); }); }
  void gelu_tanh(bg::Tensor y, bg::Tensor x) override { call({&y, &x}, [&] { device_->gelu_tanh(y, x); }); }
  void gelu_erf(bg::Tensor y, bg::Tensor x) override { call({&y, &x}, [&] { device_->gelu_erf(y, x); }); }
  void silu_mul(bg::Tensor y, bg::Tensor gate, bg::Tensor up) override { call({&y, &gate, &up}, [&] { device_->silu_mul(y, gate, up); }); }
  void add(bg::Tensor y, bg::Tensor x) override { call({&y, &x}, [&] { device_->add(y, x); }); }
  void rotary(bg::Tensor y, int64_t heads, bg::Tensor cos, bg::Tensor sin) override { call({&y, &cos, &sin}, [&] { device_->rotary(y, heads, cos, sin); }); }
  void rotate_into_cache(bg::Tensor keys, bg::Tensor values, bg::Tensor q, bg::Tensor k, bg::Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                         float eps, bg::Tensor cos, bg::Tensor sin, int64_t past) override {
    call({&keys, &values, &q, &k, &v, {&wq, q.cols / heads}, {&wk, q.cols / heads}, &cos, &sin},
         [&] { device_->rotate_into_cache(keys, values, q, k, v, heads, kv_heads, wq, wk, eps, cos, sin, past); });
  }
  void attention_frames(bg::Tensor o, bg::Tensor q, bg::Tensor k, bg::Tensor v, int64_t heads, int64_t frame) override {
    call({&o, &q, &k, &v}, [&] { device_->attention_frames(o, q, k, v, heads, frame); });
  }
  void attention_causal(bg::Tensor o, bg::Tensor q, bg::Tensor k, bg::Tensor v, int64_t heads, int64_t kv_heads, int64_t past) override {
    call({&o, &q, &k, &v}, [&] { device_->attention_causal(o, q, k, v, heads, kv_heads, past); });
  }
  void attention_dilated(bg::Tensor o, bg::Tensor q, bg::Tensor k, bg::Tensor v, int64_t heads, const bg::Dilation* pairs, int64_t n) override {
    call({&o, &q, &k, &v}, [&] { device_->attention_dilated(o, q, k, v, heads, pairs, n); });
  }
  void products(bg::Tensor y, bg::Tensor a, bg::Tensor b) override { call({&y, &a, &b}, [&] { device_->products(y, a, b); }); }
  void scale(bg::Tensor y, double a) override { call({&y}, [&] { device_->scale(y, a); }); }
  bg::Likeliest likeliest(bg::Tensor logits) override {
    bg::Likeliest found;
    call({&logits}, [&] { found = device_->likeliest(logits); });
    return found;
  }
  double candidates(bg::Candidate* found, bg::Tensor logits, int64_t k, double temperature) override {
    double sum = 0;
    call({&logits}, [&] { sum = device_->candidates(found, logits, k, temperature); });
    return sum;
  }
  void penalise(bg::Tensor logits, const int32_t* ids, int64_t n, double penalty) override { call({&logits}, [&] { device_->penalise(logits, ids, n, penalty); }); }
  size_t concept_scratch(int64_t columns) const override { return device_->concept_scratch(columns); }
  void concept_scores(bg::Tensor y, bg::Tensor z, int64_t heads, void* scratch) override {
    call({&y, &z, {&scratch, concept_scratch(z.cols)}}, [&] { device_->concept_scores(y, z, heads, scratch); });
  }
  size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) const override { return device_->coverage_scratch(L, D, m, k, allowed); }
  double coverage_select(int64_t* index, double* gain, bg::Tensor v, bg::Tensor t, int64_t k, void* scratch, size_t bytes, bg::CoverageReport* report) override {
    double sum = 0;
    call({&v, &t, {&scratch, bytes}}, [&] { sum = device_->coverage_select(index, gain, v, t, k, scratch, bytes, report); });
    return sum;
  }

 private:
  // One argument: where its pointer stands, and the bytes that it points to.
  struct Given {
    const void** pointer;
    size_t bytes;
    Given(bg::Tensor* t) : pointer(const_cast<const void**>(&t->data)), bytes(t->rows == 0 ? 0 : bg::stored_bytes(t->type, (t->rows - 1) * t->stride) + bg::stored_bytes(t->type, t->cols)) {}
    Given(bg::Weight* w) : pointer(&w->data), bytes(bg::weight_bytes(w->type, w->rows, w->cols, w->layout)) {}
    Given(const float** p, int64_t n) : pointer(reinterpret_cast<const void**>(p)), bytes(*p == nullptr ? 0 : size_t(n) * sizeof(float)) {}
    Given(void** p, size_t n) : pointer(const_cast<const void**>(p)), bytes(n) {}
    const char* begin() const { return static_cast<const char*>(*pointer); }
  };
  // Host memory and its copy on the device; arguments that overlap share one.
  struct Range {
    char *begin, *end, *base = nullptr, *there = nullptr;
    size_t size() const { return size_t(end - begin); }
    size_t taken() const { return size_t(there - base) + (size() + 3) / 4 * 4; }
  };

  template <class Body>
  void call(const std::vector<Given>& given, const Body& body) {
    std::vector<Range> ranges;
    for (const Given& g : given)
      if (g.bytes > 0) ranges.push_back({const_cast<char*>(g.begin()), const_cast<char*>(g.begin()) + g.bytes});
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    size_t kept = 0;
    for (size_t i = 1; i < ranges.size(); ++i) {
      if (ranges[i].begin < ranges[kept].end)
        ranges[kept].end = std::max(ranges[kept].end, ranges[i].end);
      else
        ranges[++kept] = ranges[i];
    }
    ranges.resize(std::min(ranges.size(), kept + 1));

    const Releaser releaser{*device_, ranges};
    for (Range& r : ranges) {
      const size_t offset = reinterpret_cast<uintptr_t>(r.begin) % 256;
      r.base = static_cast<char*>(device_->allocate(offset + (r.size() + 3) / 4 * 4));
      if (r.base == nullptr) throw bg::DeviceError("no device memory for a test");
      r.there = r.base + offset;
      device_->upload(r.there, r.begin, r.size());
    }
    std::vector<const void*> before;
    for (const Given& g : given) {
      before.push_back(*g.pointer);
      if (g.bytes == 0) continue;
      for (const Range& r : ranges)
        if (g.begin() >= r.begin && g.begin() < r.end) {
          *g.pointer = r.there + (g.begin() - r.begin);
          break;
        }
    }
    body();
    for (size_t i = 0; i < given.size(); ++i) *given[i].pointer = before[i];
    for (const Range& r : ranges) {
      std::vector<float> bytes((r.size() + 3) / 4);
      device_->read(bytes.data(), {r.there, bg::Type::f32, 1, int64_t(bytes.size()), int64_t(bytes.size())});
      if (std::memcmp(r.begin, bytes.data(), r.size()) != 0) std::memcpy(r.begin, bytes.data(), r.size());  // inputs may be constants
    }
  }

  struct Releaser {
    bg::Ops& device;
    const std::vector<Range>& ranges;
    ~Releaser() {
      for (const Range& r : ranges)
        if (r.base != nullptr) device.release(r.base, r.taken());
    }
  };

  std::unique_ptr<bg::Ops> device_, host_;
};

}  // namespace kernels_test
