// What the emulator finds wrong. A report names the kind of bug, the source line, the block and the thread; it ends the
// launch and becomes a cnnengine.errors.KernelError. The process stays usable.
#pragma once

#include <string>

#include "thread.h"

namespace emulator {

namespace kind {
constexpr const char* bad_launch = "bad launch";
constexpr const char* race = "data race (missing barrier)";
constexpr const char* out_of_bounds = "out of bounds";
constexpr const char* uninitialised = "uninitialised shared memory";
constexpr const char* misaligned = "misaligned access";
constexpr const char* divergent_barrier = "divergent barrier";
constexpr const char* deadlock = "deadlock";
constexpr const char* warp_mask = "wrong warp mask";
constexpr const char* copy_wait = "missing cp.async wait";
constexpr const char* tensor_copy_wait = "missing wait for a bulk tensor copy";
constexpr const char* mbarrier = "mbarrier misuse";
constexpr const char* tensor_map = "bad tensor map";
constexpr const char* tensor_copy = "bulk tensor copy misuse";
constexpr const char* proxy_fence = "missing fence.proxy.async";
constexpr const char* wgmma_fence = "missing wgmma.fence";
constexpr const char* wgmma_wait = "missing wgmma wait";
constexpr const char* wgmma = "wgmma misuse";
constexpr const char* cluster = "cluster misuse";
constexpr const char* named_barrier = "named barrier misuse";
constexpr const char* trap = "trap";
constexpr const char* undefined = "undefined behaviour";
}  // namespace kind

// Ends the launch with a report about the running thread.
[[noreturn]] void fail(const char* kind, Site site, const char* format, ...) __attribute__((format(printf, 3, 4)));
// The same with a place that is already text, such as "conv2d.cuh:12"
[[noreturn]] void fail_at(const char* kind, const std::string& place, const std::string& text);

std::string message(const char* kind, const std::string& place, const Thread& thread, const std::string& what);

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string place(Site site);                   // cuda/conv2d.cuh:12
std::string place(const char* file, int line);  // the same
std::string thread_name(const Thread& thread);  // thread (1, 2, 0)
std::string block_name(const Thread& thread);   // block (1, 2, 0)

}  // namespace emulator
