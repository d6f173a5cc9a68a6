// One kernel on the GPU: its handle and the sizes that cuLaunchKernel takes.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "driver.h"

namespace launch {

namespace py = pybind11;

// raises cnnengine.errors.KernelError
[[noreturn]] void fail(const std::string& message);

// raises KernelError with the driver's text where a call did not succeed
void check(Result result, const char* call);

// the driver; raises KernelError with the reason where there is none
const Driver& working_driver();

struct Size3 {
  unsigned at[3] = {1, 1, 1};

  Size3() = default;
  Size3(const py::tuple& size, const char* what);  // ValueError unless three sizes of 1 to 2^31 - 1
};

struct KernelLaunch {
  Function function;
  Size3 grid, block;
  unsigned shared_bytes;
  std::optional<Size3> cluster;
  bool programmatic;

  void operator()(Stream stream, void** arguments) const;
};

}  // namespace launch
