// Kernel arguments: a Python tuple to the void** that cuLaunchKernel and the emulator take, without an allocation.
//
//   NumPy array (emulator) or CuPy array (GPU)   its data pointer, 8 bytes
//   None                                         a null pointer
//   int                                          int, range-checked
//   float                                        float
//   any other object with a buffer               its bytes by value: bytes for a struct, np.int64(n) for a long long
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace launch {

namespace py = pybind11;

enum class Memory { HOST, DEVICE };

class Arguments {
 public:
  Arguments(const py::tuple& values, Memory memory);
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  void** pointers() { return pointers_; }

 private:
  static constexpr size_t LIMIT = 128;    // arguments of a kernel: of Numba's, the parts of its arrays
  static constexpr size_t BYTES = 32764;  // what CUDA allows from 12.1 on, on every architecture from 7.0 on
  static constexpr size_t ALIGNED = 128;  // a CUtensorMap's alignment, the strictest

  void add(const void* value, size_t bytes, size_t alignment);
  void add_pointer(const void* pointer) { add(&pointer, sizeof pointer, alignof(void*)); }
  void add_buffer(PyObject* value, size_t position);

  alignas(ALIGNED) unsigned char storage_[BYTES];
  void* pointers_[LIMIT];
  size_t used_ = 0, count_ = 0;
};

// what a CuPy array's data.ptr holds; false where there is none
bool device_pointer(PyObject* array, const void** pointer);

// where an array's elements begin; TypeError for an array of the other memory, ValueError where it is not C-contiguous
const void* data_pointer(PyObject* array, Memory memory, size_t position);

}  // namespace launch
