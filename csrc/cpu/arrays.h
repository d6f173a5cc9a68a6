// Checks between Python and the kernels. The engine's functional layer has reported what a user got wrong; what is
// checked here is that a wrong call raises instead of reading or writing where it must not.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <string>

#include "kernels.h"

namespace py = pybind11;

// empty(shape: tuple, dtype): a C-contiguous array that is not initialised. Large ones lie on blocks of the pool and
// give them back when the last view dies; small ones are NumPy's own. A PyCFunction of METH_FASTCALL.
PyObject* empty_array(PyObject* module, PyObject* const* arguments, Py_ssize_t count);
py::array empty_floats(i64 count);  // one axis

template <class T>
struct TypeNumber;
template <>
struct TypeNumber<float> {
  static constexpr int value = py::detail::npy_api::NPY_FLOAT_;
  static constexpr const char* name = "float32";
};
template <>
struct TypeNumber<u8> {
  static constexpr int value = py::detail::npy_api::NPY_UBYTE_;
  static constexpr const char* name = "uint8";
};
template <>
struct TypeNumber<int> {
  static constexpr int value = py::detail::npy_api::NPY_INT_;
  static constexpr const char* name = "int32";
};
template <>
struct TypeNumber<i64> {
  static constexpr int value = py::detail::npy_api::NPY_LONG_;
  static constexpr const char* name = "int64";
};
template <>
struct TypeNumber<u64> {
  static constexpr int value = py::detail::npy_api::NPY_ULONG_;
  static constexpr const char* name = "uint64";
};

template <class T>
bool has_type(const py::array& a) {
  const py::dtype dtype = a.dtype();
  return dtype.num() == TypeNumber<T>::value && dtype.byteorder() != '>';
}

inline std::string described(const py::array& a) {
  std::string text = py::str(static_cast<py::object>(a.dtype())).cast<std::string>() + " (";
  for (py::ssize_t i = 0; i < a.ndim(); i++) text += (i ? ", " : "") + std::to_string(a.shape(i));
  return text + ")" + (a.flags() & py::array::c_style ? "" : ", not C-contiguous");
}

// What a verb was called with: names for the errors, and the arrays' pointers once they are what they must be.
class Call {
 public:
  explicit Call(const char* verb) : verb_(verb) {}

  template <class T = float>
  const T* input(const py::array& a, i64 size, const char* name) const {
    check<T>(a, size, name);
    return static_cast<const T*>(a.data());
  }

  template <class T = float>
  T* output(py::array& a, i64 size, const char* name) const {
    check<T>(a, size, name);
    if (!a.writeable()) throw py::value_error(where(name) + " is written, received a read-only array");
    return static_cast<T*>(a.mutable_data());
  }

  const float* optional(const py::object& a, i64 size, const char* name) const {
    if (a.is_none()) return nullptr;
    if (!py::isinstance<py::array>(a)) throw py::type_error(where(name) + " must be a NumPy array or None");
    return input(py::reinterpret_borrow<py::array>(a), size, name);
  }

  float* optional_output(const py::object& a, i64 size, const char* name) const {
    if (a.is_none()) return nullptr;
    if (!py::isinstance<py::array>(a)) throw py::type_error(where(name) + " must be a NumPy array or None");
    auto array = py::reinterpret_borrow<py::array>(a);
    return output(array, size, name);
  }

  template <class Shape>
  Shape shape(const py::bytes& packed) const {
    Shape s;
    static_assert(sizeof s % sizeof(int) == 0, "shapes are consecutive int32");
    if (static_cast<size_t>(PyBytes_GET_SIZE(packed.ptr())) != sizeof s)
      throw py::value_error(std::string(verb_) + ": expected a packed shape of " + std::to_string(sizeof s) +
                            " bytes, received " + std::to_string(PyBytes_GET_SIZE(packed.ptr())));
    std::memcpy(&s, PyBytes_AS_STRING(packed.ptr()), sizeof s);
    return s;
  }

  // The first `sizes` members of a shape count something and are at least 1, the others are not negative.
  template <class Shape>
  void positive(const Shape& s, int first, int last) const {
    const int* members = reinterpret_cast<const int*>(&s);
    for (int i = 0; i < static_cast<int>(sizeof s / sizeof(int)); i++)
      if (members[i] < (i >= first && i < last ? 1 : 0))
        throw py::value_error(std::string(verb_) + ": the shape's member " + std::to_string(i) + " is " +
                              std::to_string(members[i]));
  }

  void require(bool condition, const std::string& message) const {
    if (!condition) throw py::value_error(std::string(verb_) + ": " + message);
  }

  std::string where(const char* name) const { return std::string(verb_) + ": " + name; }

 private:
  template <class T>
  void check(const py::array& a, i64 size, const char* name) const {
    constexpr int good = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if (has_type<T>(a) && (a.flags() & good) == good && a.size() == size) return;
    const std::string message = where(name) + " must be a C-contiguous " + TypeNumber<T>::name + " array of " +
                                std::to_string(size) + " elements, received " + described(a);
    if (!has_type<T>(a)) throw py::type_error(message);
    throw py::value_error(message);
  }

  const char* verb_;
};
