// load_image: tells the format from the first bytes and hands the file to its decoder; names the formats that are not read and says what to do.
#include "loaders/image.h"

#include <cstring>

#include "loaders/image_decode.h"
#include "loaders/mapped_file.h"

namespace bg {
namespace {

bool has(const ImageSource& s, size_t at, const char* text, size_t n) { return s.size >= at + n && std::memcmp(s.data + at, text, n) == 0; }

template <size_t N>
bool has(const ImageSource& s, size_t at, const char (&text)[N]) {
  return has(s, at, text, N - 1);
}

bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// ISO base media files: "ftyp", then a brand of four letters. nullptr when the brand is no picture's.
const char* media_brand(const ImageSource& s) {
  if (!has(s, 4, "ftyp")) return nullptr;
  for (const char* brand : {"heic", "heix", "heim", "heis", "hevc", "mif1", "msf1"}) {
    if (has(s, 8, brand, 4)) return "HEIC";
  }
  return has(s, 8, "avif") || has(s, 8, "avis") ? "AVIF" : nullptr;
}

// SVG is text: "<svg" within the first kilobyte of something that starts like XML.
bool is_svg(const ImageSource& s) {
  size_t i = has(s, 0, "\xEF\xBB\xBF") ? 3 : 0;
  while (i < s.size && is_space(s.data[i])) ++i;
  if (i == s.size || s.data[i] != '<') return false;
  const size_t end = s.size < i + 1024 ? s.size : i + 1024;
  const std::string head(reinterpret_cast<const char*>(s.data) + i, end - i);
  return head.find("<svg") != std::string::npos;
}

// The name of a format that is recognised but not read, or nullptr.
const char* other_picture(const ImageSource& s) {
  if (has(s, 0, "GIF87a") || has(s, 0, "GIF89a")) return "GIF";
  if (has(s, 0, "RIFF") && has(s, 8, "WEBP")) return "WebP";
  if (const char* brand = media_brand(s)) return brand;
  if (has(s, 0, "\0\0\0\x0CjP  ") || has(s, 0, "\xFF\x4F\xFF\x51")) return "JPEG 2000";
  if (has(s, 0, "\0\0\0\x0CJXL ") || has(s, 0, "\xFF\x0A")) return "JPEG XL";
  if (has(s, 0, "8BPS")) return "Photoshop";
  if (has(s, 0, "%PDF-")) return "PDF";
  if (has(s, 0, "%!PS")) return "PostScript";
  if (s.size >= 3 && s.data[0] == 'P' && (s.data[1] == '7' || s.data[1] == 'f' || s.data[1] == 'F') && is_space(s.data[2])) {
    return s.data[1] == '7' ? "PAM" : "PFM";
  }
  return is_svg(s) ? "SVG" : nullptr;
}

[[noreturn]] void refuse(const ImageSource& s) {
  const char* readable = "PNG, JPEG, TIFF, BMP and PNM are read";
  if (const char* format = other_picture(s)) {
    s.fail(Status::unsupported, std::string(format) + " pictures are not read; convert to PNG (" + readable + ")");
  }
  if (has(s, 128, "DICM")) s.fail(Status::unsupported, "DICOM is not read yet (a later version will); export the picture as 16-bit PNG");
  if (has(s, 344, "n+1\0") || has(s, 344, "ni1\0")) s.fail(Status::unsupported, "is a NIfTI volume, not a picture; give it as a volume");
  if (has(s, 0, "\x89HDF\r\n\x1A\n")) s.fail(Status::unsupported, "is an HDF5 file, not a picture; slide features are given as a slide");
  if (has(s, 0, "\x1F\x8B") || has(s, 0, "PK\x03\x04")) s.fail(Status::unsupported, "is a compressed archive, not a picture; unpack it first");
  s.fail(Status::unsupported, std::string("is not a picture of a known format (") + readable + "); convert to PNG");
}

}  // namespace

void check_image_size(const ImageSource& source, const char* format, uint64_t width, uint64_t height) {
  const std::string size = std::to_string(width) + "x" + std::to_string(height);
  if (width == 0 || height == 0) source.damaged(std::string(format) + ": the header says " + size + " pixels, both sides must be at least 1");
  // Division instead of a product: the sides come from the file.
  const uint64_t limit = source.limits.max_pixels > 0 ? uint64_t(source.limits.max_pixels) : 0;
  if (width > limit / height) {
    source.fail(Status::too_large, std::string(format) + ": " + size + " pixels are above the limit of " + std::to_string(limit) +
                                       " pixels; reduce the picture or raise the limit (--max-pixels)");
  }
}

Image decode_image(const ImageSource& s) {
  if (s.size == 0) s.fail(Status::bad_file, "is empty; expected a picture");
  if (has(s, 0, "\x89PNG\r\n\x1A\n")) return decode_png(s);
  if (has(s, 0, "\xFF\xD8\xFF")) {
#if BG_WITH_JPEG
    return decode_jpeg(s);
#else
    s.fail(Status::unsupported, "JPEG was left out of this build (make JPEG=1); convert to PNG");
#endif
  }
  if (has(s, 0, "II*\0") || has(s, 0, "MM\0*") || has(s, 0, "II+\0") || has(s, 0, "MM\0+")) {
#if BG_WITH_TIFF
    return decode_tiff(s);
#else
    s.fail(Status::unsupported, "TIFF was left out of this build (make TIFF=1); convert to PNG");
#endif
  }
  if (s.size >= 3 && s.data[0] == 'P' && s.data[1] >= '1' && s.data[1] <= '6' && is_space(s.data[2])) return decode_pnm(s);
  if (has(s, 0, "BM")) return decode_bmp(s);
  refuse(s);
}

Image load_image(const std::string& path, const ImageLimits& limits) {
  const MappedFile file(path);
  return decode_image({file.data(), file.size(), path, limits});
}

}  // namespace bg
