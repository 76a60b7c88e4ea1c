// NIfTI-1 and NIfTI-2 with header and image in one file (.nii, .nii.gz), either byte order, all integer and float types, slope and intercept.
// In: the file in memory; a compressed one is inflated in pieces, never as a whole. Out: Volume; the array order (z, y, x) is the file's own order,
// x fastest. Values, scaling and orientation are nibabel's. Not here: header/image pairs, Analyze, complex and RGB types, extensions (skipped).
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "loaders/volume_source.h"

namespace bg {
namespace {

constexpr uint64_t most_before_image = uint64_t(1) << 28;  // bytes of header and extensions
constexpr uint64_t most_behind_image = uint64_t(1) << 20;  // bytes; some writers pad
constexpr uint64_t deflate_ratio = 1032;                   // the most that one compressed byte can become

// The file's bytes in order, inflated when it is gzip (several members are one stream).
class Bytes {
 public:
  explicit Bytes(const VolumeSource& s) : s_(s), gzip_(s.size >= 2 && s.data[0] == 0x1F && s.data[1] == 0x8B) {
    if (gzip_ && inflateInit2(&z_, 15 + 16) != Z_OK) s.fail(Status::internal, "gzip: zlib cannot start");
  }
  ~Bytes() {
    if (gzip_) inflateEnd(&z_);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  bool gzip() const { return gzip_; }
  // The file's size, or no less than what it can inflate to.
  uint64_t most() const { return gzip_ ? uint64_t(s_.size) * deflate_ratio : s_.size; }

  // Up to n bytes; fewer only at the end of the stream.
  size_t read(uint8_t* out, size_t n) {
    if (gzip_) return inflate_some(out, n);
    n = std::min(n, s_.size - at_);
    if (n > 0) std::memcpy(out, s_.data + at_, n);
    at_ += n;
    return n;
  }

 private:
  size_t inflate_some(uint8_t* out, size_t n) {
    size_t made = 0;
    while (made < n && !ended_) {
      const uInt given = uInt(std::min<size_t>(s_.size - at_, size_t(1) << 30)), wanted = uInt(std::min<size_t>(n - made, size_t(1) << 30));
      z_.next_in = const_cast<uint8_t*>(s_.data) + at_;
      z_.avail_in = given;
      z_.next_out = out + made;
      z_.avail_out = wanted;
      const int state = inflate(&z_, Z_NO_FLUSH);
      at_ += given - z_.avail_in;
      made += wanted - z_.avail_out;
      total_ += wanted - z_.avail_out;
      if (state == Z_STREAM_END) next_member();
      else if (state == Z_BUF_ERROR) s_.damaged("gzip: the compressed data end after " + std::to_string(total_) + " inflated bytes");
      else if (state != Z_OK) s_.damaged("gzip: the compressed data are wrong after " + std::to_string(total_) + " inflated bytes");
    }
    return made;
  }

  // Another member follows directly; zeros may pad the file.
  void next_member() {
    const bool another = s_.size - at_ >= 2 && s_.data[at_] == 0x1F && s_.data[at_ + 1] == 0x8B;
    if (another) {
      inflateReset(&z_);
      return;
    }
    ended_ = true;
    if (std::any_of(s_.data + at_, s_.data + s_.size, [](uint8_t b) { return b != 0; })) {
      s_.damaged("gzip: something that is not gzip follows at byte " + std::to_string(at_));
    }
  }

  const VolumeSource& s_;
  z_stream z_{};
  size_t at_ = 0;
  uint64_t total_ = 0;  // inflated bytes, for messages
  bool gzip_, ended_ = false;
};

// Positions of the fields that we use.
struct Layout {
  const char* name;
  size_t bytes, magic, dim, pixdim, datatype, bitpix, vox_offset, slope, intercept, qform_code, sform_code, quaternion, qoffset, srow, units;
  bool wide;  // NIfTI-2: 64-bit sizes and floats, 32-bit codes
};
constexpr Layout nifti1{"NIfTI-1", 348, 344, 40, 76, 70, 72, 108, 112, 116, 252, 254, 256, 268, 280, 123, false};
constexpr Layout nifti2{"NIfTI-2", 540, 4, 16, 104, 12, 14, 168, 176, 184, 344, 348, 352, 376, 400, 500, true};

struct Header {
  const Layout* layout = nullptr;
  bool swapped = false;
  std::array<uint8_t, 540> bytes{};

