// Slide features in HDF5 through libhdf5: read as Trident and CLAM write them, written as Trident does. See slide_features.h.
// The file is a stranger's: links, external storage, virtual datasets and unknown filters are refused before anything is read through them, every size is held
// against the file's own before memory is taken, and chunks that were never written are an error (libhdf5 would hand out zeros for them).
#include "loaders/slide_hdf5.h"

#include <algorithm>
#include <array>
#include <optional>

#include "loaders/cursor.h"
#include "loaders/slide_parts.h"

namespace bg {
namespace {

constexpr uint64_t most_chunk_bytes = 64 << 20;  // of one chunk, unpacked
constexpr uint64_t block_bytes = 4 << 20;        // read or written at once, at least one row of chunks

std::string text(const char* name) { return std::string(name) + ": "; }

// float16, float32, float64 as IEEE 754 defines them, in both byte orders. Other float layouts (bfloat16, x87) would be converted to something else than was meant.
bool is_ieee_float(hid_t type) {
  for (const hid_t plain : {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE, H5T_IEEE_F64BE}) {
    if (H5Tequal(type, plain) > 0) return true;
  }
  for (const hid_t order : {H5T_IEEE_F32LE, H5T_IEEE_F32BE}) {
    const Hdf5Id half(H5Tcopy(order), H5Tclose);
    const bool made = H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 && H5Tset_ebias(half, 15) >= 0;
    if (made && H5Tequal(type, half) > 0) return true;
  }
  return false;
}

bool is_signed_integer(hid_t type) {
  for (const hid_t plain : {H5T_STD_I32LE, H5T_STD_I32BE, H5T_STD_I64LE, H5T_STD_I64BE}) {
    if (H5Tequal(type, plain) > 0) return true;
  }
  return false;
}

// A dataset that has been found safe to read: in this file, of an expected type.
struct Dataset {
  const char* name;
  Hdf5Id id, space, properties;
  std::vector<int64_t> shape;
  uint64_t element;  // bytes in the file
};

void check_filters(const Hdf5& hdf5, const char* name, hid_t properties) {
  const int count = H5Pget_nfilters(properties);
  if (count < 0) hdf5.damaged(text(name) + "the list of filters cannot be read");
  int deflates = 0;
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    char label[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(properties, unsigned(i), &flags, &values, nullptr, sizeof label - 1, label, &config);
    if (filter < 0) hdf5.damaged(text(name) + "a filter cannot be read");
    deflates += filter == H5Z_FILTER_DEFLATE;
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
      hdf5.fail(Status::unsupported, text(name) + "is packed with filter " + std::to_string(filter) + " " + shown(label) +
                                         "; gzip, shuffle and fletcher32 are read. Save it without compression");
  }
  if (deflates > 1) hdf5.fail(Status::unsupported, text(name) + "is packed with gzip " + std::to_string(deflates) + " times; once is read");
}

// Top-level name → dataset, or nothing when there is no such name. Layout and filters are judged before the shape is asked for, because a virtual dataset would
// open other files then.
std::optional<Dataset> open_dataset(const Hdf5& hdf5, hid_t file, const char* name) {
  const htri_t there = H5Lexists(file, name, H5P_DEFAULT);
  if (there < 0) hdf5.damaged(text(name) + "the file's list of names cannot be read");
  if (there == 0) return {};
  H5L_info_t link;
  if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0) hdf5.damaged(text(name) + "the link cannot be read");
  if (link.type != H5L_TYPE_HARD)
    hdf5.fail(Status::unsupported, text(name) + "is " + (link.type == H5L_TYPE_SOFT ? "a soft" : "an external") +
                                       " link; links are not followed. Copy the data into one file (h5repack, or h5py)");
  Hdf5Id id(H5Oopen(file, name, H5P_DEFAULT), H5Oclose);
  if (!id.ok()) hdf5.damaged(text(name) + "cannot be opened");
  if (H5Iget_type(id) != H5I_DATASET) hdf5.fail(Status::bad_file, text(name) + "is a group or a type, expected a dataset; not the patch features of Trident or CLAM");

