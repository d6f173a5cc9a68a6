// From a code address to a line of the kernel's source, by addr2line on the module's debug information.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <vector>

#include "report.h"
#include "source_line.h"

namespace emulator {

namespace {
constexpr Where kSiteBit = 0x80000000u;
std::vector<Site> sites;

const char* module_base(const char** path = nullptr) {
  static Dl_info info = [] {
    Dl_info found{};
    dladdr(reinterpret_cast<const void*>(&module_base), &found);
    return found;
  }();
  if (path) *path = info.dli_fname;
  return static_cast<const char*>(info.dli_fbase);
}
}  // namespace

Where where_of(Site site) {
  for (size_t i = sites.size(); i > 0; i--)
    if (sites[i - 1].line == site.line && sites[i - 1].file == site.file) return kSiteBit | static_cast<Where>(i - 1);
  sites.push_back(site);
  return kSiteBit | static_cast<Where>(sites.size() - 1);
}

Where where_of(const void* code) {
  return static_cast<Where>(static_cast<const char*>(code) - 1 - module_base());
}

namespace {
struct Frame {
  std::string file;
  int line;
};
struct Known {
  std::vector<Frame> frames;  // the innermost first, without the emulator's
  bool of_kernel = false;
};
std::map<Where, Known> known;  // code addresses
}  // namespace

static std::vector<Frame> kernel_frames(const std::vector<std::string>& frames) {
  std::vector<Frame> found;
  for (const std::string& text : frames) {
    const std::string frame = std::filesystem::path(text).lexically_normal().string();
    const size_t colon = frame.rfind(':');
    if (colon == std::string::npos || frame[0] == '?' || frame.find("/csrc/emulator/") != std::string::npos) continue;
    found.push_back({frame.substr(0, colon), std::atoi(frame.c_str() + colon + 1)});
  }
  return found;
}

// The kernel's own: the first that is no conversion of platform.cuh
static const Frame* kernel_line(const std::vector<Frame>& frames) {
  for (const Frame& frame : frames)
    if (frame.file.find("/csrc/cuda/platform.cuh") == std::string::npos) return &frame;
  return frames.empty() ? nullptr : &frames.front();
}

// Whether the innermost frame is neither the emulator's, nor a conversion, nor an instruction's twin
static bool of_kernel(const std::string& text) {
  const std::string frame = std::filesystem::path(text).lexically_normal().string();
  for (const char* other :
       {"/csrc/emulator/", "/csrc/cuda/platform.cuh:", "/csrc/cuda/ptx.cuh:", "/usr/include/", "/usr/lib/gcc/"})
    if (frame.find(other) != std::string::npos) return false;
  return frame[0] != '?';
}

bool is_of_kernel(Where where) {
  return known[where].of_kernel;
}

void look_up(const std::vector<Where>& places) {
  constexpr size_t kAtOnce = 500;  // addresses of a command
  std::vector<Where> unknown;
  for (Where where : places)
    if (!(where & kSiteBit) && !known.count(where)) unknown.push_back(where);
  std::sort(unknown.begin(), unknown.end());
  unknown.erase(std::unique(unknown.begin(), unknown.end()), unknown.end());
  const char* path = nullptr;
  module_base(&path);
  for (size_t first = 0; first < unknown.size(); first += kAtOnce) {
    std::string command = text("addr2line -a -i -e '%s'", path);
    for (size_t i = first; i < std::min(unknown.size(), first + kAtOnce); i++) command += text(" 0x%x", unknown[i]);
    FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
    std::map<Where, std::vector<std::string>> frames;  // an address, then its frames
    Where address = 0;
    char line[1024];
    while (pipe && std::fgets(line, sizeof(line), pipe)) {
      if (!std::strncmp(line, "0x", 2))
        address = static_cast<Where>(std::strtoul(line, nullptr, 16));
      else
        frames[address].push_back(line);
    }
    if (pipe) pclose(pipe);
    for (const auto& [where, found] : frames) known[where] = {kernel_frames(found), of_kernel(found.front())};
  }
}

std::string place(Where where) {
  if (where & kSiteBit) return place(sites[where & ~kSiteBit]);
  look_up({where});
  const char* path = nullptr;
  module_base(&path);
  const Frame* line = kernel_line(known[where].frames);
  return line ? place(line->file.c_str(), line->line)
              : text("code address 0x%x of %s (addr2line, of binutils, would name the line)", where, path);
}

std::string full_place(Where where) {
  if (where & kSiteBit) {
    const Site site = sites[where & ~kSiteBit];
    return (site.file ? site.file : "") + text(":%d", site.line);
  }
  look_up({where});
  const Frame* line = kernel_line(known[where].frames);
  return line ? line->file + text(":%d", line->line) : "";
}

std::vector<std::string> frames(Where where) {
  look_up({where});
  std::vector<std::string> all;
  for (const Frame& frame : known[where].frames) all.push_back(frame.file + text(":%d", frame.line));
  return all;
}

}  // namespace emulator
