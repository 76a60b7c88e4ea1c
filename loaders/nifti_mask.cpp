// save_mask: a uint8 mask as gzip-compressed NIfTI-1 with the geometry of a volume. In: mask (nz, ny, nx). Out: the file, complete or not there.
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "loaders/error.h"
#include "loaders/new_file.h"
#include "loaders/volume.h"

namespace bg {
namespace {

template <class T>
void put(std::vector<uint8_t>& header, size_t at, T value) {
  std::memcpy(&header[at], &value, sizeof(T));
}

// 348 bytes and four that say: no extensions. Orientation as sform ("aligned", as nibabel for an affine of unknown origin), qform unknown.
std::vector<uint8_t> mask_header(const Volume& like) {
  std::vector<uint8_t> h(352, 0);
  put<int32_t>(h, 0, 348);
  const int64_t dim[8] = {3, like.nx, like.ny, like.nz, 1, 1, 1, 1};
  for (size_t i = 0; i < 8; ++i) put<int16_t>(h, 40 + 2 * i, int16_t(dim[i]));
  put<int16_t>(h, 70, 2);  // uint8
  put<int16_t>(h, 72, 8);
  for (size_t i = 0; i < 8; ++i) put<float>(h, 76 + 4 * i, i >= 1 && i <= 3 && like.spacing[i - 1] > 0 ? float(like.spacing[i - 1]) : 1.0f);
  put<float>(h, 108, 352);  // image
  put<float>(h, 112, 1);    // slope
  h[123] = 2;               // millimetres
  put<float>(h, 124, 1);    // display maximum
  if (like.has_affine) {
    put<int16_t>(h, 254, 2);
    for (size_t i = 0; i < 12; ++i) put<float>(h, 280 + 4 * i, float(like.affine[i / 4][i % 4]));
  }
  std::memcpy(&h[344], "n+1", 4);
  return h;
}

class GzipFile {
 public:
  explicit GzipFile(const std::string& target) : file_(target) {
    if (deflateInit2(&z_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      throw Error(Status::internal, target + ": zlib cannot start");
    }
  }
  ~GzipFile() { deflateEnd(&z_); }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  void write(const uint8_t* data, size_t n) {
    while (n > 0) {
      const uInt part = uInt(std::min<size_t>(n, size_t(1) << 30));
      z_.next_in = const_cast<uint8_t*>(data);
      z_.avail_in = part;
      drain(Z_NO_FLUSH);
      data += part;
      n -= part;
    }
  }

  void commit() {
    z_.avail_in = 0;
    drain(Z_FINISH);
    file_.commit();
  }

 private:
  void drain(int flush) {
    uint8_t piece[1 << 15];
    do {
      z_.next_out = piece;
      z_.avail_out = sizeof piece;
      deflate(&z_, flush);
      file_.append(piece, sizeof piece - z_.avail_out);
    } while (z_.avail_out == 0);
  }

  NewFile file_;
  z_stream z_{};
};

}  // namespace

void save_mask(const std::string& path, const std::vector<uint8_t>& mask, const Volume& like) {
  const std::string size = std::to_string(like.nx) + "x" + std::to_string(like.ny) + "x" + std::to_string(like.nz);
  for (const int64_t n : {like.nx, like.ny, like.nz}) {
    if (n < 1 || n > 32767) throw Error(Status::invalid_argument, path + ": a mask of " + size + " voxels: NIfTI-1 holds sides of 1 ... 32767; crop the volume");
  }
  if (mask.size() != size_t(like.nx * like.ny * like.nz)) {
    throw Error(Status::invalid_argument, path + ": the mask has " + std::to_string(mask.size()) + " voxels, the volume " + size + "; they must agree");
  }
  GzipFile out(path);
  const std::vector<uint8_t> header = mask_header(like);
  out.write(header.data(), header.size());
  out.write(mask.data(), mask.size());
  out.commit();
}

}  // namespace bg