  Hdf5Id properties(H5Dget_create_plist(id), H5Pclose);
  if (!properties.ok()) hdf5.damaged(text(name) + "its properties cannot be read");
  const H5D_layout_t layout = H5Pget_layout(properties);
  if (layout == H5D_VIRTUAL) hdf5.fail(Status::unsupported, text(name) + "is a virtual dataset, its data lie in other files; copy them into one file");
  if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED) hdf5.damaged(text(name) + "its layout cannot be read");
  if (H5Pget_external_count(properties) != 0) hdf5.fail(Status::unsupported, text(name) + "its data lie in an external file; copy them into one file (h5repack)");
  check_filters(hdf5, name, properties);

  Hdf5Id space(H5Dget_space(id), H5Sclose);
  const Hdf5Id type(H5Dget_type(id), H5Tclose);
  if (!space.ok() || !type.ok()) hdf5.damaged(text(name) + "its shape or type cannot be read");
  hsize_t sides[H5S_MAX_RANK];
  const int rank = H5Sget_simple_extent_type(space) == H5S_NULL ? 0 : H5Sget_simple_extent_dims(space, sides, nullptr);
  if (rank < 0) hdf5.damaged(text(name) + "its shape cannot be read");
  std::vector<int64_t> shape;
  for (int i = 0; i < rank; ++i) shape.push_back(int64_t(std::min<hsize_t>(sides[i], INT64_MAX)));
  return Dataset{name, std::move(id), std::move(space), std::move(properties), std::move(shape), H5Tget_size(type)};
}

void check_type(const Hdf5& hdf5, const Dataset& d, bool (*fits)(hid_t), const char* expected) {
  const Hdf5Id type(H5Dget_type(d.id), H5Tclose);
  if (fits(type)) return;
  const H5T_class_t kind = H5Tget_class(type);
  const char* found = kind == H5T_INTEGER ? "integers" : kind == H5T_FLOAT ? "floats" : kind == H5T_STRING ? "text" : "another type";
  hdf5.fail(Status::bad_file, text(d.name) + found + " of " + std::to_string(d.element) + " bytes, expected " + expected + "; save them as one of these");
}

// The data must be there before memory for them is taken: a header of 2 kB can declare any shape.
void check_stored(const Hdf5& hdf5, const Dataset& d, uint64_t file_bytes) {
  uint64_t need = d.element;
  for (const int64_t n : d.shape) need = checked_multiply(need, uint64_t(n), hdf5.path() + ": " + d.name);
  const bool packed = H5Pget_nfilters(d.properties) > 0;
  const std::string again = "; the file was cut short or never finished, extract the features again";
  if (need > checked_multiply(file_bytes, packed ? most_packing : 1, hdf5.path()))
    hdf5.fail(Status::bad_file,
              text(d.name) + "shape " + shape_text(d.shape) + " needs " + std::to_string(need) + " bytes, the file has " + std::to_string(file_bytes) + again);
  if (H5Pget_layout(d.properties) != H5D_CHUNKED) {
    const uint64_t stored = H5Dget_storage_size(d.id);
    if (stored < need) hdf5.fail(Status::bad_file, text(d.name) + std::to_string(stored) + " bytes are stored, " + std::to_string(need) + " are needed" + again);
    return;
  }
  hsize_t sides[H5S_MAX_RANK], stored = 0;
  const int rank = H5Pget_chunk(d.properties, H5S_MAX_RANK, sides);
  if (rank != int(d.shape.size())) hdf5.damaged(text(d.name) + "the chunks have another rank than the data");
  uint64_t bytes = d.element, wanted = 1;
  for (int i = 0; i < rank; ++i) {
    if (sides[i] == 0 || sides[i] > most_chunk_bytes)
      hdf5.fail(Status::unsupported, text(d.name) + "chunks with a side of " + std::to_string(sides[i]) + "; save it in smaller chunks");
    bytes = checked_multiply(bytes, sides[i], hdf5.path());
    if (bytes > most_chunk_bytes)
      hdf5.fail(Status::unsupported, text(d.name) + "chunks of more than " + std::to_string(most_chunk_bytes) + " bytes are not read; save it in smaller chunks");
    wanted = checked_multiply(wanted, (uint64_t(d.shape[size_t(i)]) + sides[i] - 1) / sides[i], hdf5.path());
  }
  if (H5Dget_num_chunks(d.id, d.space, &stored) < 0) hdf5.damaged(text(d.name) + "the list of chunks cannot be read");
  if (stored < wanted) hdf5.fail(Status::bad_file, text(d.name) + "only " + std::to_string(stored) + " of " + std::to_string(wanted) + " chunks are stored" + again);
}

