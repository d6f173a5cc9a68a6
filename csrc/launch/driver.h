// The CUDA driver, found at run time: libcuda.so.1 by dlopen, so that the extension loads where there is none.
// CNNENGINE_LIBCUDA names another library. Declared here as cuda.h 12.8 and 13 declare it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace launch {

using Result = int;  // 0 is success
using Device = int;
using Context = struct ContextOpaque*;
using Module = struct ModuleOpaque*;
using Function = struct FunctionOpaque*;
using Stream = struct StreamOpaque*;
using Graph = struct GraphOpaque*;
using GraphExecutable = struct GraphExecutableOpaque*;

struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

struct LaunchAttribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    struct {
      unsigned x, y, z;
    } cluster;
    int programmatic;
  } value;
};

struct LaunchConfig {
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

constexpr int ATTRIBUTE_CLUSTER = 4;        // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
constexpr int ATTRIBUTE_PROGRAMMATIC = 6;   // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
constexpr int FUNCTION_DYNAMIC_SHARED = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

constexpr int CAPTURE_THREAD_LOCAL = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

struct Driver {
  std::string problem;  // why there is no driver; empty where the rest may be called

  Result (*init)(unsigned);
  Result (*driver_version)(int*);
  Result (*device_count)(int*);
  Result (*device_get)(Device*, int);
  Result (*device_name)(char*, int, Device);
  Result (*device_attribute)(int*, int, Device);
  Result (*primary_context_retain)(Context*, Device);
  Result (*context_get)(Context*);
  Result (*context_set)(Context);
  Result (*module_load)(Module*, const void*);
  Result (*module_unload)(Module);
  Result (*module_function)(Function*, Module, const char*);
  Result (*function_get)(int*, int, Function);
  Result (*function_set)(Function, int, int);
  Result (*launch)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                   void**);
  Result (*launch_ex)(const LaunchConfig*, Function, void**, void**);
  Result (*encode_tiled)(TensorMap*, int, unsigned, void*, const uint64_t*, const uint64_t*, const unsigned*,
                         const unsigned*, int, int, int, int);
  Result (*encode_im2col)(TensorMap*, int, unsigned, void*, const uint64_t*, const uint64_t*, const int*, const int*,
                          unsigned, unsigned, const unsigned*, int, int, int, int);
  Result (*stream_begin_capture)(Stream, int);
  Result (*stream_end_capture)(Stream, Graph*);
  Result (*exchange_capture_mode)(int*);
  Result (*graph_nodes)(Graph, void**, size_t*);
  Result (*graph_instantiate)(GraphExecutable*, Graph, unsigned long long);
  Result (*graph_launch)(GraphExecutable, Stream);
  Result (*graph_destroy)(Graph);
  Result (*graph_executable_destroy)(GraphExecutable);
  Result (*copy_to_device)(uint64_t, const void*, size_t, Stream);
  Result (*error_name)(Result, const char**);
  Result (*error_text)(Result, const char**);
};

// opened once
const Driver& driver();

// "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"
std::string describe(Result result);

}  // namespace launch
