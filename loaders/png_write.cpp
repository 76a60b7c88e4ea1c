// PNG: 8-bit RGB, not interlaced. Each row takes the filter whose bytes, read as signed, have the smallest sum of magnitudes; the stream goes out in
// pieces, so that no second copy of the picture is held.
#include "loaders/png_write.h"

#include <zlib.h>

#include <cstdlib>

#include "loaders/error.h"
#include "loaders/new_file.h"

namespace bg {
namespace {

void put32(uint8_t* p, uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = uint8_t(v >> (24 - 8 * i));
}

void put_chunk(NewFile& file, const char* type, const uint8_t* data, size_t n) {
  uint8_t head[8], tail[4];
  put32(head, uint32_t(n));
  for (int i = 0; i < 4; ++i) head[4 + i] = uint8_t(type[i]);
  const uLong crc = crc32_z(crc32_z(0, head + 4, 4), data, n);
  put32(tail, uint32_t(crc));
  file.append(head, 8);
  file.append(data, n);
  file.append(tail, 4);
}

class Stream {
 public:
  explicit Stream(NewFile& file) : file_(file), out_(size_t(1) << 18) {
    if (deflateInit(&z_, 6) != Z_OK) throw Error(Status::internal, "PNG: zlib cannot start");
    rewind();
  }
  ~Stream() { deflateEnd(&z_); }
  void put(std::vector<uint8_t>& bytes, bool last) {
    z_.next_in = bytes.data();
    z_.avail_in = uInt(bytes.size());
    int state;
    do {
      state = deflate(&z_, last ? Z_FINISH : Z_NO_FLUSH);
      if (z_.avail_out == 0 || state == Z_STREAM_END) {
        put_chunk(file_, "IDAT", out_.data(), out_.size() - z_.avail_out);
        rewind();
      }
    } while (last ? state != Z_STREAM_END : z_.avail_in > 0);
  }

 private:
  void rewind() {
    z_.next_out = out_.data();
    z_.avail_out = uInt(out_.size());
  }
  NewFile& file_;
  std::vector<uint8_t> out_;
  z_stream z_{};
};

// Filter 0 (none), 1 (left), 2 (above), 4 (Paeth: whichever of left, above, above left is nearest to left + above − above left).
uint8_t predict(int filter, int left, int above, int corner) {
  if (filter == 0) return 0;
  if (filter == 1) return uint8_t(left);
  if (filter == 2) return uint8_t(above);
  const int a = std::abs(above - corner), b = std::abs(left - corner), c = std::abs(left + above - 2 * corner);
  return uint8_t(a <= b && a <= c ? left : b <= c ? above : corner);
}

// row and above: n bytes of pixels. out: the filter's number and n bytes. Returns the sum of magnitudes.
int64_t filter_row(int filter, const uint8_t* row, const uint8_t* above, size_t n, std::vector<uint8_t>& out) {
  out[0] = uint8_t(filter);
  int64_t sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const int left = i < 3 ? 0 : row[i - 3], corner = i < 3 ? 0 : above[i - 3];
    out[i + 1] = uint8_t(row[i] - predict(filter, left, above[i], corner));
    sum += std::abs(int8_t(out[i + 1]));
  }
  return sum;
}

}  // namespace

void save_png(const std::string& path, int64_t width, int64_t height, const std::vector<uint8_t>& rgb) {
  constexpr int64_t most = int64_t(1) << 30;  // a side; PNG's own limit is 2³¹ − 1, a row's bytes must fit zlib's 32-bit count
  if (width < 1 || height < 1 || width > most || height > most || uint64_t(width) * uint64_t(height) * 3 != rgb.size()) {
    throw Error(Status::invalid_argument, path + ": a picture of " + std::to_string(width) + "x" + std::to_string(height) + " does not fit " +
                                              std::to_string(rgb.size()) + " bytes of RGB");
  }
  NewFile file(path);
  const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  file.append(signature, 8);
  uint8_t header[13] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0};  // 8 bits, RGB, deflate, adaptive filters, not interlaced
  put32(header, uint32_t(width));
  put32(header + 4, uint32_t(height));
  put_chunk(file, "IHDR", header, sizeof header);
  {
    Stream stream(file);
    const size_t n = size_t(width) * 3;
    const std::vector<uint8_t> nothing(n);
    std::vector<uint8_t> best(n + 1), other(n + 1);
    for (int64_t y = 0; y < height; ++y) {
      const uint8_t* row = rgb.data() + size_t(y) * n;
      const uint8_t* above = y == 0 ? nothing.data() : row - n;
      int64_t least = filter_row(0, row, above, n, best);
      for (const int filter : {1, 2, 4}) {
        const int64_t sum = filter_row(filter, row, above, n, other);
        if (sum >= least) continue;
        least = sum;
        best.swap(other);
      }
      stream.put(best, y + 1 == height);
    }
  }
  put_chunk(file, "IEND", signature, 0);  // not nullptr: crc32 would start over
  file.commit();
}

}  // namespace bg