  template <class T>
  T at(size_t offset) const {
    uint8_t b[sizeof(T)];
    for (size_t i = 0; i < sizeof(T); ++i) b[i] = bytes[offset + (swapped ? sizeof(T) - 1 - i : i)];
    T value;
    std::memcpy(&value, b, sizeof(T));
    return value;
  }
  // Item i of a field that is narrow in NIfTI-1 and wide in NIfTI-2.
  double real(size_t offset, size_t i = 0) const { return layout->wide ? at<double>(offset + 8 * i) : double(at<float>(offset + 4 * i)); }
  int64_t size(size_t i) const { return layout->wide ? at<int64_t>(layout->dim + 8 * i) : at<int16_t>(layout->dim + 2 * i); }
  int code(size_t offset) const { return layout->wide ? at<int32_t>(offset) : at<int16_t>(offset); }
};

void read_exactly(const VolumeSource& s, Bytes& in, uint8_t* out, size_t n, size_t before) {
  const size_t got = in.read(out, n);
  if (got < n) s.damaged("NIfTI: ends inside the header, after " + std::to_string(before + got) + " bytes");
}

Header read_header(const VolumeSource& s, Bytes& in) {
  Header h;
  read_exactly(s, in, h.bytes.data(), 4, 0);
  for (const Layout* layout : {&nifti1, &nifti2}) {
    for (const bool swapped : {false, true}) {
      h.swapped = swapped;
      if (h.at<int32_t>(0) != int32_t(layout->bytes)) continue;
      h.layout = layout;
      read_exactly(s, in, h.bytes.data() + 4, layout->bytes - 4, 4);
      const std::string magic(reinterpret_cast<const char*>(&h.bytes[layout->magic]), layout->wide ? 8 : 4);
      const std::string tail = layout->wide ? std::string("\0\r\n\032\n", 5) : std::string("\0", 1), digit = layout->wide ? "2" : "1";
      if (magic == "n+" + digit + tail) return h;
      if (magic == "ni" + digit + tail) {
        s.fail(Status::unsupported, std::string(layout->name) + ": header and image are two files (.hdr and .img); convert to one .nii, no other file is read");
      }
      if (layout->wide) s.damaged("NIfTI-2: the signature is wrong");
      s.fail(Status::unsupported, "has no NIfTI signature (Analyze 7.5 or a damaged header); convert to .nii");
    }
  }
  s.fail(Status::unsupported, std::string(in.gzip() ? "is gzip of something else than NIfTI" : "is not a volume of a known format") +
                                  " (.nii, .nii.gz and .npy are read); convert to NIfTI");
}

Number read_type(const VolumeSource& s, const Header& h) {
  static constexpr struct {
    int code;
    Number type;
  } known[] = {{2, Number::u8},    {4, Number::i16},   {8, Number::i32},    {16, Number::f32},  {64, Number::f64},
               {256, Number::i8},  {512, Number::u16}, {768, Number::u32},  {1024, Number::i64}, {1280, Number::u64}};
  static constexpr struct {
    int code;
    const char* name;
  } refused[] = {{1, "1-bit"},          {32, "complex64"},    {128, "RGB24"},     {1536, "float128"},
                 {1792, "complex128"}, {2048, "complex256"}, {2304, "RGBA32"}};
  const std::string format = h.layout->name;
  const int code = h.at<int16_t>(h.layout->datatype), bits = h.at<int16_t>(h.layout->bitpix);
  for (const auto& r : refused) {
    if (code == r.code) s.fail(Status::unsupported, format + ": type " + r.name + " is not read; convert to int16 or float32");
  }
  for (const auto& k : known) {
    if (code != k.code) continue;
    if (bits != 8 * number_bytes(k.type)) {
      s.damaged(format + ": data type " + std::to_string(code) + " has " + std::to_string(8 * number_bytes(k.type)) + " bits, bitpix says " + std::to_string(bits));
    }
    return k.type;
  }
  s.damaged(format + ": data type " + std::to_string(code) + " does not exist");
}

void read_sizes(const VolumeSource& s, const Header& h, Volume& v) {
  const std::string format = h.layout->name;
  const int64_t axes = h.size(0);
  if (axes < 1 || axes > 7) s.damaged(format + ": " + std::to_string(axes) + " axes; expected 3");
  std::string shape;
  bool three = axes >= 3;
  for (size_t i = 1; i <= size_t(axes); ++i) {
    shape += (i > 1 ? "x" : "") + std::to_string(h.size(i));
    if (i > 3 && h.size(i) != 1) three = false;
  }
  if (!three) s.fail(Status::unsupported, format + ": " + shape + " is not three-dimensional; extract one volume (x, y, z)");
  v.nx = h.size(1);
  v.ny = h.size(2);
  v.nz = h.size(3);
}

// Slope 0 or no number: no scaling at all. A valid slope needs a valid intercept.
void read_scaling(const VolumeSource& s, const Header& h, Coding& coding) {
  const double slope = h.real(h.layout->slope), intercept = h.real(h.layout->intercept);
  if (slope == 0 || !std::isfinite(slope)) return;
  if (!std::isfinite(intercept)) s.damaged(std::string(h.layout->name) + ": the slope is valid and the intercept is not a number");
  coding.slope = slope;
  coding.intercept = intercept;
}

using Matrix = double[3][4];

// Rotation from the quaternion (w, b, c, d), w = √(1 − b² − c² − d²), 0 where that is within rounding of 0.
void read_qform(const VolumeSource& s, const Header& h, const double (&zoom)[3], Matrix& m) {
  const Layout& l = *h.layout;
  const long double b = h.real(l.quaternion, 0), c = h.real(l.quaternion, 1), d = h.real(l.quaternion, 2);
  const long double w2 = 1 - (b * b + c * c + d * d), threshold = 3 * (l.wide ? 0x1p-52L : 0x1p-23L);
  if (!(w2 > -threshold)) s.damaged(std::string(l.name) + ": the orientation's quaternion is longer than 1");
  const long double w = w2 < threshold ? 0 : std::sqrt(w2), k = 2 / (w * w + b * b + c * c + d * d);
  const long double r[3][3] = {{1 - k * (c * c + d * d), k * (b * c - w * d), k * (b * d + w * c)},
                               {k * (b * c + w * d), 1 - k * (b * b + d * d), k * (c * d - w * b)},
                               {k * (b * d - w * c), k * (c * d + w * b), 1 - k * (b * b + c * c)}};
  const double handed = h.real(l.pixdim, 0) == -1 ? -1 : 1;  // anything but −1 counts as 1
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) m[i][j] = double(r[i][j] * (zoom[j] * (j == 2 ? handed : 1.0)));
    m[i][3] = h.real(l.qoffset, i);
  }
}

// sform, else qform, else the spacing with x from right to left around the centre: nibabel's get_best_affine. In millimetres.
void read_geometry(const VolumeSource& s, const Header& h, Volume& v) {
  const Layout& l = *h.layout;
  double zoom[3];
  for (size_t i = 0; i < 3; ++i) {
    zoom[i] = std::fabs(h.real(l.pixdim, i + 1));
    if (zoom[i] == 0) zoom[i] = 1;
  }
  if (h.code(l.sform_code) != 0) {
    for (size_t i = 0; i < 12; ++i) v.affine[i / 4][i % 4] = h.real(l.srow, i);
  } else if (h.code(l.qform_code) != 0) {
    read_qform(s, h, zoom, v.affine);
  } else {
    zoom[0] = -zoom[0];
    const int64_t n[3] = {v.nx, v.ny, v.nz};
    for (size_t i = 0; i < 3; ++i) {
      v.affine[i][i] = zoom[i];
      v.affine[i][3] = -zoom[i] * (double(n[i] - 1) / 2);
    }
  }
  const int unit = (l.wide ? h.at<int32_t>(l.units) : h.bytes[l.units]) & 7;  // 1 metre, 2 millimetre, 3 micrometre, 0 unknown
  const double millimetres = unit == 1 ? 1000 : unit == 3 ? 0.001 : 1;
  for (auto& row : v.affine) {
    for (double& x : row) {
      x *= millimetres;
      if (!std::isfinite(x)) s.damaged(std::string(l.name) + ": the orientation holds something that is not a number");
    }
  }
  for (size_t j = 0; j < 3; ++j) v.spacing[j] = std::hypot(v.affine[0][j], v.affine[1][j], v.affine[2][j]);
  v.has_affine = true;
}

uint64_t read_offset(const VolumeSource& s, const Header& h) {
  const std::string format = h.layout->name;
  const double narrow = h.layout->wide ? 0 : double(h.at<float>(h.layout->vox_offset));
  const uint64_t least = h.layout->bytes + 4;  // four bytes say whether extensions follow
  const bool whole = h.layout->wide || (narrow >= 0 && narrow <= double(most_before_image) && narrow == std::floor(narrow));
  const int64_t offset = h.layout->wide ? h.at<int64_t>(h.layout->vox_offset) : whole ? int64_t(narrow) : -1;
  if (offset < int64_t(least) || uint64_t(offset) > most_before_image) {
    s.damaged(format + ": the image is said to start at byte " + (whole ? std::to_string(offset) : std::to_string(narrow)) + "; expected a whole number of " +
              std::to_string(least) + " ... " + std::to_string(most_before_image));
  }
  return uint64_t(offset);
}

}  // namespace

