// JSON from a file of somebody else: size and depth are limited, a repeated key is an error, no parser exception escapes.
// Header only, so that the dependency-free core need not know that it exists.
#pragma once
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "loaders/cursor.h"
#include "loaders/error.h"

namespace bg {

// `where` starts the message of the Error{bad_file, too_large}. For small files (configurations, indices): the tree needs many times the text's memory.
inline nlohmann::json parse_json(std::string_view text, const std::string& where) {
  constexpr size_t most_bytes = 16 << 20;
  constexpr int deepest = 64;
  if (text.size() > most_bytes)
    throw Error(Status::too_large, where + ": " + std::to_string(text.size()) + " bytes of JSON; at most " + std::to_string(most_bytes) + " are read");
  std::vector<std::set<std::string>> keys(deepest + 2);  // of the open object at each depth
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > deepest) throw Error(Status::bad_file, where + ": JSON nested deeper than " + std::to_string(deepest));
    if (event == nlohmann::json::parse_event_t::object_start) keys[size_t(depth) + 1].clear();
    if (event == nlohmann::json::parse_event_t::key && !keys[size_t(depth)].insert(parsed.get<std::string>()).second)
      throw Error(Status::bad_file, where + ": JSON key " + shown(parsed.get<std::string>()) + " appears twice in one object");
    return true;
  };
  nlohmann::json root = nlohmann::json::parse(text.begin(), text.end(), check, false);
  if (root.is_discarded()) throw Error(Status::bad_file, where + ": is not valid JSON; copy the file again");
  return root;
}

}  // namespace bg
