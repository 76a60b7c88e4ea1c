// See prompt.h.
#include "runtime/prompt.h"

#include "loaders/error.h"

namespace bg {

void Prompt::plain(std::vector<Cell>& cells, const std::string& text) const {
  for (int32_t id : tokenizer_.encode(text)) cells.push_back({id, -1});
}

void Prompt::image(std::vector<Cell>& cells, const PromptMedium& image) const {
  cells.push_back({config_.tokens.vision_start, -1});
  for (int64_t i = 0; i < image.tokens; ++i) cells.push_back({config_.tokens.image_pad, image.medium});
  cells.push_back({config_.tokens.vision_end, -1});
}

void Prompt::system(std::vector<Cell>& cells, const std::string& text) const {
  cells.push_back({config_.tokens.im_start, -1});
  plain(cells, "system\n" + text);
  cells.push_back({config_.tokens.im_end, -1});
  plain(cells, "\n");
}

void Prompt::user(std::vector<Cell>& cells, const std::string& text, const std::vector<PromptMedium>& images) const {
  const std::string marker = "<image>";
  std::vector<std::string> parts(1);
  for (size_t at = 0; at < text.size();) {
    const size_t found = text.find(marker, at);
    parts.back() += text.substr(at, found - at);
    if (found == std::string::npos) break;
    parts.emplace_back();
    at = found + marker.size();
  }
  const size_t markers = parts.size() - 1;
  if (markers > images.size())
    throw Error(Status::invalid_argument, "the question has " + std::to_string(markers) + " <image> markers but only " + std::to_string(images.size()) +
                                              " new images; add the images first or remove the markers");

  // Text between two media is tokenised as one piece, together with the template's own text around it, as the reference does.
  cells.push_back({config_.tokens.im_start, -1});
  std::string piece = "user\n";
  size_t next = 0;
  const auto place = [&] {
    plain(cells, piece);
    piece.clear();
    image(cells, images[next++]);
  };
  while (images.size() - next > markers) place();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) place();
    piece += parts[i];
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
