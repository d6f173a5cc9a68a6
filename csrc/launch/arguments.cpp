#include "arguments.h"

#include <climits>
#include <cstring>
#include <string>

namespace launch {

namespace {

std::string argument(size_t position) {
  return "kernel argument " + std::to_string(position) + ": ";
}

size_t scalar_alignment(size_t bytes) {
  for (size_t alignment = 16; alignment > 1; alignment /= 2)
    if (bytes % alignment == 0) return alignment;
  return 1;
}

}  // namespace

bool device_pointer(PyObject* array, const void** pointer) {
  static PyObject* const data_name = PyUnicode_InternFromString("data");
  static PyObject* const ptr_name = PyUnicode_InternFromString("ptr");
  auto data = py::reinterpret_steal<py::object>(PyObject_GetAttr(array, data_name));
  auto ptr = data ? py::reinterpret_steal<py::object>(PyObject_GetAttr(data.ptr(), ptr_name)) : py::object();
  if (!ptr || !PyLong_Check(ptr.ptr())) {
    PyErr_Clear();
    return false;
  }
  *pointer = PyLong_AsVoidPtr(ptr.ptr());
  if (PyErr_Occurred()) throw py::error_already_set();
  return true;
}

const void* data_pointer(PyObject* array, Memory memory, size_t position) {
  if (py::isinstance<py::array>(array)) {
    if (memory == Memory::DEVICE)
      throw py::type_error(argument(position) + "a GPU kernel reads CuPy arrays, received a NumPy array");
    const auto view = py::reinterpret_borrow<py::array>(array);
    if (!(view.flags() & py::array::c_style))
      throw py::value_error(argument(position) + "expected a C-contiguous array");
    return view.data();
  }
  const void* pointer = nullptr;
  if (!device_pointer(array, &pointer))
    throw py::type_error(argument(position) + "expected an array, None, int, float or bytes, received " +
                         Py_TYPE(array)->tp_name);
  if (memory == Memory::HOST)
    throw py::type_error(argument(position) + "the emulator reads NumPy arrays, received " + Py_TYPE(array)->tp_name);
  return pointer;
}

Arguments::Arguments(const py::tuple& values, Memory memory) {
  const size_t n = values.size();
  if (n > LIMIT) throw py::value_error("a kernel takes at most 128 arguments, received " + std::to_string(n));
  for (size_t i = 0; i < n; i++) {
    PyObject* const value = PyTuple_GET_ITEM(values.ptr(), i);
    if (PyLong_CheckExact(value)) {
      int overflow = 0;
      const long long wide = PyLong_AsLongLongAndOverflow(value, &overflow);
      if (overflow || wide < INT_MIN || wide > INT_MAX)
        throw py::value_error(argument(i) + "an int is passed as 32 bits, received " +
                              std::string(py::str(py::handle(value))));
      const int narrow = static_cast<int>(wide);
      add(&narrow, sizeof narrow, alignof(int));
    } else if (PyFloat_CheckExact(value)) {
      const float narrow = static_cast<float>(PyFloat_AS_DOUBLE(value));
      add(&narrow, sizeof narrow, alignof(float));
    } else if (value == Py_None) {
      add_pointer(nullptr);
    } else if (PyBytes_CheckExact(value)) {
      const size_t bytes = PyBytes_GET_SIZE(value);
      add(PyBytes_AS_STRING(value), bytes, bytes % ALIGNED == 0 ? ALIGNED : scalar_alignment(bytes));
    } else if (!py::isinstance<py::array>(value) && PyObject_CheckBuffer(value)) {
      add_buffer(value, i);
    } else {
      add_pointer(data_pointer(value, memory, i));
    }
  }
}

void Arguments::add_buffer(PyObject* value, size_t position) {
  Py_buffer view;
  if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) != 0) {
    PyErr_Clear();
    throw py::type_error(argument(position) + "cannot read the bytes of " + Py_TYPE(value)->tp_name);
  }
  const size_t bytes = view.len;
  if (bytes <= BYTES) add(view.buf, bytes, bytes % ALIGNED == 0 ? ALIGNED : scalar_alignment(bytes));
  PyBuffer_Release(&view);
  if (bytes > BYTES) throw py::value_error(argument(position) + "a struct has at most 32764 bytes");
}

void Arguments::add(const void* value, size_t bytes, size_t alignment) {
  const size_t start = (used_ + alignment - 1) / alignment * alignment;
  if (start + bytes > BYTES) throw py::value_error("the arguments of a kernel have at most 32764 bytes in all");
  std::memcpy(storage_ + start, value, bytes);
  pointers_[count_++] = storage_ + start;
  used_ = start + bytes;
}

}  // namespace launch
