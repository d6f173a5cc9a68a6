// A CUDA driver for a machine without a GPU: modules and contexts are checked as the real one checks them, and a kernel
// that was registered under its symbol runs on the emulator, at once or as part of a captured graph. FAKE_CUDA_INIT,
// FAKE_CUDA_VERSION and FAKE_CUDA_DEVICES in the environment change what it says of itself.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {

using EmulatorLaunch = int (*)(int, const unsigned*, const unsigned*, const unsigned*, size_t, void**, char*, int);

struct Registered {
  EmulatorLaunch launch;
  int kernel;
};

struct Function {
  Registered registered;
  int shared_bytes = 48 << 10;  // what it may have
};

struct Attribute {  // of cuLaunchKernelEx
  int id;
  char pad[4];
  char value[64];
};

struct Config {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  Attribute* attributes;
  unsigned attribute_count;
};

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900
};

std::map<std::string, Registered> registry;
thread_local int current_context = 0;  // 0: none
int modules = 0;
// stream, shared bytes, grid, block, cluster, programmatic, launches, modules loaded, tensor maps made
unsigned last[15];
std::string last_error;

using Graph = std::vector<std::function<int()>>;
Graph* captured = nullptr;  // by the stream that captures
void* capturing_stream = nullptr;
std::string graph_calls, told;

// Our launcher keeps the arguments in 4096 bytes from the first on, and room for 64 pointers to them.
struct ArgumentCopy {
  unsigned char* bytes = static_cast<unsigned char*>(std::aligned_alloc(128, 4096));
  void* pointers[64];

  explicit ArgumentCopy(void** arguments) {
    std::memcpy(bytes, arguments[0], 4096);
    for (int i = 0; i < 64; i++) {
      const uintptr_t offset = reinterpret_cast<uintptr_t>(arguments[i]) - reinterpret_cast<uintptr_t>(arguments[0]);
      pointers[i] = offset < 4096 ? bytes + offset : nullptr;
    }
  }
};

int setting(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : otherwise;
}

int run(Function* f, const unsigned* grid, const unsigned* block, const unsigned* cluster, unsigned shared_bytes,
        void* stream, void** arguments) {
  if (!current_context) return INVALID_CONTEXT;
  if (static_cast<int>(shared_bytes) > f->shared_bytes) return INVALID_VALUE;
  last[0] = static_cast<unsigned>(reinterpret_cast<uintptr_t>(stream)), last[1] = shared_bytes;
  for (int i = 0; i < 3; i++) last[2 + i] = grid[i], last[5 + i] = block[i];
  last[12]++;
  const auto launch = [registered = f->registered, shared_bytes](const unsigned* g, const unsigned* b,
                                                                 const unsigned* c, void** values) -> int {
    char error[4096] = "";
    if (!registered.launch) return SUCCESS;  // registered as a kernel that does nothing
    if (!registered.launch(registered.kernel, g, b, c, shared_bytes, values, error, sizeof error)) return SUCCESS;
    last_error = error;
    return LAUNCH_FAILED;
  };
  if (!captured || stream != capturing_stream) return launch(grid, block, cluster, arguments);
  std::vector<unsigned> sizes(grid, grid + 3);
  sizes.insert(sizes.end(), block, block + 3);
  sizes.insert(sizes.end(), cluster, cluster + 3);
  captured->push_back([launch, sizes, copy = ArgumentCopy(arguments)]() mutable {
    return launch(sizes.data(), sizes.data() + 3, sizes.data() + 6, copy.pointers);
  });
  return SUCCESS;
}

}  // namespace

