// breastgpt features as a user runs it: exit codes, messages, what is printed. Needs BG_BUILD (make sets it) and libhdf5 in the build.
#include <doctest/doctest.h>

#include <vector>

#include "tests/cli.h"
#include "tests/support.h"

namespace {

CliResult features(std::vector<std::string> args) {
  args.insert(args.begin(), "features");
  return breastgpt(args);
}

void fails(std::vector<std::string> args, int code, const std::string& message) {
  args.insert(args.begin(), "features");
  cli_fails(args, code, message);
}

std::string slide(const std::string& name) { return golden_path("slides/" + name); }

}  // namespace

TEST_CASE("cli features: help and wrong command lines") {
  const CliResult help = features({"--help"});
  CHECK(help.code == 0);
  CHECK(contains(help.out, "usage: breastgpt features info FILE | convert IN OUT"));
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{{}, {"info"}, {"info", "a", "b"}, {"convert", "a"}, {"convert", "a", "b", "c"}, {"sing", "a"}})
    fails(args, 2, "expected info FILE or convert IN OUT; see breastgpt features --help");
  fails({"info", "--json", "x"}, 2, "unknown option --json");
}

TEST_CASE("cli features: info") {
  CliResult r = features({"info", slide("trident.h5")});
  CHECK(r.code == 0);
  CHECK(r.err.empty());
  for (const char* part : {"trident.h5, Trident HDF5, sha256 ", "tiles:      3\n", "width:      768\n", "extent:     x 0 ... 1024, y 0 ... 3072 level-0 pixels\n",
                           "attribute:  encoder = conch_v15\n", "attribute:  patch_size_level0 = 1024\n"})
    CHECK_MESSAGE(contains(r.out, part), r.out);
  r = features({"info", slide("clam.h5")});
  CHECK(contains(r.out, "extent:     x 0 ... 2048, y 0 ... 2048 level-0 pixels (tile corners; the side of a tile is not in the file)\n"));
  r = features({"info", slide("bare.safetensors")});
  CHECK(r.code == 0);
  CHECK(contains(r.out, "extent:     no coords in the file: evidence cannot be drawn\n"));
  fails({"info", slide("nan.h5")}, 1, "nan.h5: features: 2 values are not finite");
  fails({"info", slide("absent.h5")}, 1, "absent.h5: cannot be opened");
}

TEST_CASE("cli features: nothing from a file reaches the terminal as a control character") {
  const TempDir dir;
  const std::string header = R"({"__metadata__":{"k\u001b[2J":"a\nb\u007f"},"features":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}})";
  const uint64_t n = header.size();
  write_file(dir.file("x.safetensors"), std::string(reinterpret_cast<const char*>(&n), 8) + header + std::string(4, '\0'));
  CHECK(contains(features({"info", dir.file("x.safetensors")}).out, "attribute:  k?[2J = a?b?\n"));
}

TEST_CASE("cli features: convert") {
  const TempDir dir;
  CliResult r = features({"convert", slide("trident.h5"), dir.file("a.safetensors")});
  CHECK(r.code == 0);
  CHECK(r.out == dir.file("a.safetensors") + ": 3 tiles of width 768\n");
  CHECK(features({"convert", dir.file("a.safetensors"), dir.file("b.h5")}).code == 0);
  CHECK(features({"convert", dir.file("b.h5"), dir.file("c.safetensors")}).code == 0);
  CHECK(read_file(dir.file("a.safetensors")) == read_file(dir.file("c.safetensors")));
  CHECK(contains(features({"convert", slide("bare.h5"), dir.file("d.h5")}).out, "7 tiles of width 8, without coords"));
  fails({"convert", slide("trident.h5"), dir.file("a.csv")}, 1, "a.csv: slide features are saved as .h5 or .safetensors");
  fails({"convert", slide("trident.h5"), dir.file("no/a.h5")}, 1, "cannot be created");
  fails({"convert", slide("empty.h5"), dir.file("e.h5")}, 1, "empty.h5: features of shape (0,): the slide has no tiles");
  CHECK(!std::filesystem::exists(dir.file("e.h5")));
}
