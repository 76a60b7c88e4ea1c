// JPEG through libjpeg(-turbo) with its defaults, which are PIL's: accurate integer DCT, smooth chroma upsampling. Grey is replicated, CMYK and YCCK
// are taken as Adobe stores them (inverted) and converted as PIL converts CMYK. libjpeg's warnings (data that end early, corrupt codes) are errors here.
//
// libjpeg reports errors by a call that must not return. setjmp is used in functions that own nothing with a destructor: Decoder holds plain data, its
// steps return false after a jump, and the code that owns vectors calls the steps and throws.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include "loaders/image_decode.h"

#include <jpeglib.h>
#include <jerror.h>

namespace bg {
namespace {

// A progressive picture needs about ten scans; each costs a pass over the whole picture, so a small file could ask for hours.
constexpr int max_scans = 500;

struct Decoder {
  jpeg_decompress_struct jpeg;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

Decoder* decoder_of(j_common_ptr jpeg) { return static_cast<Decoder*>(jpeg->client_data); }

[[noreturn]] void on_error(j_common_ptr jpeg) {
  Decoder* d = decoder_of(jpeg);
  jpeg->err->format_message(jpeg, d->message);
  std::longjmp(d->jump, 1);
}

// level −1 is a warning, above 0 are traces. Two warnings concern a header field that does not change the pixels.
void on_message(j_common_ptr jpeg, int level) {
  if (level >= 0 || jpeg->err->msg_code == JWRN_JFIF_MAJOR || jpeg->err->msg_code == JWRN_ADOBE_XFORM) return;
  on_error(jpeg);
}

void print_nothing(j_common_ptr) {}

void on_progress(j_common_ptr jpeg) {
  const auto* decompress = reinterpret_cast<j_decompress_ptr>(jpeg);
  if (decompress->input_scan_number <= max_scans) return;
  Decoder* d = decoder_of(jpeg);
  std::snprintf(d->message, sizeof d->message, "more than %d scans", max_scans);
  std::longjmp(d->jump, 1);
}

bool open(Decoder& d, const uint8_t* data, size_t size) {
  d.jpeg.err = jpeg_std_error(&d.errors);
  d.errors.error_exit = on_error;
  d.errors.emit_message = on_message;
  d.errors.output_message = print_nothing;
  d.jpeg.client_data = &d;
  if (setjmp(d.jump)) return false;
  jpeg_create_decompress(&d.jpeg);
  d.progress.progress_monitor = on_progress;
  d.jpeg.progress = &d.progress;
  jpeg_mem_src(&d.jpeg, data, static_cast<unsigned long>(size));
  jpeg_read_header(&d.jpeg, TRUE);
  return true;
}

bool start(Decoder& d) {
  if (setjmp(d.jump)) return false;
  if (d.jpeg.num_components == 4) d.jpeg.out_color_space = JCS_CMYK;
  jpeg_start_decompress(&d.jpeg);
  return true;
}

bool read_row(Decoder& d, uint8_t* row) {
  if (setjmp(d.jump)) return false;
  return jpeg_read_scanlines(&d.jpeg, &row, 1) == 1;
}

bool finish(Decoder& d) {
  if (setjmp(d.jump)) return false;
  return jpeg_finish_decompress(&d.jpeg) == TRUE;
}

// Zeroed first, so that destroying is defined however far open came.
struct Owner {
  Decoder decoder{};
  ~Owner() { jpeg_destroy_decompress(&decoder.jpeg); }
};

// One decoded row of 1, 3 or 4 channels → RGB.
void to_rgb(uint8_t* rgb, const uint8_t* row, int64_t width, int channels) {
  if (channels == 3) {
    std::memcpy(rgb, row, size_t(width) * 3);
  } else if (channels == 1) {
    for (int64_t x = 0; x < width; ++x) rgb[3 * x] = rgb[3 * x + 1] = rgb[3 * x + 2] = row[x];
  } else {
    for (int64_t x = 0; x < width; ++x) {
      const uint8_t* p = row + 4 * x;
      cmyk_to_rgb(rgb + 3 * x, uint8_t(255 - p[0]), uint8_t(255 - p[1]), uint8_t(255 - p[2]), uint8_t(255 - p[3]));
    }
  }
}

}  // namespace

Image decode_jpeg(const ImageSource& s) {
  Owner owner;
  Decoder& d = owner.decoder;
  const auto fail = [&s, &d] { s.damaged(std::string("JPEG: ") + d.message); };
  if (!open(d, s.data, s.size)) fail();
  check_image_size(s, "JPEG", d.jpeg.image_width, d.jpeg.image_height);
  const int channels = d.jpeg.num_components;
  if (channels != 1 && channels != 3 && channels != 4) {
    s.fail(Status::unsupported, "JPEG: " + std::to_string(channels) + " components; 1 (grey), 3 (colour) or 4 (CMYK) are read, convert to PNG");
  }
  if (!start(d)) fail();
  if (d.jpeg.output_components != channels) s.fail(Status::internal, "JPEG: unexpected number of output channels");

  Image image;
  image.width = d.jpeg.output_width;
  image.height = d.jpeg.output_height;
  image.format = "JPEG";
  image.rgb.resize(size_t(image.width) * size_t(image.height) * 3);
  std::vector<uint8_t> row(size_t(image.width) * size_t(channels));
  for (int64_t y = 0; y < image.height; ++y) {
    if (!read_row(d, row.data())) fail();
    to_rgb(image.rgb.data() + size_t(y) * size_t(image.width) * 3, row.data(), image.width, channels);
  }
  if (!finish(d)) fail();
  return image;
}

}  // namespace bg