extern "C" {

void fake_register(const char* symbol, void* launch, int kernel) {
  registry[symbol] = {reinterpret_cast<EmulatorLaunch>(launch), kernel};
}
const unsigned* fake_last() {
  return last;
}
const char* fake_error() {
  return last_error.c_str();
}

const char* fake_calls() {  // the graph calls since this was last asked
  told = graph_calls;
  graph_calls.clear();
  return told.c_str();
}
int fake_capturing(void* stream) {
  return captured && stream == capturing_stream;
}
void fake_add_node(int (*run)()) {  // what CuPy's own kernels add
  captured->push_back(run);
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
  graph_calls += "begin ";
  if (!stream || captured) return CAPTURE_UNSUPPORTED;  // the default stream cannot be captured
  if (mode != 1) return INVALID_VALUE;
  captured = new Graph, capturing_stream = stream;
  return SUCCESS;
}
int cuStreamEndCapture(void* stream, void** graph) {
  graph_calls += "end ";
  if (!captured || stream != capturing_stream) return INVALID_VALUE;
  *graph = captured, captured = nullptr;
  return SUCCESS;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  graph_calls += "instantiate ";
  *executable = new Graph(*static_cast<Graph*>(graph));
  return SUCCESS;
}
int cuGraphGetNodes(void* graph, void**, size_t* count) {
  return *count = static_cast<Graph*>(graph)->size(), SUCCESS;
}
int cuGraphLaunch(void* executable, void* stream) {
  graph_calls += "launch ";
  last[0] = static_cast<unsigned>(reinterpret_cast<uintptr_t>(stream));
  for (auto& node : *static_cast<Graph*>(executable))
    if (const int failed = node()) return failed;
  return SUCCESS;
}
int cuGraphDestroy(void* graph) {
  graph_calls += "destroy ";
  return delete static_cast<Graph*>(graph), SUCCESS;
}
int cuGraphExecDestroy(void* executable) {
  graph_calls += "destroy_executable ";
  return delete static_cast<Graph*>(executable), SUCCESS;
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, void* stream) {
  if (captured && stream == capturing_stream) return CAPTURE_UNSUPPORTED;  // it would be a node that reads host memory
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return SUCCESS;
}
int cuThreadExchangeStreamCaptureMode(int* mode) {
  static int current = 0;
  const int before = current;
  current = *mode, *mode = before;
  return SUCCESS;
}

int cuInit(unsigned) {
  return setting("FAKE_CUDA_INIT", SUCCESS);
}
int cuDriverGetVersion(int* version) {
  return *version = setting("FAKE_CUDA_VERSION", 13000), SUCCESS;
}
int cuDeviceGetCount(int* count) {
  return *count = setting("FAKE_CUDA_DEVICES", 1), SUCCESS;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < setting("FAKE_CUDA_DEVICES", 1) ? SUCCESS : 101;
}
int cuDeviceGetName(char* name, int bytes, int) {
  return std::strncpy(name, "Fake 9000", bytes), SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : 0;  // compute capability 9.0
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = reinterpret_cast<void*>(static_cast<uintptr_t>(device + 1));
  return SUCCESS;
}
int cuCtxGetCurrent(void** context) {
  *context = reinterpret_cast<void*>(static_cast<uintptr_t>(current_context));
  return SUCCESS;
}
int cuCtxSetCurrent(void* context) {
  current_context = static_cast<int>(reinterpret_cast<uintptr_t>(context));
  return SUCCESS;
}
int cuModuleLoadData(void** module, const void* image) {
  if (!current_context) return INVALID_CONTEXT;
  if (std::memcmp(image, "\177ELF", 4) != 0) return INVALID_IMAGE;
  last[13]++;
  *module = reinterpret_cast<void*>(static_cast<uintptr_t>(++modules));
  return SUCCESS;
}
int cuModuleUnload(void*) {
  return SUCCESS;
}
int cuModuleGetFunction(void** function, void*, const char* symbol) {
  const auto found = registry.find(symbol);
  if (found == registry.end()) return NOT_FOUND;
  *function = new Function{found->second};
  return SUCCESS;
}
int cuFuncGetAttribute(int* value, int attribute, void* function) {
  *value = attribute == 8 ? static_cast<Function*>(function)->shared_bytes : 0;
  return SUCCESS;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != 8 || value > 227 << 10) return INVALID_VALUE;
  static_cast<Function*>(function)->shared_bytes = value;
  return SUCCESS;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** arguments, void** extra) {
  const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz}, cluster[3] = {1, 1, 1};
  if (extra) return INVALID_VALUE;
  return run(static_cast<Function*>(function), grid, block, cluster, shared_bytes, stream, arguments);
}
int cuLaunchKernelEx(const Config* config, void* function, void** arguments, void**) {
  unsigned cluster[3] = {1, 1, 1};
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const Attribute& attribute = config->attributes[i];
    if (attribute.id == 4) std::memcpy(cluster, attribute.value, 12);
    if (attribute.id == 4) std::memcpy(last + 8, attribute.value, 12);
    if (attribute.id == 6) std::memcpy(last + 11, attribute.value, 4);
  }
  return run(static_cast<Function*>(function), config->grid, config->block, cluster, config->shared_bytes,
             config->stream, arguments);
}
int cuTensorMapEncodeTiled(void* map, int dtype, unsigned rank, void* address, const uint64_t* sizes,
                           const uint64_t* strides, const unsigned* box, const unsigned* steps, int interleave,
                           int swizzle, int promotion, int fill) {
  const uint64_t words[16] = {static_cast<uint64_t>(dtype),
                              rank,
                              reinterpret_cast<uint64_t>(address),
                              sizes[0],
                              sizes[rank - 1],
                              strides[0],
                              box[0],
                              box[rank - 1],
                              steps[0],
                              static_cast<uint64_t>(interleave),
                              static_cast<uint64_t>(swizzle),
                              static_cast<uint64_t>(promotion),
                              static_cast<uint64_t>(fill)};
  if (reinterpret_cast<uintptr_t>(map) % 64) return INVALID_VALUE;
  last[14]++;
  std::memcpy(map, words, sizeof words);
  return SUCCESS;
}
int cuTensorMapEncodeIm2col(void* map, int dtype, unsigned rank, void* address, const uint64_t* sizes,
                            const uint64_t* strides, const int* lower, const int* upper, unsigned channels,
                            unsigned pixels, const unsigned* steps, int interleave, int swizzle, int promotion,
                            int fill) {
  const uint64_t words[16] = {static_cast<uint64_t>(dtype),
                              rank,
                              reinterpret_cast<uint64_t>(address),
                              sizes[rank - 1],
                              strides[rank - 2],
                              static_cast<uint64_t>(lower[0]),
                              static_cast<uint64_t>(upper[rank - 3]),
                              channels,
                              pixels,
                              steps[rank - 1],
                              static_cast<uint64_t>(interleave),
                              static_cast<uint64_t>(swizzle),
                              static_cast<uint64_t>(promotion),
                              static_cast<uint64_t>(fill)};
  if (reinterpret_cast<uintptr_t>(map) % 64 || rank < 3 || pixels > 1024) return INVALID_VALUE;
  last[14]++;
  std::memcpy(map, words, sizeof words);
  return SUCCESS;
}
int cuGetErrorName(int error, const char** name) {
  static const std::map<int, const char*> names = {{INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                                                   {100, "CUDA_ERROR_NO_DEVICE"},
                                                   {101, "CUDA_ERROR_INVALID_DEVICE"},
                                                   {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
                                                   {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
                                                   {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
                                                   {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
                                                   {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  const auto found = names.find(error);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? INVALID_VALUE : SUCCESS;
}
int cuGetErrorString(int, const char** text) {
  return *text = "as the fake driver says", SUCCESS;
}
}
