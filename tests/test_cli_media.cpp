// breastgpt ask with volumes, slides, choices, boxes and evidence, as a user runs it; and the result pictures of the files API.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "loaders/image.h"
#include "loaders/volume.h"
#include "runtime/breastgpt_files.h"
#include "tests/cli.h"
#include "tests/support.h"
#include "tests/tiny.h"

using Json = nlohmann::json;

namespace {

std::string media(const std::string& name) { return golden_path("mixed-media/" + name); }
std::string model() { return tiny_weights("tiny-breastgpt", "bf16", {{"histo_token_num", "7"}, {"image_token_num", "5"}, {"video_token_num", "6"}}); }

bg_box box_of(std::vector<double> low, std::vector<double> high, const int64_t size[3]) {
  bg_box b{};
  b.label = "mass";
  b.dimensions = int(low.size());
  for (size_t i = 0; i < 3; ++i) {
    b.source_low[i] = i < low.size() ? low[i] / 1000 * double(size[i]) : 0;
    b.source_high[i] = i < low.size() ? high[i] / 1000 * double(size[i]) : double(size[i]);
  }
  return b;
}

}  // namespace

TEST_CASE("cli media: one question about a picture, a volume and a slide") {
  TempDir folder;
  const CliResult r = breastgpt({"ask", "-m", model(), "--image", golden_path("tiny-images/grey.png"), "--volume", media("plain.nii.gz"), "--slide", media("slide-70.safetensors"), "--max-tokens", "4",
                                 "--evidence", folder.file("seen.png"), "--json", "A <volume> B <slide> C <image> D?"});
  CHECK_MESSAGE(r.code == 0, r.err);
  const Json j = Json::parse(r.out, nullptr, false);
  REQUIRE(j.is_object());
  REQUIRE(j["media"].size() == 3);
  const char* kinds[] = {"image", "volume", "slide"};
  const size_t kept[] = {5, 6, 7};
  for (size_t i = 0; i < 3; ++i) {
    CHECK(j["media"][i]["kind"] == kinds[i]);
    CHECK(j["media"][i]["kept"][0]["tokens"].size() == kept[i]);
    const double coverage = j["media"][i]["kept"][0]["coverage"];
    CHECK(coverage > 0);
    CHECK(coverage <= 1.00001);
    CHECK(j["media"][i]["file_sha256"].get<std::string>().size() == 64);
  }
  CHECK(j["turns"][0]["boxes"].is_array());
  CHECK(bg::load_image(folder.file("seen.png")).width > 0);    // the picture
  CHECK(bg::load_image(folder.file("seen-2.png")).width > 0);  // the volume's sheet
  const Json tiles = Json::parse(read_file(folder.file("seen-3.geojson")), nullptr, false);
  REQUIRE(tiles.is_object());
  CHECK(tiles["features"].size() == 4 * 7);
  CHECK(tiles["features"][0]["geometry"]["type"] == "Polygon");
}

TEST_CASE("cli media: choices and abstaining") {
  const std::vector<std::string> ask = {"ask", "-m", model(), "--image", golden_path("tiny-images/grey.png"), "--choices", "benign,malignant,A", "Which?"};
  CliResult r = breastgpt(ask);
  CHECK(r.code == 0);
  CHECK(contains(r.out, "(margin "));
  std::vector<std::string> json = ask;
  json.insert(json.begin() + 1, {"--json", "--abstain", "1"});
  r = breastgpt(json);
  const Json j = Json::parse(r.out, nullptr, false);
  REQUIRE(j.is_object());
  CHECK(j["turns"][0]["answer"] == "uncertain");
  double sum = 0;
  for (const Json& choice : j["turns"][0]["choices"]) sum += choice["probability"].get<double>();
  CHECK(std::abs(sum - 1) < 1e-9);
  cli_fails({"ask", "-m", model(), "--choices", "A", "Q"}, 1, "at least two options");
  cli_fails({"ask", "-m", model(), "--choices", "A,,B", "Q"}, 1, "an option is empty");
  cli_fails({"ask", "-m", model(), "--abstain", "0.5", "Q"}, 2, "--abstain needs --choices");
  cli_fails({"ask", "-m", model(), "--choices", "A,B", "--abstain", "7", "Q"}, 2, "the margin must be 0 … 1");
  cli_fails({"ask", "-m", model(), "--choices", "A,B", "Q", "Q2"}, 2, "--choices takes one question");
}

