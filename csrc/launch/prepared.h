// A verb's launches, planned and packed at its first call of a kind and made again in one call: a look-up, then for
// each kernel a copy of its arguments, the arrays' addresses written into it, and cuLaunchKernel.
//
// What tells two kinds of call apart, in the order of the arguments:
//
//   shape                        the object itself: shapes are interned
//   int, bool, float, str, None  its value
//   tuple (an Epilogue)          its members
//   array                        dtype, alignment (1, 2, 4, 8, 16), which array before it has the same address; its
//                                shape too, where no argument is a shape
//
// and the context the driver has. A call with anything else is never prepared.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernel_launch.h"

namespace launch {

class PreparedVerbs {
 public:
  // stream() is the current stream's handle, encode(spec, dtype, address) the bytes of a tensor map
  PreparedVerbs(py::object stream, py::object encode, const py::tuple& shape_types);

  // makes the launches of a call of this kind; false where it was not prepared
  bool run(const py::object& verb, const py::tuple& arguments);

  // Prepares calls of this kind; false where they cannot be. A launch is (function, grid, block, shared bytes, cluster,
  // programmatic, arguments, slots, maps). Array i of a slot is the call's i-th, after these come the temporaries,
  // which are functions that make them:
  //   slots   (position among the arguments, array, byte offset)
  //   maps    (position among the arguments, array, spec, dtype)
  bool add(const py::object& verb, const py::tuple& arguments, const py::list& launches, const py::tuple& temporaries);

  void clear() { entries_.clear(); }
  size_t size() const { return entries_.size(); }

 private:
  using Key = std::vector<uint64_t>;
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Call {
    Key key;
    std::vector<const void*> arrays;
    std::vector<py::object> objects;  // whose addresses are in the key
  };
  struct Launch;
  struct Entry;

  static constexpr size_t LARGEST = 4096;  // entries; then all are forgotten

  bool describe_call(const py::object& verb, const py::tuple& arguments, Call& call) const;
  bool describe_value(PyObject* value, bool with_shape, Call& call) const;
  bool is_shape(PyObject* value) const;

  py::object stream_, encode_;
  py::tuple shape_types_;
  std::unordered_map<Key, std::shared_ptr<Entry>, KeyHash> entries_;
  Call call_;  // the last one, for its memory
};

}  // namespace launch
