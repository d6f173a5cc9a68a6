// cnnengine._launch: one call to run a kernel, on the emulator or on a GPU, and the little of the CUDA driver that
// loading one needs. Raises cnnengine.errors.KernelError with what the driver or the emulator says.
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <vector>

#include "arguments.h"
#include "graph.h"
#include "kernel_launch.h"
#include "prepared.h"

namespace launch {
namespace {

using EmulatorLaunch = int (*)(int, const unsigned*, const unsigned*, const unsigned*, size_t, void**, char*, int);

void launch_emulator(uintptr_t address, int kernel, const py::tuple& grid, const py::tuple& block, size_t shared_bytes,
                     const py::tuple& arguments, const std::optional<py::tuple>& cluster) {
  const Size3 blocks(grid, "grid"), threads(block, "block");
  const Size3 together = cluster ? Size3(*cluster, "cluster") : Size3();
  Arguments packed(arguments, Memory::HOST);
  char error[4096] = "";
  int failed;
  {
    py::gil_scoped_release release;
    failed = reinterpret_cast<EmulatorLaunch>(address)(kernel, blocks.at, threads.at, together.at, shared_bytes,
                                                       packed.pointers(), error, sizeof error);
  }
  if (failed) fail(error);
}

void launch_cuda(uintptr_t function, const py::tuple& grid, const py::tuple& block, unsigned shared_bytes,
                 uintptr_t stream, const py::tuple& arguments, const std::optional<py::tuple>& cluster,
                 bool programmatic) {
  KernelLaunch kernel{reinterpret_cast<Function>(function),
                      Size3(grid, "grid"),
                      Size3(block, "block"),
                      shared_bytes,
                      std::nullopt,
                      programmatic};
  if (cluster) kernel.cluster = Size3(*cluster, "cluster");
  Arguments packed(arguments, Memory::DEVICE);
  kernel(reinterpret_cast<Stream>(stream), packed.pointers());
}

// None, or why no kernel can be launched
std::optional<std::string> driver_problem() {
  if (!driver().problem.empty()) return driver().problem;
  const Result result = driver().init(0);
  if (result != 0) return "the CUDA driver finds no usable GPU: cuInit: " + describe(result);
  int devices = 0;
  if (driver().device_count(&devices) != 0 || devices == 0) return "the CUDA driver finds no GPU";
  return std::nullopt;
}

int driver_version() {
  int version = 0;
  check(working_driver().driver_version(&version), "cuDriverGetVersion");
  return version;
}

Device device(int ordinal) {
  Device found = 0;
  check(working_driver().init(0), "cuInit");
  check(driver().device_get(&found, ordinal), "cuDeviceGet");
  return found;
}

int device_attribute(int attribute, int ordinal) {
  int value = 0;
  check(working_driver().device_attribute(&value, attribute, device(ordinal)), "cuDeviceGetAttribute");
  return value;
}

std::string device_name(int ordinal) {
  char name[256] = "";
  check(working_driver().device_name(name, sizeof name, device(ordinal)), "cuDeviceGetName");
  return name;
}

// The primary context is the one that CuPy and the CUDA runtime use; a thread that has none gets it.
void ensure_context(int ordinal) {
  Context current = nullptr;
  if (working_driver().context_get(&current) == 0 && current) return;  // an error: the driver is not initialised yet
  check(driver().primary_context_retain(&current, device(ordinal)), "cuDevicePrimaryCtxRetain");
  check(driver().context_set(current), "cuCtxSetCurrent");
}

uintptr_t module_load(const py::bytes& image) {
  Module loaded = nullptr;
  check(working_driver().module_load(&loaded, PyBytes_AS_STRING(image.ptr())), "cuModuleLoadData");
  return reinterpret_cast<uintptr_t>(loaded);
}

void module_unload(uintptr_t loaded) {
  check(working_driver().module_unload(reinterpret_cast<Module>(loaded)), "cuModuleUnload");
}

uintptr_t module_function(uintptr_t loaded, const std::string& name) {
  Function function = nullptr;
  check(working_driver().module_function(&function, reinterpret_cast<Module>(loaded), name.c_str()),
        ("cuModuleGetFunction(" + name + ")").c_str());
  return reinterpret_cast<uintptr_t>(function);
}

int function_attribute(uintptr_t function, int attribute) {
  int value = 0;
  check(working_driver().function_get(&value, attribute, reinterpret_cast<Function>(function)), "cuFuncGetAttribute");
  return value;
}

void allow_dynamic_shared(uintptr_t function, int bytes) {
  check(working_driver().function_set(reinterpret_cast<Function>(function), FUNCTION_DYNAMIC_SHARED, bytes),
        "cuFuncSetAttribute");
}

py::bytes encode_tensor_map_tiled(int dtype, uintptr_t address, const std::vector<uint64_t>& sizes,
                                  const std::vector<uint64_t>& strides, const std::vector<unsigned>& box,
                                  const std::vector<unsigned>& steps, int interleave, int swizzle, int promotion,
                                  int fill) {
  const size_t rank = sizes.size();
  if (rank < 1 || rank > 5 || strides.size() != rank - 1 || box.size() != rank || steps.size() != rank)
    throw py::value_error("a tensor map has 1 to 5 axes, as many box sizes and steps, and one stride less");
  TensorMap map{};
  check(working_driver().encode_tiled(&map, dtype, static_cast<unsigned>(rank), reinterpret_cast<void*>(address),
                                      sizes.data(), strides.data(), box.data(), steps.data(), interleave, swizzle,
                                      promotion, fill),
        "cuTensorMapEncodeTiled");
  return py::bytes(reinterpret_cast<const char*>(&map), sizeof map);
}

// Sizes, strides and steps run from the channels outwards, the corners of the bounding box from w outwards.
py::bytes encode_tensor_map_im2col(int dtype, uintptr_t address, const std::vector<uint64_t>& sizes,
                                   const std::vector<uint64_t>& strides, const std::vector<int>& lower,
                                   const std::vector<int>& upper, unsigned channels, unsigned pixels,
                                   const std::vector<unsigned>& steps, int interleave, int swizzle, int promotion,
                                   int fill) {
  const size_t rank = sizes.size();
  if (rank < 3 || rank > 5 || strides.size() != rank - 1 || lower.size() != rank - 2 || upper.size() != rank - 2 ||
      steps.size() != rank)
    throw py::value_error(
        "an im2col tensor map has 3 to 5 axes, as many steps, one stride less and corners of two axes less");
  TensorMap map{};
  check(working_driver().encode_im2col(&map, dtype, static_cast<unsigned>(rank), reinterpret_cast<void*>(address),
                                       sizes.data(), strides.data(), lower.data(), upper.data(), channels, pixels,
                                       steps.data(), interleave, swizzle, promotion, fill),
        "cuTensorMapEncodeIm2col");
  return py::bytes(reinterpret_cast<const char*>(&map), sizeof map);
}

// The data pointers of arrays, 8 bytes each, 0 for None: a table that a kernel takes by value.
py::bytes pack_pointers(const py::sequence& arrays, bool on_device) {
  std::vector<const void*> pointers(arrays.size(), nullptr);
  for (size_t i = 0; i < pointers.size(); i++) {
    const py::object array = arrays[i];
    if (!array.is_none()) pointers[i] = data_pointer(array.ptr(), on_device ? Memory::DEVICE : Memory::HOST, i);
  }
  return py::bytes(reinterpret_cast<const char*>(pointers.data()), pointers.size() * sizeof(void*));
}

// The largest power of two, at most 16, that divides the addresses of all arrays; None has every alignment.
int alignment(const py::tuple& arrays) {
  uintptr_t bits = 16;
  for (size_t i = 0; i < arrays.size(); i++) {
    PyObject* const array = PyTuple_GET_ITEM(arrays.ptr(), i);
    if (array == Py_None) continue;
    const Memory memory = py::isinstance<py::array>(array) ? Memory::HOST : Memory::DEVICE;
    bits |= reinterpret_cast<uintptr_t>(data_pointer(array, memory, i));
  }
  return static_cast<int>(bits & -bits);
}

// What a launch would hand over, one bytes object an argument of the sizes given: how the tests see the packing.
std::vector<py::bytes> pack(const py::tuple& arguments, const std::vector<size_t>& sizes, bool on_device) {
  if (sizes.size() != arguments.size()) throw py::value_error("pack: one size an argument");
  Arguments packed(arguments, on_device ? Memory::DEVICE : Memory::HOST);
  std::vector<py::bytes> values;
  for (size_t i = 0; i < sizes.size(); i++)
    values.emplace_back(static_cast<const char*>(packed.pointers()[i]), sizes[i]);
  return values;
}

}  // namespace
}  // namespace launch

