// Norms, rotation and activations: bytes read and written, as a share of the read bandwidth. Above 100 % where a cache still holds them, as in a real run.
#include <vector>

#include "tests/bench/memory.h"
#include "tests/bench/parts.h"

namespace bg::bench {
namespace {

Work moved(double floats) {
  Work w;
  w.bytes = 4 * floats;
  return w;
}

}  // namespace

void bench_elements(Report& report, Ops& ops) {
  report.title("norms, rotation, activations");
  const std::vector<float> ones(16384, 1.0f), zeros(16384, 0.0f);
  {
    const Activations x(512, 4096), y(512, 4096);
    report.measure("norm RMS 512 x 4096", moved(2.0 * 512 * 4096), [&] { ops.rms_norm(y.t, x.t, ones.data(), 1e-6f); });
    const Activations cos(512, 64), sin(512, 64);
    report.measure("rotary 512 x 32 heads of 128", moved(2.0 * 512 * 4096), [&] { ops.rotary(y.t, 32, cos.t, sin.t); });
  }
  {
    const Activations x(4096, 1152), y(4096, 1152);
    report.measure("norm layer 4096 x 1152", moved(2.0 * 4096 * 1152), [&] { ops.layer_norm(y.t, x.t, ones.data(), zeros.data(), 1e-6f); });
  }
  {
    const Activations gate(512, 12288), up(512, 12288), y(512, 12288);
    report.measure("activation silu_mul 512 x 12288", moved(3.0 * 512 * 12288), [&] { ops.silu_mul(y.t, gate.t, up.t); });
  }
  {
    const Activations x(4096, 4304), y(4096, 4304);
    report.measure("activation gelu_tanh 4096 x 4304", moved(2.0 * 4096 * 4304), [&] { ops.gelu_tanh(y.t, x.t); });
  }
  {
    const Activations x(1024, 4608), y(1024, 4608);
    report.measure("activation gelu_erf 1024 x 4608", moved(2.0 * 1024 * 4608), [&] { ops.gelu_erf(y.t, x.t); });
  }
}

}  // namespace bg::bench
