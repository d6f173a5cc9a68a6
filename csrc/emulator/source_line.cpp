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
struct Known {
  std::string line;  // the kernel's own
  bool of_kernel = false;
};
std::map<Where, Known> known;  // code addresses
}  // namespace

// Of one address's frames, the innermost first, the kernel's own line: the first that is neither the emulator's nor a
// conversion of platform.cuh
static std::string kernel_line(const std::vector<std::string>& frames) {
  std::string conversion;
  for (const std::string& text : frames) {
    const std::string frame = std::filesystem::path(text).lexically_normal().string();
    const size_t colon = frame.rfind(':');
    if (colon == std::string::npos || frame[0] == '?' || frame.find("/csrc/emulator/") != std::string::npos) continue;
    const std::string line = place(frame.substr(0, colon).c_str(), std::atoi(frame.c_str() + colon + 1));
    if (frame.find("/csrc/cuda/platform.cuh:") == std::string::npos) return line;
    if (conversion.empty()) conversion = line;
  }
  return conversion;
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
    for (const auto& [where, found] : frames) known[where] = {kernel_line(found), of_kernel(found.front())};
  }
}

std::string place(Where where) {
  if (where & kSiteBit) return place(sites[where & ~kSiteBit]);
  look_up({where});
  const char* path = nullptr;
  module_base(&path);
  const std::string& line = known[where].line;
  return line.empty() ? text("code address 0x%x of %s (addr2line, of binutils, would name the line)", where, path)
                      : line;
}

}  // namespace emulator
