// A call must end in an Error of this status whose message contains `part`.
#pragma once
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "loaders/error.h"

inline void expect_error(const std::function<void()>& call, bg::Status status, const std::string& part) {
  CAPTURE(part);
  try {
    call();
    FAIL_CHECK("no error");
  } catch (const bg::Error& e) {
    CHECK_MESSAGE(e.status() == status, e.what());
    CHECK_MESSAGE(std::string(e.what()).find(part) != std::string::npos, e.what());
  }
}
