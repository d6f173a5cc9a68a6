#include "driver.h"

#include <cstdlib>
#include <dlfcn.h>

namespace launch {

namespace {

Driver open() {
  Driver d{};
  const char* chosen = std::getenv("CNNENGINE_LIBCUDA");
  const std::string name = chosen && *chosen ? chosen : "libcuda.so.1";
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    d.problem = "no CUDA driver: " + name + " is not on this machine";
    return d;
  }
  const auto find = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
    if (!function && d.problem.empty()) d.problem = "the CUDA driver is too old: " + name + " has no " + symbol;
  };
  find(d.init, "cuInit");
  find(d.driver_version, "cuDriverGetVersion");
  find(d.device_count, "cuDeviceGetCount");
  find(d.device_get, "cuDeviceGet");
  find(d.device_name, "cuDeviceGetName");
  find(d.device_attribute, "cuDeviceGetAttribute");
  find(d.primary_context_retain, "cuDevicePrimaryCtxRetain");
  find(d.context_get, "cuCtxGetCurrent");
  find(d.context_set, "cuCtxSetCurrent");
  find(d.module_load, "cuModuleLoadData");
  find(d.module_unload, "cuModuleUnload");
  find(d.module_function, "cuModuleGetFunction");
  find(d.function_get, "cuFuncGetAttribute");
  find(d.function_set, "cuFuncSetAttribute");
  find(d.launch, "cuLaunchKernel");
  find(d.launch_ex, "cuLaunchKernelEx");
  find(d.encode_tiled, "cuTensorMapEncodeTiled");
  find(d.encode_im2col, "cuTensorMapEncodeIm2col");
  find(d.stream_begin_capture, "cuStreamBeginCapture_v2");
  find(d.stream_end_capture, "cuStreamEndCapture");
  find(d.exchange_capture_mode, "cuThreadExchangeStreamCaptureMode");
  find(d.graph_nodes, "cuGraphGetNodes");
  find(d.graph_instantiate, "cuGraphInstantiateWithFlags");
  find(d.graph_launch, "cuGraphLaunch");
  find(d.graph_destroy, "cuGraphDestroy");
  find(d.graph_executable_destroy, "cuGraphExecDestroy");
  find(d.copy_to_device, "cuMemcpyHtoDAsync_v2");
  find(d.error_name, "cuGetErrorName");
  find(d.error_text, "cuGetErrorString");
  return d;
}

}  // namespace

const Driver& driver() {
  static const Driver opened = open();
  return opened;
}

std::string describe(Result result) {
  const char *name = nullptr, *text = nullptr;
  if (driver().error_name(result, &name) != 0 || !name) return "error " + std::to_string(result);
  if (driver().error_text(result, &text) != 0 || !text) return name;
  return std::string(name) + ": " + text;
}

}  // namespace launch
