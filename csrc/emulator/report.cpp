#include "report.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "race.h"
#include "worker.h"

namespace emulator {

static std::string formatted(const char* format, va_list arguments) {
  char buffer[1024];
  vsnprintf(buffer, sizeof(buffer), format, arguments);
  return buffer;
}

std::string text(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string result = formatted(format, arguments);
  va_end(arguments);
  return result;
}

// The last folder and the file: enough to find it, the same on every machine
std::string place(const char* file, int line) {
  if (!file) return "an unknown line";
  const std::string path = std::filesystem::path(file).lexically_normal().string();
  const size_t last = path.rfind('/');
  const size_t before = last == std::string::npos || last == 0 ? last : path.rfind('/', last - 1);
  return path.substr(before == std::string::npos ? 0 : before + 1) + ":" + std::to_string(line);
}

std::string place(Site site) {
  return place(site.file, site.line);
}

static std::string triple(const char* name, uint3 v) {
  return text("%s (%u, %u, %u)", name, v.x, v.y, v.z);
}
std::string thread_name(const Thread& thread) {
  return triple("thread", thread.thread_index);
}
std::string block_name(const Thread& thread) {
  return triple("block", thread.block_index);
}

std::string message(const char* kind, const std::string& place, const Thread& thread, const std::string& what) {
  return std::string(kind) + " at " + place + ", " + block_name(thread) + ", " + thread_name(thread) + ": " + what;
}

void fail_at(const char* kind, const std::string& place, const std::string& what) {
  Fiber* fiber = running();
  worker->error = message(kind, place, *fiber, what);
  const std::string earlier = kind == emulator::kind::race ? "" : race::block_end();
  if (!earlier.empty()) worker->error += "; before that, " + earlier;
  switch_context(fiber->context, worker->scheduler);
  __builtin_unreachable();  // the block is abandoned, nobody switches back
}

void fail(const char* kind, Site site, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string what = formatted(format, arguments);
  va_end(arguments);
  fail_at(kind, place(site), what);
}

void trap(Site site) {
  fail(kind::trap, site, "the kernel gave up by __trap()");
}

}  // namespace emulator
