/* BreastGPT Runtime: picture files → pixels. A second, separate library (libbreastgpt_files: libjpeg, libtiff, stb_image), so that an
 * appliance with its own decoders links only libbreastgpt. Same rules as breastgpt.h. */
#ifndef BREASTGPT_FILES_H
#define BREASTGPT_FILES_H

#include "breastgpt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bg_image_file bg_image_file;

/* PNG, JPEG, TIFF, BMP, PNM, told by their content. max_pixels 0: 200,000,000. */
BG_API bg_status bg_image_file_open(const char* path, int64_t max_pixels, bg_image_file** file, bg_error* error);
BG_API void bg_image_file_close(bg_image_file* file);
BG_API const bg_image* bg_image_file_pixels(const bg_image_file* file);   /* valid until closed */
BG_API const char* bg_image_file_format(const bg_image_file* file);       /* "PNG" … */
BG_API const char* bg_image_file_sha256(const bg_image_file* file);       /* of the file's bytes */

#ifdef __cplusplus
}
#endif
#endif
