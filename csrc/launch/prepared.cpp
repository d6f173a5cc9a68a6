#include "prepared.h"

#include <cstring>
#include <utility>

#include "arguments.h"

namespace launch {

namespace {

enum Tag : uint64_t { NONE, INT, FLOAT, OBJECT, TUPLE, ARRAY };

uint64_t address_of(const void* object) {
  return reinterpret_cast<uintptr_t>(object);
}

// 1, 2, 4, 8 or 16: the largest that divides the address
uint64_t alignment_of(const void* pointer) {
  const uint64_t bits = address_of(pointer) | 16;
  return bits & -bits;
}

}  // namespace

// The maps of one argument by the address they were made for: spec and dtype are the argument's.
struct TensorMaps {
  static constexpr size_t LARGEST = 256;

  size_t position, array;
  py::object spec, dtype;
  std::unordered_map<uint64_t, TensorMap> made;

  TensorMap find(const py::object& encode, const void* pointer) {
    const auto found = made.find(address_of(pointer));
    if (found != made.end()) return found->second;
    const py::bytes bytes = encode(spec, dtype, address_of(pointer));
    if (static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr())) != sizeof(TensorMap)) fail("a tensor map has 128 bytes");
    if (made.size() >= LARGEST) made.clear();
    TensorMap map;
    std::memcpy(&map, PyBytes_AS_STRING(bytes.ptr()), sizeof map);
    made[address_of(pointer)] = map;
    return map;
  }
};

struct PreparedVerbs::Launch {
  struct Slot {
    size_t position, array, offset;
  };

  KernelLaunch kernel;
  Arguments packed;
  std::vector<Slot> slots;
  std::vector<TensorMaps> maps;

  Launch(const KernelLaunch& kernel, const py::tuple& values) : kernel(kernel), packed(values, Memory::DEVICE) {}

  void operator()(Stream stream, const std::vector<const void*>& arrays, const py::object& encode) {
    std::vector<TensorMap> found;
    for (TensorMaps& argument : maps) found.push_back(argument.find(encode, arrays[argument.array]));
    // from here on nothing calls Python, so that no other thread writes between
    for (size_t i = 0; i < maps.size(); i++)
      std::memcpy(packed.pointers()[maps[i].position], &found[i], sizeof found[i]);
    for (const Slot& slot : slots) {
      const void* const pointer = static_cast<const char*>(arrays[slot.array]) + slot.offset;
      std::memcpy(packed.pointers()[slot.position], &pointer, sizeof pointer);
    }
    kernel(stream, packed.pointers());  // the driver copies the arguments
  }
};

struct PreparedVerbs::Entry {
  std::vector<std::unique_ptr<Launch>> launches;
  py::tuple temporaries;
  std::vector<py::object> kept;  // so that no other object gets an address that is in the key
};

PreparedVerbs::PreparedVerbs(py::object stream, py::object encode, const py::tuple& shape_types)
    : stream_(std::move(stream)), encode_(std::move(encode)), shape_types_(shape_types) {}

size_t PreparedVerbs::KeyHash::operator()(const Key& key) const {
  uint64_t hash = key.size();
  for (const uint64_t word : key) hash = (hash ^ word ^ (hash >> 29)) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 32);
}

bool PreparedVerbs::is_shape(PyObject* value) const {
  for (size_t i = 0; i < shape_types_.size(); i++)
    if (reinterpret_cast<PyObject*>(Py_TYPE(value)) == PyTuple_GET_ITEM(shape_types_.ptr(), i)) return true;
  return false;
}

bool PreparedVerbs::describe_call(const py::object& verb, const py::tuple& arguments, Call& call) const {
  call.key.clear(), call.arrays.clear(), call.objects.clear();
  Context context = nullptr;
  if (working_driver().context_get(&context) != 0 || !context) return false;  // this thread called nothing yet
  call.key = {address_of(context), address_of(verb.ptr())};
  call.objects.push_back(verb);
  bool with_shape = true;
  for (size_t i = 0; i < arguments.size() && with_shape; i++)
    with_shape = !is_shape(PyTuple_GET_ITEM(arguments.ptr(), i));
  for (size_t i = 0; i < arguments.size(); i++)
    if (!describe_value(PyTuple_GET_ITEM(arguments.ptr(), i), with_shape, call)) return false;
  return true;
}

