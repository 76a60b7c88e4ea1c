// Contact sheets: slices with boxes, pictures and slices with evidence. In: a volume or a canvas, boxes or evidence in source units. Out: one canvas, at
// most 2048 pixels wide and high; panels are reduced (or small ones enlarged) by a whole factor. Not here: which slices matter to the model, files.
// Slices are shown as they are stored: first row on top, no reorientation.
#pragma once
#include <string>
#include <vector>

#include "loaders/draw.h"
#include "runtime/evidence.h"
#include "runtime/volume.h"

namespace bg {

// At most 16 slices, evenly spread over those that a box touches (over all when there are none), each with its index; low … high → black … white.
Canvas box_sheet(const Voxels& volume, double low, double high, const std::vector<MarkedBox>& boxes);

// A panel per level: the picture under its kept cells, coloured and covered by weight (relative to the level's largest).
// For slides: the thumbnail, and cells scaled to its pixels.
Canvas evidence_picture(const Canvas& picture, const std::vector<EvidenceLevel>& levels);

// A row per level: the five frame pairs with most weight, in the order of slices; each panel is the pair's middle slice, its caption the slice range and the
// pair's share of the level's weight.
Canvas evidence_sheet(const Voxels& volume, double low, double high, const std::vector<EvidenceLevel>& levels);

Colour heat_colour(double share);  // 0 … 1: blue → green → yellow → red

}  // namespace bg