Volume read_nifti(const VolumeSource& s) {
  Bytes in(s);
  const Header h = read_header(s, in);
  Volume v;
  v.format = h.layout->name;
  read_sizes(s, h, v);
  Coding coding;
  coding.type = read_type(s, h);
  coding.swapped = h.swapped;
  read_scaling(s, h, coding);
  const uint64_t bytes = uint64_t(check_volume_size(s, v.format, v.nx, v.ny, v.nz, coding.type)), offset = read_offset(s, h);
  read_geometry(s, h, v);
  const std::string needs = v.format + ": the header asks for " + std::to_string(bytes) + " bytes of voxels from byte " + std::to_string(offset);
  if (bytes > in.most() || offset > in.most() - bytes) s.damaged(needs + ", the file has or can hold only " + std::to_string(in.most()));

  std::vector<uint8_t> piece(size_t(1) << 16);
  for (uint64_t at = h.layout->bytes; at < offset;) {
    const size_t n = in.read(piece.data(), size_t(std::min<uint64_t>(piece.size(), offset - at)));
    if (n == 0) s.damaged(needs + ", the data end at byte " + std::to_string(at));
    at += n;
  }
  const size_t width = size_t(number_bytes(coding.type)), voxels = size_t(bytes) / width;
  v.voxels.resize(voxels);
  for (size_t done = 0; done < voxels;) {
    const size_t n = std::min(piece.size() / width, voxels - done);
    const size_t got = in.read(piece.data(), n * width);
    if (got < n * width) s.damaged(needs + ", the data end at byte " + std::to_string(offset + done * width + got));
    to_floats(&v.voxels[done], piece.data(), int64_t(n), coding);
    done += n;
  }
  // To the end of the stream: the gzip checksum stands there, and a header that asks for much less than there is lies.
  uint64_t behind = 0;
  for (size_t n; behind <= most_behind_image && (n = in.read(piece.data(), piece.size())) > 0;) behind += n;
  if (behind > most_behind_image) s.damaged(needs + ", more than 1 MiB follow behind");
  return v;
}

}  // namespace bg
