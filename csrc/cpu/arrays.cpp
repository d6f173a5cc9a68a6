#include "arrays.h"

#include "memory.h"

namespace {

constexpr size_t POOLED = 1024;  // bytes from which an array lies on a block of the pool; NumPy keeps smaller ones
constexpr int MOST_AXES = 32;
constexpr const char* BLOCK = "cnnengine.block";  // the name of the capsules that own blocks

void give_back_block(PyObject* capsule) {
  cnn::give_back(static_cast<cnn::Block*>(PyCapsule_GetPointer(capsule, BLOCK)));
}

// The array's bytes, or 0 where NumPy is to see to it: sizes that are negative, none or too large, and Python objects.
size_t plain_bytes(const py::dtype& dtype, const Py_intptr_t* sizes, Py_ssize_t axes) {
  constexpr unsigned long long HAS_OBJECT = 1;  // NPY_ITEM_REFCOUNT
  size_t bytes = static_cast<size_t>(dtype.itemsize());
  for (Py_ssize_t i = 0; i < axes; i++)
    if (sizes[i] < 0 || __builtin_mul_overflow(bytes, static_cast<size_t>(sizes[i]), &bytes)) return 0;
  return dtype.flags() & HAS_OBJECT ? 0 : bytes;
}

// An array or, with a Python error set, null. Takes the reference to the descriptor, as NumPy does.
PyObject* new_array(PyObject* descriptor, const Py_intptr_t* sizes, int axes) {
  const auto& numpy = py::detail::npy_api::get();
  constexpr int FLAGS =
      py::array::c_style | py::detail::npy_api::NPY_ARRAY_WRITEABLE_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const size_t bytes = plain_bytes(py::reinterpret_borrow<py::dtype>(descriptor), sizes, axes);
  if (bytes < POOLED)
    return numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, descriptor, axes, sizes, nullptr, nullptr, 0, nullptr);
  cnn::Block* block;
  try {
    block = cnn::take_block(bytes);
  } catch (const std::bad_alloc&) {
    Py_DECREF(descriptor);
    return PyErr_Format(PyExc_MemoryError, "empty: there are no %zu bytes of memory", bytes);
  }
  PyObject* array = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, descriptor, axes, sizes, nullptr,
                                                cnn::memory_of(block), FLAGS, nullptr);
  PyObject* owner = array ? PyCapsule_New(block, BLOCK, give_back_block) : nullptr;
  if (!owner) {
    cnn::give_back(block);
  } else if (numpy.PyArray_SetBaseObject_(array, owner) == 0) {  // takes the reference, also where it fails
    return array;
  }
  Py_XDECREF(array);
  return nullptr;
}

}  // namespace

PyObject* empty_array(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(arguments[0]) || PyTuple_GET_SIZE(arguments[0]) > MOST_AXES) {
    PyErr_SetString(PyExc_TypeError, "empty: expected a shape, a tuple of at most 32 sizes, and a dtype");
    return nullptr;
  }
  const Py_ssize_t axes = PyTuple_GET_SIZE(arguments[0]);
  Py_intptr_t sizes[MOST_AXES];
  for (Py_ssize_t i = 0; i < axes; i++) {
    sizes[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(arguments[0], i), PyExc_OverflowError);
    if (sizes[i] == -1 && PyErr_Occurred()) return nullptr;
  }
  PyObject* descriptor;
  if (!py::detail::npy_api::get().PyArray_DescrConverter_(arguments[1], &descriptor)) return nullptr;
  return new_array(descriptor, sizes, static_cast<int>(axes));
}

py::array empty_floats(i64 count) {
  const Py_intptr_t size = count;
  PyObject* array = new_array(py::dtype::of<float>().release().ptr(), &size, 1);
  if (!array) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(array);
}
