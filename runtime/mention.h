// Which medium a box speaks of, MODEL.md §5b: the last one named before it ("image 2", "picture 2", "volume 1", "slide 3", counted from 1 in the session's
// order of all media), the first when none is named. In: an answer's text and where the box begins. Not here: the boxes themselves (boxes.h).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bg {

// Index of the medium, or −1 when the text names one that is not there. media: how many the session has.
int64_t mentioned_medium(std::string_view text, size_t box_at, int64_t media);

}  // namespace bg
