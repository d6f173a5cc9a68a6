#include "graph.h"

#include "kernel_launch.h"

namespace launch {

namespace {

Stream stream_of(uintptr_t handle) {
  return reinterpret_cast<Stream>(handle);
}

}  // namespace

void begin_capture(uintptr_t stream) {
  check(working_driver().stream_begin_capture(stream_of(stream), CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture");
}

CapturedGraph::CapturedGraph(uintptr_t stream) {
  const Driver& d = working_driver();
  Graph graph = nullptr;
  check(d.stream_end_capture(stream_of(stream), &graph), "cuStreamEndCapture");
  Result result = d.graph_nodes(graph, nullptr, &nodes_);
  if (result == 0) result = d.graph_instantiate(&executable_, graph, 0);
  d.graph_destroy(graph);
  check(result, "cuGraphInstantiate");
}

CapturedGraph::~CapturedGraph() {
  if (executable_) driver().graph_executable_destroy(executable_);
}

void CapturedGraph::launch(uintptr_t stream) const {
  check(driver().graph_launch(executable_, stream_of(stream)), "cuGraphLaunch");
}

void abandon_capture(uintptr_t stream) {
  Graph graph = nullptr;
  if (working_driver().stream_end_capture(stream_of(stream), &graph) == 0 && graph) driver().graph_destroy(graph);
}

int exchange_capture_mode(int mode) {
  check(working_driver().exchange_capture_mode(&mode), "cuThreadExchangeStreamCaptureMode");
  return mode;
}

void upload(uintptr_t address, const py::buffer& bytes, uintptr_t stream) {
  Py_buffer view;
  if (PyObject_GetBuffer(bytes.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
  // from pageable memory: the driver has read all of it when it returns
  const Result result = working_driver().copy_to_device(address, view.buf, view.len, stream_of(stream));
  PyBuffer_Release(&view);
  check(result, "cuMemcpyHtoDAsync");
}

}  // namespace launch
