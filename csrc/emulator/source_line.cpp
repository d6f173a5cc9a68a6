// From a code address to a line of the kernel's source, by addr2line on the module's debug information.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

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

static std::string addr2line(Where where) {
  const char* path = nullptr;
  module_base(&path);
  const std::string command = text("addr2line -i -e '%s' 0x%x 2>/dev/null", path, where);
  FILE* pipe = popen(command.c_str(), "r");
  std::string found;
  char line[1024];
  // the innermost frame first: the kernel's own line is the first that is not the emulator's
  while (pipe && std::fgets(line, sizeof(line), pipe)) {
    const std::string frame = line;
    const size_t colon = frame.rfind(':');
    if (colon == std::string::npos || frame[0] == '?' || frame.find("/csrc/emulator/") != std::string::npos) continue;
    if (found.empty()) found = place(frame.substr(0, colon).c_str(), std::atoi(frame.c_str() + colon + 1));
  }
  if (pipe) pclose(pipe);
  return found.empty() ? text("code address 0x%x of %s (addr2line, of binutils, would name the line)", where, path)
                       : found;
}

std::string place(Where where) {
  static std::map<Where, std::string> known;
  if (where & kSiteBit) return place(sites[where & ~kSiteBit]);
  auto [entry, fresh] = known.try_emplace(where);
  if (fresh) entry->second = addr2line(where);
  return entry->second;
}

}  // namespace emulator
