// Structured findings stated in a text, found by fixed rules on words and numbers: a measure of whether answer and reference say the same, not an
// understanding of the text. In: an answer and its question. Out: values. Not here: counting over records.
//
//   BI-RADS      0–6, 4a–4c (or I–VI) after "BI-RADS" and any of the filling words category, assessment, score, final, class, classification,
//                grade, is, of, : = - ( , *
//   laterality   left, right, left-sided, right-sided; bilateral, "both breasts" and "both sides" are left and right
//   size         the first number (or a × b × c: the largest) with mm or cm after it, in millimetres; "mm2" and the like are no lengths
//   density      a–d after "density" or "ACR" and any of category, type, class, grade, ACR, is, of, : = - ( *; also "fatty", "scattered fibroglandular", "heterogeneously dense", "extremely dense".
//                The letter a counts only where it cannot be an article: before punctuation or the end, or after category, type, class, grade, ACR
//   assessment   benign, malignant, malignancy, unless one of the four words before (in the same sentence) is no, not, without, negative, exclude(s), non
// An answer that is nothing but the value counts for BI-RADS and density when the question names the field.
#pragma once
#include <set>
#include <string>

namespace tool {

constexpr int kFields = 5;
enum Field { kBirads, kLaterality, kSize, kDensity, kAssessment };
const char* field_name(int field);

struct FieldValues {
  std::set<std::string> stated[kFields];  // every value in the text; empty: not stated. Size: one, as in "12.0"
  double size_mm = 0;                     // when stated[kSize] is not empty
};
FieldValues find_fields(const std::string& text, const std::string& question);

// Both state the field: the same set of values; sizes within 1 mm of each other.
bool fields_agree(int field, const FieldValues& reference, const FieldValues& prediction);

}  // namespace tool
