#include "kernel_launch.h"

namespace launch {

void fail(const std::string& message) {
  const py::object error = py::module_::import("cnnengine.errors").attr("KernelError");
  PyErr_SetString(error.ptr(), message.c_str());
  throw py::error_already_set();
}

void check(Result result, const char* call) {
  if (result != 0) fail(std::string(call) + ": " + describe(result));
}

const Driver& working_driver() {
  if (!driver().problem.empty()) fail(driver().problem);
  return driver();
}

Size3::Size3(const py::tuple& size, const char* what) {
  if (size.size() != 3) throw py::value_error(std::string(what) + ": expected (x, y, z)");
  for (int i = 0; i < 3; i++) {
    const long value = PyLong_AsLong(PyTuple_GET_ITEM(size.ptr(), i));
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (value < 1 || value > 0x7fffffff)
      throw py::value_error(std::string(what) + ": sizes are 1 to 2^31 - 1, received " +
                            std::string(py::str(py::handle(size))));
    at[i] = static_cast<unsigned>(value);
  }
}

void KernelLaunch::operator()(Stream stream, void** arguments) const {
  const Driver& d = working_driver();
  const unsigned *b = grid.at, *t = block.at;
  if (!cluster && !programmatic) {
    check(d.launch(function, b[0], b[1], b[2], t[0], t[1], t[2], shared_bytes, stream, arguments, nullptr),
          "cuLaunchKernel");
    return;
  }
  LaunchAttribute attributes[2] = {};
  LaunchConfig config{{b[0], b[1], b[2]}, {t[0], t[1], t[2]}, shared_bytes, stream, attributes, 0};
  if (cluster) {
    LaunchAttribute& attribute = attributes[config.attribute_count++];
    attribute.id = ATTRIBUTE_CLUSTER;
    attribute.value.cluster = {cluster->at[0], cluster->at[1], cluster->at[2]};
  }
  if (programmatic) {
    LaunchAttribute& attribute = attributes[config.attribute_count++];
    attribute.id = ATTRIBUTE_PROGRAMMATIC;
    attribute.value.programmatic = 1;
  }
  check(d.launch_ex(&config, function, arguments, nullptr), "cuLaunchKernelEx");
}

}  // namespace launch