// All of (…, rows, columns) into the pipe, a few megabytes at a time: libhdf5 keeps a record for every chunk of one call.
template <class T>
void send_rows(const Hdf5& hdf5, const Dataset& d, hid_t memory_type, const SlidePipe& pipe, SlideFrame kind) {
  const size_t rank = d.shape.size();
  const uint64_t rows = uint64_t(d.shape[rank - 2]), columns = uint64_t(d.shape[rank - 1]);
  uint64_t step = std::max<uint64_t>(1, block_bytes / (columns * sizeof(T)));
  if (H5Pget_layout(d.properties) == H5D_CHUNKED) {  // whole chunks, so that none is unpacked twice
    hsize_t sides[H5S_MAX_RANK];
    H5Pget_chunk(d.properties, H5S_MAX_RANK, sides);
    step = (step + sides[rank - 2] - 1) / sides[rank - 2] * sides[rank - 2];
  }
  step = std::min(step, rows);
  std::vector<T> block(size_t(step * columns));
  std::array<hsize_t, 3> start = {0, 0, 0}, count = {1, 1, 1};
  count[rank - 1] = columns;
  for (uint64_t row = 0; row < rows; row += step) {
    start[rank - 2] = row;
    count[rank - 2] = std::min(step, rows - row);
    const Hdf5Id memory(H5Screate_simple(int(rank), count.data(), nullptr), H5Sclose);
    if (!memory.ok() || H5Sselect_hyperslab(d.space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
        H5Dread(d.id, memory_type, memory, d.space, H5P_DEFAULT, block.data()) < 0)
      hdf5.damaged(text(d.name) + "rows from " + std::to_string(row) + " on cannot be read");
    pipe.send(kind, block.data(), count[rank - 2] * columns * sizeof(T));
  }
}

Hdf5Id create_dataset(const Hdf5& hdf5, hid_t file, const char* name, hid_t type, int64_t rows, int64_t columns) {
  const hsize_t sides[2] = {hsize_t(rows), hsize_t(columns)}, most[2] = {H5S_UNLIMITED, hsize_t(columns)}, chunk[2] = {1, hsize_t(columns)};
  const Hdf5Id space(H5Screate_simple(2, sides, most), H5Sclose), properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (!space.ok() || H5Pset_chunk(properties, 2, chunk) < 0 || H5Pset_obj_track_times(properties, false) < 0) hdf5.not_written(name);
  Hdf5Id dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  if (!dataset.ok()) hdf5.not_written(name);
  return dataset;
}

void write_rows(const Hdf5& hdf5, hid_t dataset, const char* name, hid_t memory_type, const void* data, size_t element, int64_t rows, int64_t columns) {
  const Hdf5Id space(H5Dget_space(dataset), H5Sclose);
  const int64_t step = std::max<int64_t>(1, int64_t(block_bytes / (uint64_t(columns) * element)));
  for (int64_t row = 0; row < rows; row += step) {
    const hsize_t start[2] = {hsize_t(row), 0}, count[2] = {hsize_t(std::min(step, rows - row)), hsize_t(columns)};
    const Hdf5Id memory(H5Screate_simple(2, count, nullptr), H5Sclose);
    const char* from = static_cast<const char*>(data) + size_t(row * columns) * element;
    if (!memory.ok() || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 || H5Dwrite(dataset, memory_type, memory, space, H5P_DEFAULT, from) < 0)
      hdf5.not_written(name);
  }
}

// Where Trident keeps an attribute: the encoder and what carries the prefix on features, the name on both, the rest on coords. Without coords: all on features.
void write_attributes(const Hdf5& hdf5, const SlideFeatures& slide, hid_t features, hid_t coords) {
  const std::string prefix = "features.";
  for (const auto& [key, value] : slide.attributes) {
    const bool prefixed = coords >= 0 && key.size() > prefix.size() && key.compare(0, prefix.size(), prefix) == 0;
    const std::string name = prefixed ? key.substr(prefix.size()) : key;
    const bool as_text = name == "name" || name == "savetodir" || name == "encoder";
    write_attribute(hdf5, prefixed || name == "encoder" || coords < 0 ? features : coords, name, value, as_text);
    if (coords >= 0 && key == "name" && !slide.attributes.count(prefix + key)) write_attribute(hdf5, features, key, value, true);
  }
}

}  // namespace