PYBIND11_MODULE(_launch, m) {
  namespace py = pybind11;
  using namespace py::literals;
  m.doc() = "Launches kernels on the emulator and, through the CUDA driver where there is one, on a GPU.";
  m.def("launch_emulator", &launch::launch_emulator, "address"_a, "kernel"_a, "grid"_a, "block"_a, "shared_bytes"_a,
        "arguments"_a, "cluster"_a = py::none());
  m.def("launch_cuda", &launch::launch_cuda, "function"_a, "grid"_a, "block"_a, "shared_bytes"_a, "stream"_a,
        "arguments"_a, "cluster"_a = py::none(), "programmatic"_a = false);
  m.def("driver_problem", &launch::driver_problem);
  m.def("driver_version", &launch::driver_version);
  m.def("device_attribute", &launch::device_attribute, "attribute"_a, "ordinal"_a);
  m.def("device_name", &launch::device_name, "ordinal"_a);
  m.def("ensure_context", &launch::ensure_context, "ordinal"_a);
  m.def("module_load", &launch::module_load, "image"_a);
  m.def("module_unload", &launch::module_unload, "module"_a);
  m.def("module_function", &launch::module_function, "module"_a, "name"_a);
  m.def("function_attribute", &launch::function_attribute, "function"_a, "attribute"_a);
  m.def("allow_dynamic_shared", &launch::allow_dynamic_shared, "function"_a, "bytes"_a);
  m.def("encode_tensor_map_tiled", &launch::encode_tensor_map_tiled, "dtype"_a, "address"_a, "sizes"_a, "strides"_a,
        "box"_a, "steps"_a, "interleave"_a, "swizzle"_a, "promotion"_a, "fill"_a);
  m.def("encode_tensor_map_im2col", &launch::encode_tensor_map_im2col, "dtype"_a, "address"_a, "sizes"_a, "strides"_a,
        "lower"_a, "upper"_a, "channels"_a, "pixels"_a, "steps"_a, "interleave"_a, "swizzle"_a, "promotion"_a,
        "fill"_a);
  m.def("pack_pointers", &launch::pack_pointers, "arrays"_a, "on_device"_a);
  m.def("alignment", &launch::alignment, "arrays"_a);
  py::class_<launch::PreparedVerbs>(m, "PreparedVerbs")
      .def(py::init<py::object, py::object, py::tuple>(), "stream"_a, "encode"_a, "shape_types"_a)
      .def("run", &launch::PreparedVerbs::run, "verb"_a, "arguments"_a)
      .def("add", &launch::PreparedVerbs::add, "verb"_a, "arguments"_a, "launches"_a, "temporaries"_a)
      .def("clear", &launch::PreparedVerbs::clear)
      .def("__len__", &launch::PreparedVerbs::size);
  py::class_<launch::CapturedGraph>(m, "CapturedGraph")
      .def(py::init<uintptr_t>(), "stream"_a)
      .def("launch", &launch::CapturedGraph::launch, "stream"_a)
      .def_property_readonly("nodes", &launch::CapturedGraph::nodes);
  m.def("begin_capture", &launch::begin_capture, "stream"_a);
  m.def("abandon_capture", &launch::abandon_capture, "stream"_a);
  m.def("exchange_capture_mode", &launch::exchange_capture_mode, "mode"_a);
  m.def("upload", &launch::upload, "address"_a, "bytes"_a, "stream"_a);
  m.def("pack", &launch::pack, "arguments"_a, "sizes"_a, "on_device"_a);
}
