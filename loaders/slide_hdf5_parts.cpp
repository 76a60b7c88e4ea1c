// libhdf5 made quiet and safe for one call, and attributes of datasets as text. See slide_hdf5.h.
#include <charconv>
#include <cmath>
#include <cstring>

#include "loaders/cursor.h"
#include "loaders/slide_hdf5.h"
#include "loaders/slide_parts.h"

namespace bg {
namespace {

// Called for the innermost record first; only that one is kept.
herr_t keep_first(unsigned n, const H5E_error2_t* error, void* data) {
  if (n == 0 && error->desc) std::strncpy(static_cast<char*>(data), error->desc, 199);
  return 0;
}

std::string whole_number(long long v) { return std::to_string(v); }

std::string decimal(double v) {
  char buffer[40];
  const auto [end, code] = std::to_chars(buffer, buffer + sizeof buffer, v);
  std::string out(buffer, end);
  if (std::isfinite(v) && out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

// Length of the UTF-8 character at s[i], 0 where there is none (overlong, surrogate, cut).
size_t utf8_length(const std::string& s, size_t i) {
  const auto at = [&s](size_t k) { return k < s.size() ? uint8_t(s[k]) : 0; };
  const auto tail = [&at](size_t k) { return (at(k) & 0xC0) == 0x80; };
  const uint8_t a = uint8_t(at(i)), b = uint8_t(at(i + 1));
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return tail(i + 1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) return tail(i + 1) && tail(i + 2) && !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b >= 0xA0) ? 3 : 0;
  if (a >= 0xF0 && a <= 0xF4) return tail(i + 1) && tail(i + 2) && tail(i + 3) && !(a == 0xF0 && b < 0x90) && !(a == 0xF4 && b >= 0x90) ? 4 : 0;
  return 0;
}

// Names in Latin-1 occur; what follows here (JSON, the C API) is UTF-8.
std::string as_utf8(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t n = utf8_length(s, i);
    out += n ? s.substr(i, n) : "\xEF\xBF\xBD";
    i += n ? n : 1;
  }
  return out;
}

struct Names {
  std::vector<std::string> names;
  bool out_of_memory = false;
};

herr_t add_name(hid_t, const char* name, const H5A_info_t*, void* data) noexcept {
  auto* list = static_cast<Names*>(data);
  try {
    list->names.emplace_back(name);
  } catch (...) {  // nothing may be thrown through libhdf5
    list->out_of_memory = true;
    return 1;
  }
  return list->names.size() > most_attributes ? 1 : 0;
}

std::string read_text(const Hdf5& hdf5, hid_t attribute, hid_t type, const std::string& where) {
  const Hdf5Id memory(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_cset(memory, H5Tget_cset(type));
  if (H5Tis_variable_str(type) > 0) {
    char* value = nullptr;
    if (H5Tset_size(memory, H5T_VARIABLE) < 0 || H5Aread(attribute, memory, &value) < 0) hdf5.damaged(where + " cannot be read");
    const size_t length = value ? strnlen(value, most_attribute_bytes + 1) : 0;
    const std::string out(value ? value : "", length);
    H5free_memory(value);
    if (length > most_attribute_bytes) hdf5.fail(Status::too_large, where + " is longer than " + std::to_string(most_attribute_bytes) + " bytes; remove it");
    return out;
  }
  const size_t size = H5Tget_size(type);
  if (size == 0 || size > most_attribute_bytes)
    hdf5.fail(Status::too_large, where + " has " + std::to_string(size) + " bytes; 1 to " + std::to_string(most_attribute_bytes) + " are read, remove it");
  std::string out(size + 1, '\0');
  if (H5Tset_size(memory, size + 1) < 0 || H5Aread(attribute, memory, out.data()) < 0) hdf5.damaged(where + " cannot be read");
  out.resize(strnlen(out.data(), size));
  return out;
}

// The value as text; false for kinds that are left out.
bool read_value(const Hdf5& hdf5, hid_t attribute, const std::string& where, std::string* out) {
  const Hdf5Id type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  if (!type.ok() || !space.ok()) hdf5.damaged(where + " cannot be read");
  if (H5Sget_simple_extent_type(space) == H5S_NULL || H5Sget_simple_extent_npoints(space) != 1) return false;
  const H5T_class_t kind = H5Tget_class(type);
  const size_t size = H5Tget_size(type);
  if (kind == H5T_STRING) {
    *out = as_utf8(read_text(hdf5, attribute, type, where));
  } else if (kind == H5T_INTEGER && size <= 8) {
    const bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
    long long value = 0;
    unsigned long long natural = 0;
    if (H5Aread(attribute, is_signed ? H5T_NATIVE_LLONG : H5T_NATIVE_ULLONG, is_signed ? static_cast<void*>(&value) : &natural) < 0) hdf5.damaged(where + " cannot be read");
    *out = is_signed ? whole_number(value) : std::to_string(natural);
  } else if (kind == H5T_FLOAT && size <= 8) {
    double value = 0;
    if (H5Aread(attribute, H5T_NATIVE_DOUBLE, &value) < 0) hdf5.damaged(where + " cannot be read");
    *out = decimal(value);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Hdf5::Hdf5(const std::string& path) : path_(path) {
  if (H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) < 0 || H5PLset_loading_state(0) < 0) fail(Status::internal, "libhdf5 cannot be started");
}

std::string Hdf5::words() const {
  char innermost[200] = "";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, innermost);
  return *innermost ? " (libhdf5: " + shown(innermost) + ")" : "";
}

void Hdf5::damaged(const std::string& what) const { fail(Status::bad_file, what + words() + "; the file is damaged or cut short, copy it again or extract the features again"); }

void Hdf5::not_written(const std::string& what) const { fail(Status::io, what + " cannot be written" + words() + "; check the free space. Nothing was left behind"); }

hid_t Hdf5::file_access() const {
  const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
  const bool set = list >= 0 && H5Pset_fapl_sec2(list) >= 0 && H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) >= 0 && H5Pset_file_locking(list, false, true) >= 0 &&
                   H5Pset_libver_bounds(list, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST) >= 0;
  if (!set) fail(Status::internal, "libhdf5 does not take its settings");
  return list;
}

std::vector<std::pair<std::string, std::string>> read_attributes(const Hdf5& hdf5, hid_t dataset, const char* dataset_name) {
  const std::string where = std::string(dataset_name) + ": ";
  Names list;
  if (H5Aiterate2(dataset, H5_INDEX_NAME, H5_ITER_INC, nullptr, add_name, &list) < 0) hdf5.damaged(where + "the list of attributes cannot be read");
  if (list.out_of_memory) throw std::bad_alloc();
  if (list.names.size() > most_attributes) hdf5.fail(Status::too_large, where + "more than " + std::to_string(most_attributes) + " attributes; remove those of no use");
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& name : list.names) {
    const Hdf5Id attribute(H5Aopen(dataset, name.c_str(), H5P_DEFAULT), H5Aclose);
    const std::string what = where + "attribute " + shown(name);
    if (!attribute.ok()) hdf5.damaged(what + " cannot be opened");
    std::string value;
    if (read_value(hdf5, attribute, what, &value)) out.emplace_back(as_utf8(name), value);
  }
  return out;
}

void write_attribute(const Hdf5& hdf5, hid_t dataset, const std::string& name, const std::string& value, bool as_text) {
  int64_t whole = 0;
  double real = 0;
  const char *begin = value.data(), *end = begin + value.size();
  const bool is_whole = !as_text && std::from_chars(begin, end, whole).ec == std::errc() && whole_number(whole) == value;
  const bool is_real = !as_text && !is_whole && std::from_chars(begin, end, real).ec == std::errc() && std::isfinite(real) && decimal(real) == value;
  const Hdf5Id space(H5Screate(H5S_SCALAR), H5Sclose), text_type(H5Tcopy(H5T_C_S1), H5Tclose);
  const bool made = space.ok() && H5Tset_size(text_type, H5T_VARIABLE) >= 0 && H5Tset_cset(text_type, H5T_CSET_UTF8) >= 0;
  const hid_t file_type = is_whole ? H5T_STD_I64LE : is_real ? H5T_IEEE_F64LE : hid_t(text_type);
  const Hdf5Id attribute(made ? H5Acreate2(dataset, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT) : hid_t(-1), H5Aclose);
  const hid_t memory_type = is_whole ? H5T_NATIVE_INT64 : is_real ? H5T_NATIVE_DOUBLE : hid_t(text_type);
  const void* from = is_whole ? static_cast<const void*>(&whole) : is_real ? static_cast<const void*>(&real) : &begin;
  if (!attribute.ok() || H5Awrite(attribute, memory_type, from) < 0) hdf5.not_written("attribute " + shown(name));
}

}  // namespace bg