void read_hdf5_slide(const std::string& path, uint64_t file_bytes, const SlidePipe& pipe) {
  const Hdf5 hdf5(path);
  const Hdf5Id access(hdf5.file_access(), H5Pclose);
  const Hdf5Id file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!file.ok()) hdf5.damaged("HDF5 file cannot be opened");
  const std::optional<Dataset> features = open_dataset(hdf5, file, "features");
  const std::optional<Dataset> coords = open_dataset(hdf5, file, "coords");
  if (!features)
    hdf5.fail(Status::bad_file, coords ? "has coords but no features: tile coordinates only; run the feature extraction and give its file"
                                       : "has no dataset \"features\" at its top; not the patch features of Trident or CLAM");
  SlideFeatures slide;
  set_slide_shape(path, features->shape, coords ? &coords->shape : nullptr, &slide);
  check_type(hdf5, *features, is_ieee_float, "float16, float32 or float64");
  check_stored(hdf5, *features, file_bytes);
  if (coords) {
    check_type(hdf5, *coords, is_signed_integer, "int32 or int64");
    check_stored(hdf5, *coords, file_bytes);
    for (auto& [key, value] : read_attributes(hdf5, coords->id, "coords")) slide.attributes.emplace(key, value);
  }
  for (auto& [key, value] : read_attributes(hdf5, features->id, "features")) {
    const auto [it, fresh] = slide.attributes.emplace(key, value);
    if (!fresh && it->second != value) slide.attributes.emplace("features." + key, value);
  }
  const std::array<int64_t, 3> shape = {slide.tiles, slide.width, coords ? 1 : 0};
  pipe.send(SlideFrame::shape, shape.data(), sizeof shape);
  for (const auto& [key, value] : slide.attributes) pipe.send(SlideFrame::attribute, key + '\0' + value);
  send_rows<float>(hdf5, *features, H5T_NATIVE_FLOAT, pipe, SlideFrame::features);
  if (coords) send_rows<int64_t>(hdf5, *coords, H5T_NATIVE_INT64, pipe, SlideFrame::coords);
}

void write_hdf5_file(const std::string& path, const SlideFeatures& slide) {
  const Hdf5 hdf5(path);
  const Hdf5Id access(hdf5.file_access(), H5Pclose);
  Hdf5Id file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose);
  if (!file.ok()) hdf5.not_written("HDF5 file");
  {
    const Hdf5Id features = create_dataset(hdf5, file, "features", H5T_IEEE_F32LE, slide.tiles, slide.width);
    const Hdf5Id coords = slide.coords.empty() ? Hdf5Id(-1, H5Dclose) : create_dataset(hdf5, file, "coords", H5T_STD_I64LE, slide.tiles, 2);
    write_attributes(hdf5, slide, features, coords);
    write_rows(hdf5, features, "features", H5T_NATIVE_FLOAT, slide.features.data(), sizeof(float), slide.tiles, slide.width);
    if (coords.ok()) write_rows(hdf5, coords, "coords", H5T_NATIVE_INT64, slide.coords.data(), sizeof(int64_t), slide.tiles, 2);
  }
  if (!file.close_now()) hdf5.not_written("HDF5 file");
}

}  // namespace bg
