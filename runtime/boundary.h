// The C boundary: exceptions become a status and a message, structures with struct_size are read and written by the caller's size.
#pragma once
#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "kernels/cuda/device.h"
#include "loaders/error.h"
#include "runtime/breastgpt.h"

namespace bg {

static_assert(int(Status::internal) == BG_INTERNAL && int(Status::too_large) == BG_TOO_LARGE && int(Status::device) == BG_DEVICE, "Status and bg_status are the same list");

inline bg_status report(bg_error* error, Status status, const char* message) {
  if (!error) return bg_status(status);
  error->status = bg_status(status);
  size_t n = std::min(std::strlen(message), sizeof error->message - 1);
  if (message[n] != 0)
    while (n > 0 && (static_cast<unsigned char>(message[n]) & 0xC0) == 0x80) --n;  // never cut inside a character
  std::memcpy(error->message, message, n);
  error->message[n] = 0;
  return error->status;
}

template <class Body>
bg_status guarded(bg_error* error, Body&& body) {
  try {
    body();
    return report(error, Status::ok, "");
  } catch (const Error& e) {
    return report(error, e.status(), e.what());
  } catch (const DeviceError& e) {
    return report(error, Status::device, e.what());
  } catch (const std::bad_alloc&) {
    return report(error, Status::too_large, "out of memory");
  } catch (const std::exception& e) {
    return report(error, Status::internal, e.what());
  }
}

// The caller's structure, or the defaults where it is NULL or shorter.
template <class T>
T read_struct(const T* given, T defaults, const char* name) {
  if (!given) return defaults;
  if (given->struct_size < sizeof(size_t) || given->struct_size > 65536)
    throw Error(Status::invalid_argument, std::string(name) + ".struct_size is " + std::to_string(given->struct_size) + "; set it to sizeof(" + name + ")");
  std::memcpy(static_cast<void*>(&defaults), given, std::min(given->struct_size, sizeof(T)));
  defaults.struct_size = sizeof(T);
  return defaults;
}

template <class T>
void write_struct(T* out, T value, const char* name) {
  if (!out) throw Error(Status::invalid_argument, std::string(name) + " is NULL");
  const size_t size = out->struct_size;
  if (size < sizeof(size_t) || size > 65536)
    throw Error(Status::invalid_argument, std::string(name) + ".struct_size is " + std::to_string(size) + "; set it to sizeof(" + name + ") before the call");
  value.struct_size = size;
  std::memcpy(static_cast<void*>(out), &value, std::min(size, sizeof(T)));
}

template <class T>
T* required(T* p, const char* name) {
  if (!p) throw Error(Status::invalid_argument, std::string(name) + " is NULL");
  return p;
}

}  // namespace bg