TEST_CASE("cli media: options that do not fit are refused before anything is computed") {
  const std::string m = model(), image = golden_path("tiny-images/grey.png"), slide = media("slide-70.safetensors");
  for (const std::string command : {"ask", "plan"}) cli_fails({command, "-m", m, "Q", image}, 2, "grey.png is a file: give pictures with --image");
  cli_fails({"ask", "-m", m, "--draw", "x.png", "Q"}, 2, "--draw needs an --image or a --volume");
  cli_fails({"ask", "-m", m, "--image", image, "--draw", "x.jpg", "Q"}, 2, "the name must end in .png");
  cli_fails({"ask", "-m", m, "--image", image, "--draw-mask", "x.nii.gz", "Q"}, 2, "--draw-mask needs a --volume");
  cli_fails({"ask", "-m", m, "--volume", media("plain.nii.gz"), "--draw-mask", "x.nii", "Q"}, 2, "the name must end in .nii.gz");
  cli_fails({"ask", "-m", m, "--evidence", "x.png", "Q"}, 2, "--evidence needs an --image, --volume or --slide");
  cli_fails({"ask", "-m", m, "--image", image, "--evidence", "x", "Q"}, 2, "the name must end in .png");
  cli_fails({"ask", "-m", m, "--image", image, "--thumbnail", image, "Q"}, 2, "--thumbnail needs a --slide and --evidence");
  cli_fails({"ask", "-m", m, "--volume", slide, "Q"}, 1, "slide-70.safetensors");
  cli_fails({"ask", "-m", m, "--slide", image, "Q"}, 1, "grey.png");
  cli_fails({"ask", "-m", m, "--image", media("plain.nii.gz"), "Q"}, 1, "plain.nii.gz");
  cli_fails({"ask", "-m", m, "--selector", "concept", "Q"}, 1, "no weights for the concept selector");
  cli_fails({"ask", "-m", tiny_weights("tiny-8b"), "--slide", slide, "Q"}, 1, "needs a breastgpt model");
}

TEST_CASE("cli media: plan counts every medium") {
  const CliResult r = breastgpt({"plan", "-m", model(), "--volume", media("plain.nii.gz"), "--slide", media("slide-70.safetensors"), "Q"});
  CHECK(r.code == 0);
  CHECK(contains(r.out, "visual rows"));
  CHECK(breastgpt({"ask", "-m", model(), "--no-prescale", "--volume", media("plain.nii.gz"), "--draw", "/nonexistent/x.png", "--max-tokens", "1", "Q"}).code == 1);
}

TEST_CASE("results: boxes on a picture, on a volume and as a mask") {
  TempDir folder;
  bg_error e;
  bg_image_file* image = nullptr;
  REQUIRE(bg_image_file_open(golden_path("images/demo.jpg").c_str(), 0, &image, &e) == BG_OK);
  const bg_image* pixels = bg_image_file_pixels(image);
  const int64_t size[3] = {pixels->width, pixels->height, 1};
  const bg_box flat = box_of({250, 250}, {750, 750}, size);
  CHECK(bg_draw_image_boxes(folder.file("box.png").c_str(), pixels, 0, 255, &flat, 1, 0, &e) == BG_OK);
  CHECK(bg_draw_image_boxes(folder.file("none.png").c_str(), pixels, 0, 255, &flat, 1, 1, &e) == BG_OK);  // no box on medium 1
  const bg::Image drawn = bg::load_image(folder.file("box.png")), bare = bg::load_image(folder.file("none.png"));
  CHECK(drawn.rgb != bare.rgb);
  CHECK(bare.rgb == std::vector<uint8_t>(pixels->rgb, pixels->rgb + 3 * pixels->width * pixels->height));
  bg_image_file_close(image);

  bg_volume_file* volume = nullptr;
  REQUIRE(bg_volume_file_open(media("plain.nii.gz").c_str(), &volume, &e) == BG_OK);
  const bg_volume* v = bg_volume_file_voxels(volume);
  const int64_t voxels[3] = {v->width, v->height, v->depth};
  const bg_box deep = box_of({0, 500, 0}, {500, 1000, 300}, voxels);
  CHECK(bg_draw_volume_boxes(folder.file("sheet.png").c_str(), v, 0, 1000, &deep, 1, 0, &e) == BG_OK);
  CHECK(bg_save_volume_mask(folder.file("mask.nii.gz").c_str(), volume, &deep, 1, 0, &e) == BG_OK);
  const bg::Volume mask = bg::load_volume(folder.file("mask.nii.gz"));
  CHECK(mask.nx == v->width);
  const auto at = [&](int64_t x, int64_t y, int64_t z) { return mask.voxels[size_t((z * mask.ny + y) * mask.nx + x)]; };
  CHECK(at(0, mask.ny - 1, 0) == 1);
  CHECK(at(0, 0, 0) == 0);
  CHECK(at(mask.nx - 1, mask.ny - 1, 0) == 0);
  CHECK(at(0, mask.ny - 1, mask.nz - 1) == 0);
  const double origin[3] = {0.5, 0.5, 0.5};  // centre of the first voxel
  double mm[3];
  REQUIRE(bg_volume_file_millimetres(volume, origin, mm) == 1);
  const bg::Volume whole = bg::load_volume(media("plain.nii.gz"));
  for (int i = 0; i < 3; ++i) CHECK(std::abs(mm[i] - whole.affine[i][3]) < 1e-9);
  bg_volume_file_close(volume);
}
