// See prompt.h.
#include "runtime/prompt.h"

#include <algorithm>

#include "loaders/error.h"

namespace bg {
namespace {

struct Marker {
  const char* text;
  MediumKind kind;
};
constexpr Marker kMarkers[] = {{"<image>", MediumKind::image}, {"<video>", MediumKind::volume}, {"<volume>", MediumKind::volume}, {"<slide>", MediumKind::slide}};

// The text cut at its markers: parts.size() == marks.size() + 1.
struct Pieces {
  std::vector<std::string> parts;
  std::vector<Marker> marks;
};

Pieces cut(const std::string& text) {
  Pieces out{{""}, {}};
  for (size_t at = 0; at < text.size();) {
    const auto found = std::find_if(std::begin(kMarkers), std::end(kMarkers), [&](const Marker& m) { return text.compare(at, std::char_traits<char>::length(m.text), m.text) == 0; });
    if (text[at] != '<' || found == std::end(kMarkers)) {
      out.parts.back() += text[at++];
      continue;
    }
    out.marks.push_back(*found);
    out.parts.emplace_back();
    at += std::char_traits<char>::length(found->text);
  }
  return out;
}

}  // namespace

const char* medium_name(MediumKind kind) { return kind == MediumKind::image ? "image" : kind == MediumKind::volume ? "volume" : "slide"; }

void Prompt::plain(std::vector<Cell>& cells, const std::string& text) const {
  for (int32_t id : tokenizer_.encode(text)) cells.push_back({id, -1});
}

// A volume is its placeholders alone, without start and end: that is how the model was trained.
void Prompt::place(std::vector<Cell>& cells, const PromptMedium& medium) const {
  const Config::Tokens& t = config_.tokens;
  const bool framed = medium.kind != MediumKind::volume;
  const int32_t pad = medium.kind == MediumKind::image ? t.image_pad : medium.kind == MediumKind::volume ? t.video_pad : t.slide_pad;
  if (framed) cells.push_back({t.vision_start, -1});
  for (int64_t i = 0; i < medium.tokens; ++i) cells.push_back({pad, medium.medium});
  if (framed) cells.push_back({t.vision_end, -1});
}

void Prompt::system(std::vector<Cell>& cells, const std::string& text) const {
  cells.push_back({config_.tokens.im_start, -1});
  plain(cells, "system\n" + text);
  cells.push_back({config_.tokens.im_end, -1});
  plain(cells, "\n");
}

void Prompt::user(std::vector<Cell>& cells, const std::string& text, const std::vector<PromptMedium>& media) const {
  const Pieces pieces = cut(text);
  const bool slide_markers = std::any_of(pieces.marks.begin(), pieces.marks.end(), [](const Marker& m) { return m.kind == MediumKind::slide; });
  // Volumes form one queue; images and slides another, unless the text tells them apart.
  const auto queue_of = [&](MediumKind kind) { return kind == MediumKind::volume ? 0 : kind == MediumKind::slide && slide_markers ? 2 : 1; };
  std::vector<PromptMedium> queue[3];
  size_t markers[3] = {0, 0, 0};
  for (const PromptMedium& m : media) queue[queue_of(m.kind)].push_back(m);
  for (const Marker& m : pieces.marks) ++markers[queue_of(m.kind)];
  for (const Marker& m : pieces.marks) {
    const int q = queue_of(m.kind);
    if (markers[q] > queue[q].size())
      throw Error(Status::invalid_argument, "the question has " + std::to_string(markers[q]) + " " + m.text + " markers but only " + std::to_string(queue[q].size()) + " new " +
                                                medium_name(m.kind) + "s; add the media first or remove the markers");
  }

  // Media without a marker come first: of each queue those that no marker is left for; images and slides in their common order.
  std::vector<PromptMedium> first;
  size_t next[3] = {0, 0, 0};
  for (; queue[0].size() - next[0] > markers[0]; ++next[0]) first.push_back(queue[0][next[0]]);
  for (const PromptMedium& m : media) {
    const int q = queue_of(m.kind);
    if (q == 0 || queue[q].size() - next[q] <= markers[q] || queue[q][next[q]].medium != m.medium) continue;
    first.push_back(m);
    ++next[q];
  }

  // Text between two media is tokenised as one piece, together with the template's own text around it, as the reference does.
  cells.push_back({config_.tokens.im_start, -1});
  std::string piece = "user\n";
  const PromptMedium* before = nullptr;  // the medium placed last, with no text after it
  const auto put = [&](const PromptMedium& m) {
    if (!piece.empty()) before = nullptr;
    if (before && before->kind == MediumKind::volume && m.kind == MediumKind::volume)
      throw Error(Status::invalid_argument, "two volumes side by side cannot be told apart by the model; put text between their <volume> markers, such as \"T1: <volume> T2: <volume>\"");
    plain(cells, piece);
    piece.clear();
    place(cells, m);
    before = &m;
  };
  for (const PromptMedium& m : first) put(m);
  for (size_t i = 0; i < pieces.parts.size(); ++i) {
    if (i > 0) {
      const int q = queue_of(pieces.marks[i - 1].kind);
      put(queue[q][next[q]++]);
    }
    piece += pieces.parts[i];
  }
  plain(cells, piece);
  cells.push_back({config_.tokens.im_end, -1});
  plain(cells, "\n");
  cells.push_back({config_.tokens.im_start, -1});
  plain(cells, "assistant\n");
}

void Prompt::answer(std::vector<Cell>& cells, const std::vector<int32_t>& ids) const {
  for (int32_t id : ids) cells.push_back({id, -1});
  cells.push_back({config_.tokens.im_end, -1});
  plain(cells, "\n");
}

}  // namespace bg
