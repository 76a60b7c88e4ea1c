// The table that takes tests to a GPU (tests/mirror.h), here with the emulated one behind it: what comes out is what the emulated table gives without it.
#include <array>

#include "tests/kernels_support.h"
#include "tests/mirror.h"

using namespace kernels_test;

TEST_CASE("mirror: operations on host memory through a device's") {
  const std::unique_ptr<Ops> plain(bg::make_emulated_ops(1, bg::Precision::float32));
  Mirror mirror(bg::make_emulated_ops(1, bg::Precision::float32));
  CHECK(std::string(mirror.name()) == "emulated");
  const auto same = [&](const char* what, const Mat<float>& y0, const std::vector<Mat<float>>& in, const Run& run) {
    Mat<float> expected = y0, y = y0;
    std::vector<Mat<float>> a = in, b = in;
    run(*plain, expected.tensor(), tensors(a));
    run(mirror, y.tensor(), tensors(b));
    CHECK_MESSAGE(y.same_bits(expected), what);
    CHECK_MESSAGE(y.guards_intact(), what);
    for (size_t i = 0; i < in.size(); ++i) CHECK_MESSAGE(b[i].same_bits(a[i]), what << ", input " << i);
  };
  static constexpr float kBias[] = {1, -2, 3, -4, 5};  // nothing may be written back here
  const Mat<float> x = random(7, 12), y0 = random(7, 12, 1, 5), cos = random(7, 3), sin = random(7, 3);
  const int64_t index[] = {6, 0, 2, 1, 5, 4, 3};
  const WeightData w(Type::bf16, 5, 12), narrow(Type::f32, 3, 12);

  same("copy", y0, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.copy(y, in[0]); });
  same("gather", y0, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.gather_rows(y, in[0], index); });
  same("scatter_add", y0, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.scatter_add_rows(y, in[0], index); });
  same("no rows", y0, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.copy(y.row_range(0, 0), in[0].row_range(0, 0)); });
  same("y is x", y0, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>&) { o.gelu_tanh(y, y); });
  same("parts of one matrix", y0, {cos, sin}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) {
    o.rotary(y.col_range(0, 6), 1, in[0], in[1]);
    o.add(y.col_range(0, 6), y.col_range(5, 6).row_range(0, 7));
  });
  same("several products", Mat<float>(7, 8), {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) {
    const bg::Product products[] = {{y.col_range(0, 5), w.weight(), kBias}, {y.col_range(5, 3), narrow.weight()}};
    o.linear(in[0], products, 2);
  });
  same("a constant", Mat<float>(7, 5), {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.linear(y, in[0], w.weight(), kBias); });
  Mat<float> row = random(1, 100);
  CHECK(mirror.likeliest(row.tensor()).id == plain->likeliest(row.tensor()).id);

  std::vector<float> host(84), back(84);
  for (float& f : host) f = normal();
  Mat<float> written = y0;
  mirror.write(written.tensor(), host.data());
  mirror.read(back.data(), written.tensor());
  CHECK(back == host);
}

// What a kernel test sees when a kernel fails: the error, with its own memory as it was.
TEST_CASE("mirror: a failure of the device is thrown on") {
  Mirror mirror(bg::make_emulated_ops(1, bg::Precision::float32));
  Mat<float> x = random(3, 4), before = x;
  bg::fail_emulated_launch(1);
  CHECK_THROWS_AS(mirror.add(x.tensor(), x.tensor()), bg::DeviceError);
  bg::fail_emulated_launch(0);
  CHECK(x.same_bits(before));
}

TEST_CASE("mirror: a GPU is there where nothing else is to be tested") {
  const char* only = std::getenv("BG_TEST_BACKENDS");
  if (only == nullptr || std::strcmp(only, "cuda") != 0) return;
  REQUIRE(!backends().empty());
  for (const Backend& b : backends()) CHECK(std::string(b.ops->name()) == "cuda");
}
