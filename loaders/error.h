// The one exception of the project. Thrown by loaders and runtime, turned into a status and a message at the C boundary (runtime/api.cpp).
// A message says which file or argument, what was expected, what was found, and what to do. It never contains patient text or pixels.
#pragma once
#include <stdexcept>
#include <string>

namespace bg {

enum class Status {
  ok = 0,
  invalid_argument = 1,  // the caller asked for something that cannot be done
  not_found = 2,         // a file is missing or cannot be opened
  bad_file = 3,          // a file's bytes are wrong: truncated, lying, not the format it says
  unsupported = 4,       // a valid file or request that this build does not handle
  too_large = 5,         // over a limit: memory cap, pixels, context
  io = 6,                // reading or writing failed
  cancelled = 7,         // the cancel callback said so
  internal = 8,          // a defect of ours
  device = 9,            // a GPU is missing, or failed
};

class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

}  // namespace bg
