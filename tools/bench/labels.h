// Possible answers of a closed question whose entry does not list them. In: the question and the reference answer. Not here: entries that list them.
#pragma once
#include <string>
#include <vector>

namespace tool {

// The answers offered by a lettered list in the question ("A. x B. y", "(A) x (B) y", "A) x", "A: x"), written the way the reference is: letters, "A. x" as
// it stands, or the texts alone; or yes and no, capitals and full stop as in the reference. Empty unless the reference is one of them: then the question
// is certainly closed, otherwise nothing is certain.
std::vector<std::string> offered_options(const std::string& question, const std::string& reference);

}  // namespace tool
