// breastgpt-stage: makes a benchmark in the published format of a table of findings and task templates.
// The path: csv.cpp (the table) and templates.cpp (the templates) → build.cpp (rows × templates → items) → a JSONL file.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "loaders/cursor.h"
#include "loaders/new_file.h"
#include "tools/options.h"
#include "tools/stage/build.h"

namespace {

using stage::Problems;
using stage::Summary;
using stage::Table;
using stage::Template;
using tool::Failure;

std::vector<tool::Option> with_filters(std::vector<tool::Option> table) {
  table.insert(table.end(), {{"--roles", "DIR", "system messages: DIR/screening.txt, diagnosis.txt, treatment.txt; without it items have none"},
                             {"--skip-missing", "", "leave out the templates that name a column which the table does not have; they are listed"},
                             {"--stage", "S", "only templates of this stage: screening, diagnosis or treatment"},
                             {"--modality", "M", "only templates of this modality"},
                             {"--task", "T", "only templates of this task: closed_vqa, open_vqa, grounding, grounded_caption, caption or report"}});
  return table;
}

bool is_template(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored) || std::filesystem::path(path).extension() == ".json";
}

struct Chosen {
  std::vector<Template> templates;
  std::vector<std::string> left_out;  // --skip-missing
  size_t files = 0;
};

Chosen read_chosen(const std::vector<std::string>& paths, const tool::Options& o, Problems& problems) {
  for (const auto& [name, known] : {std::pair{"--stage", &stage::stages()}, std::pair{"--task", &stage::tasks()}})
    if (o.has(name) && std::find(known->begin(), known->end(), o.text(name)) == known->end())
      throw Failure{tool::kUsage, std::string(name) + " " + o.text(name) + ": expected one of " + stage::quoted_list(*known)};
  Chosen out;
  std::set<std::string> modalities;
  for (Template& t : stage::read_templates(paths, problems, out.files)) {
    modalities.insert(t.modality);
    const auto is = [&](const char* option, const std::string& value) { return o.text(option, value) == value; };
    if (is("--stage", t.stage) && is("--task", t.task) && is("--modality", t.modality)) out.templates.push_back(std::move(t));
  }
  if (!out.templates.empty()) return out;
  problems.stop_if_any();
  throw Failure{tool::kFailed, "no template is left by --stage, --task and --modality; the modalities are " +
                                    stage::quoted_list({modalities.begin(), modalities.end()})};
}

// One sentence per stage, for the stages that the templates have.
std::map<std::string, std::string> read_roles(const std::string& folder, const std::vector<Template>& templates) {
  std::map<std::string, std::string> roles;
  for (const Template& t : templates) {
    if (folder.empty() || roles.count(t.stage)) continue;
    const std::string path = folder + "/" + t.stage + ".txt", text = stage::read_text(path, 64 << 10);
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) throw Failure{tool::kFailed, path + ": is empty; expected the system message of the stage"};
    if (const char* marker = stage::marker_in(text)) throw Failure{tool::kFailed, path + ": contains " + marker + ", which would be taken for a medium or a box"};
    roles[t.stage] = text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
  }
  return roles;
}

void print_counts(const char* name, const std::map<std::string, size_t>& counts) {
  std::string line;
  for (const auto& [key, n] : counts) {
    const std::string shown = bg::shown(key);  // names from files: without control characters
    line += (line.empty() ? "" : ", ") + shown.substr(1, shown.size() - 2) + " " + std::to_string(n);
  }
  if (!line.empty()) std::printf("%-28s%s\n", name, line.c_str());
}

void print(const Summary& s, const Table& table, const Chosen& chosen) {
  std::printf("%-28s%zu in %s\n", "cases:", table.rows().size(), table.path().c_str());
  std::printf("%-28s%zu in %zu files\n", "templates:", chosen.templates.size(), chosen.files);
  std::printf("%-28s%zu\n", "items:", s.items);
  print_counts("  by stage:", s.stages);
  print_counts("  by modality:", s.modalities);
  print_counts("  by task:", s.tasks);
  print_counts("rows skipped, column empty:", s.empty);
  print_counts("rows without an item:", s.unused);
  if (!chosen.left_out.empty()) std::printf("%-28s%zu: %s\n", "templates left out:", chosen.left_out.size(), stage::quoted_list(chosen.left_out).c_str());
  if (!s.unmatched.empty()) std::printf("%-28s%zu: %s\n", "templates without an item:", s.unmatched.size(), stage::quoted_list(s.unmatched).c_str());
}

// Never over an input: that would replace the registry's export by the benchmark.
void check_output(const std::string& out, const std::vector<std::string>& inputs) {
  std::error_code ignored;
  for (const std::string& in : inputs)
    if (std::filesystem::equivalent(out, in, ignored)) throw Failure{tool::kUsage, "-o " + out + ": is an input; give another name"};
}

