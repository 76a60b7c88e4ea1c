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

typedef struct bg_slide_file bg_slide_file;

/* Patch features of a slide: Trident or CLAM .h5, or .safetensors, told by their content. Values are finite, tiles 1 to 2,000,000. */
BG_API bg_status bg_slide_file_open(const char* path, bg_slide_file** file, bg_error* error);
BG_API void bg_slide_file_close(bg_slide_file* file);
BG_API int64_t bg_slide_file_tiles(const bg_slide_file* file);
BG_API int64_t bg_slide_file_width(const bg_slide_file* file);            /* numbers per tile */
BG_API const float* bg_slide_file_features(const bg_slide_file* file);    /* (tiles, width), in the file's order; valid until closed */
BG_API const int64_t* bg_slide_file_coords(const bg_slide_file* file);    /* (tiles, 2) level-0 x, y of each tile's corner; NULL: not in the file */
BG_API int64_t bg_slide_file_tile_side(const bg_slide_file* file);        /* level-0 pixels; 0: not in the file */
BG_API const char* bg_slide_file_format(const bg_slide_file* file);       /* "Trident HDF5", "CLAM HDF5", "safetensors" */
BG_API const char* bg_slide_file_sha256(const bg_slide_file* file);       /* of the file's bytes */
/* What else the file says ("patch_size_level0" and so on), sorted by key, numbers in decimal. NULL for an index outside 0 … count − 1. */
BG_API int64_t bg_slide_file_attribute_count(const bg_slide_file* file);
BG_API const char* bg_slide_file_attribute_key(const bg_slide_file* file, int64_t index);
BG_API const char* bg_slide_file_attribute_value(const bg_slide_file* file, int64_t index);
/* By the ending of path: .h5 (Trident's layout) or .safetensors. Whole or not at all; an existing file is replaced. */
BG_API bg_status bg_slide_file_save(const bg_slide_file* file, const char* path, bg_error* error);

/* ---- volumes: NIfTI-1/-2 (.nii, .nii.gz), .npy, told by their content ---- */
typedef struct bg_volume_file bg_volume_file;
BG_API bg_status bg_volume_file_open(const char* path, bg_volume_file** file, bg_error* error);
BG_API void bg_volume_file_close(bg_volume_file* file);
BG_API const bg_volume* bg_volume_file_voxels(const bg_volume_file* file);  /* valid until closed */
BG_API const char* bg_volume_file_format(const bg_volume_file* file);       /* "NIfTI-1", "NIfTI-2", "NPY" */
BG_API const char* bg_volume_file_sha256(const bg_volume_file* file);       /* of the file's bytes */
/* Position in voxel edges (0 … size along x, y, z) → millimetres, RAS+. 0 where the header does not place the voxels. */
BG_API int bg_volume_file_millimetres(const bg_volume_file* file, const double edges[3], double millimetres[3]);

/* ---- what the model said, as pictures: written whole or not at all ---- */
/* Boxes that lie on `medium`, painted on the picture; low … high: the window of 16-bit grey (bg_medium_report). PNG. */
BG_API bg_status bg_draw_image_boxes(const char* path, const bg_image* image, double low, double high, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error);
/* The slices that the boxes touch, as a contact sheet. PNG. */
BG_API bg_status bg_draw_volume_boxes(const char* path, const bg_volume* volume, double low, double high, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error);
/* The boxes as a mask on the volume's grid: 0, or 1 + the number of the box among those of this medium (255 at most). NIfTI-1, gzip. */
BG_API bg_status bg_save_volume_mask(const char* path, const bg_volume_file* file, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error);

/* Kept tokens of every level of a medium, as bg_session_medium_kept gives them, over the picture, the volume's slices or a slide's thumbnail. PNG. */
BG_API bg_status bg_draw_image_evidence(const char* path, const bg_session* session, int64_t medium, const bg_image* image, bg_error* error);
BG_API bg_status bg_draw_volume_evidence(const char* path, const bg_session* session, int64_t medium, const bg_volume* volume, bg_error* error);
BG_API bg_status bg_draw_slide_evidence(const char* path, const bg_session* session, int64_t medium, const bg_slide_file* slide, const bg_image* thumbnail, bg_error* error);
/* A slide's kept tiles as GeoJSON polygons in level-0 pixels, which QuPath opens. Needs coordinates and the tile's side in the feature file. */
BG_API bg_status bg_save_slide_evidence(const char* path, const bg_session* session, int64_t medium, const bg_slide_file* slide, bg_error* error);

#ifdef __cplusplus
}
#endif
#endif