bool PreparedVerbs::describe_value(PyObject* value, bool with_shape, Call& call) const {
  static PyObject* const dtype_name = PyUnicode_InternFromString("dtype");
  static PyObject* const shape_name = PyUnicode_InternFromString("shape");
  Key& key = call.key;
  if (value == Py_None) {
    key.push_back(NONE);
  } else if (PyLong_CheckExact(value) || PyBool_Check(value)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return false;
    key.insert(key.end(), {INT, static_cast<uint64_t>(number)});
  } else if (PyFloat_CheckExact(value)) {
    const double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    key.insert(key.end(), {FLOAT, bits});
  } else if (PyUnicode_CheckExact(value)) {
    PyObject* text = Py_NewRef(value);
    PyUnicode_InternInPlace(&text);  // equal texts are one object then
    call.objects.push_back(py::reinterpret_steal<py::object>(text));
    key.insert(key.end(), {OBJECT, address_of(text)});
  } else if (is_shape(value)) {
    call.objects.push_back(py::reinterpret_borrow<py::object>(value));
    key.insert(key.end(), {OBJECT, address_of(value)});
  } else if (PyTuple_Check(value)) {
    key.insert(key.end(), {TUPLE, static_cast<uint64_t>(PyTuple_GET_SIZE(value))});
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++)
      if (!describe_value(PyTuple_GET_ITEM(value, i), with_shape, call)) return false;
  } else {
    const void* pointer = nullptr;
    if (!device_pointer(value, &pointer)) return false;
    const auto dtype = py::reinterpret_steal<py::object>(PyObject_GetAttr(value, dtype_name));
    if (!dtype) throw py::error_already_set();
    uint64_t first = 0;  // of the arrays at this address
    while (first < call.arrays.size() && call.arrays[first] != pointer) first++;
    key.insert(key.end(), {ARRAY, alignment_of(pointer), address_of(dtype.ptr()), first});
    call.arrays.push_back(pointer);
    call.objects.push_back(dtype);
    if (!with_shape) return true;
    const auto shape = py::reinterpret_steal<py::object>(PyObject_GetAttr(value, shape_name));
    if (!shape) throw py::error_already_set();
    return describe_value(shape.ptr(), with_shape, call);
  }
  return true;
}

bool PreparedVerbs::run(const py::object& verb, const py::tuple& arguments) {
  Call call = std::exchange(call_, {});  // what is called back into may call again
  if (!describe_call(verb, arguments, call)) return false;
  const auto found = entries_.find(call.key);
  if (found == entries_.end()) return false;
  const std::shared_ptr<Entry> entry = found->second;
  std::vector<py::object> temporaries;
  for (const py::handle make : entry->temporaries) {
    temporaries.push_back(make());
    call.arrays.push_back(data_pointer(temporaries.back().ptr(), Memory::DEVICE, call.arrays.size()));
  }
  const auto stream = reinterpret_cast<Stream>(stream_().cast<uintptr_t>());
  for (const auto& one : entry->launches) (*one)(stream, call.arrays, encode_);
  call_ = std::move(call);
  return true;
}

bool PreparedVerbs::add(const py::object& verb, const py::tuple& arguments, const py::list& launches,
                        const py::tuple& temporaries) {
  Call call;
  if (!describe_call(verb, arguments, call)) return false;
  auto entry = std::make_shared<Entry>();
  entry->temporaries = temporaries;
  entry->kept = std::move(call.objects);
  for (const py::handle item : launches) {
    const auto one = item.cast<py::tuple>();
    KernelLaunch kernel{reinterpret_cast<Function>(one[0].cast<uintptr_t>()),
                        Size3(one[1].cast<py::tuple>(), "grid"),
                        Size3(one[2].cast<py::tuple>(), "block"),
                        one[3].cast<unsigned>(),
                        std::nullopt,
                        one[5].cast<bool>()};
    if (!one[4].is_none()) kernel.cluster = Size3(one[4].cast<py::tuple>(), "cluster");
    auto prepared = std::make_unique<Launch>(kernel, one[6].cast<py::tuple>());
    for (const py::handle slot : one[7]) {
      const auto at = slot.cast<py::tuple>();
      prepared->slots.push_back({at[0].cast<size_t>(), at[1].cast<size_t>(), at[2].cast<size_t>()});
    }
    for (const py::handle map : one[8]) {
      const auto at = map.cast<py::tuple>();
      prepared->maps.push_back({at[0].cast<size_t>(), at[1].cast<size_t>(), at[2], at[3], {}});
    }
    entry->launches.push_back(std::move(prepared));
  }
  if (entries_.size() >= LARGEST) entries_.clear();
  entries_[call.key] = std::move(entry);
  return true;
}

}  // namespace launch