stage::Settings settings_of(const tool::Options& o, const std::vector<Template>& templates) {
  stage::Settings s;
  s.root = o.text("--root");
  if (stage::invalid_utf8(s.root) != std::string::npos) throw Failure{tool::kUsage, "--root: is not UTF-8"};
  s.seed = o.integer("--seed", 0, 0, INT64_MAX);
  s.per_template = o.integer("--per-template", 0, 1, INT64_MAX);
  s.roles = read_roles(o.text("--roles"), templates);
  return s;
}

int run_build(int argc, char** argv) {
  const tool::Options o("breastgpt-stage build", "findings.csv TEMPLATES... -o bench.jsonl",
                        with_filters({{"--output", "FILE", "the benchmark: one JSON object per line", "-o"},
                                      {"--root", "DIR", "write the paths of the media as DIR/path; default: as the table has them"},
                                      {"--seed", "N", "chooses among a template's wordings, and the items of --per-template; default 0"},
                                      {"--per-template", "N", "keep at most N items of each template, chosen by the seed"}}),
                        argc, argv);
  if (o.help()) {
    std::printf("%s\nTEMPLATES are .json files or folders of them. When something is wrong, all of it is told and nothing is written.\n", o.help_text().c_str());
    return tool::kOk;
  }
  if (o.arguments().size() < 2)
    throw Failure{tool::kUsage, "expected findings.csv and at least one template file or folder; see breastgpt-stage build --help"};
  const std::string out = o.required("--output");
  check_output(out, o.arguments());
  if (is_template(o.arguments()[0]))
    throw Failure{tool::kUsage, o.arguments()[0] + ": expected the table first, then the templates; see breastgpt-stage build --help"};
  Problems problems;
  Chosen chosen = read_chosen({o.arguments().begin() + 1, o.arguments().end()}, o, problems);
  const stage::Settings settings = settings_of(o, chosen.templates);
  const Table table(o.arguments()[0], problems);
  if (o.has("--skip-missing")) chosen.left_out = stage::leave_out_lacking(table, chosen.templates);
  bg::NewFile file(out);
  const Summary summary = stage::build(table, chosen.templates, settings, problems, [&](const std::string& line) { file.append(line.data(), line.size()); });
  if (summary.items == 0) throw Failure{tool::kFailed, table.path() + ": no template applies to any row; breastgpt-stage check tells why; nothing was written"};
  file.commit();
  print(summary, table, chosen);
  return tool::kOk;
}

int run_check(int argc, char** argv) {
  const tool::Options o("breastgpt-stage check", "TEMPLATES... [findings.csv]", with_filters({}), argc, argv);
  if (o.help()) {
    std::printf("%s\nTells what is wrong in the templates, and in the table when one is named (what is no folder and does not end in .json).\nNothing is written.\n",
                o.help_text().c_str());
    return tool::kOk;
  }
  std::vector<std::string> paths, tables;
  for (const std::string& a : o.arguments()) (is_template(a) ? paths : tables).push_back(a);
  if (paths.empty() || tables.size() > 1) throw Failure{tool::kUsage, "expected template files or folders and at most one table; see breastgpt-stage check --help"};
  Problems problems;
  Chosen chosen = read_chosen(paths, o, problems);
  const stage::Settings settings = settings_of(o, chosen.templates);
  if (tables.empty()) {
    problems.stop_if_any();
    std::printf("nothing wrong in %zu templates of %zu files\n", chosen.templates.size(), chosen.files);
    return tool::kOk;
  }
  const Table table(tables[0], problems);
  if (o.has("--skip-missing")) chosen.left_out = stage::leave_out_lacking(table, chosen.templates);
  print(stage::build(table, chosen.templates, settings, problems, nullptr), table, chosen);
  return tool::kOk;
}

void help() {
  std::printf("breastgpt-stage: makes a benchmark in the published format of a table of findings and task templates.\n\n"
              "usage: breastgpt-stage build findings.csv TEMPLATES... -o bench.jsonl\n"
              "       breastgpt-stage check TEMPLATES... [findings.csv]\n\n"
              "breastgpt-stage build --help and breastgpt-stage check --help tell the rest. breastgpt bench runs the result.\n"
              "exit codes: 0 done; 1 failed, the message on stderr says why; 2 wrong command line; 130 interrupted, nothing was written\n");
}

}  // namespace

int main(int argc, char** argv) {
  tool::catch_signals();
  const std::string command = argc > 1 ? argv[1] : "--help";
  if (command == "--help" || command == "-h" || command == "help") {
    help();
    return argc > 1 ? tool::kOk : tool::kUsage;
  }
  try {
    if (command == "build") return run_build(argc - 2, argv + 2);
    if (command == "check") return run_check(argc - 2, argv + 2);
    std::fprintf(stderr, "breastgpt-stage: unknown command \"%s\"; see breastgpt-stage --help\n", command.c_str());
    return tool::kUsage;
  } catch (const Failure& f) {
    std::fprintf(stderr, "breastgpt-stage %s: %s\n", command.c_str(), f.message.c_str());
    return f.code;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "breastgpt-stage %s: %s\n", command.c_str(), e.what());
    return tool::kFailed;
  }
}
