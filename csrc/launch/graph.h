// A CUDA graph: what a stream was given between begin and end, to be launched again as a whole.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "driver.h"

namespace launch {

// From now on the stream's work is written down instead of done. Other calls of this thread that could break the
// capture, such as allocations, fail until its end (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL). KernelError for the default
// stream.
void begin_capture(uintptr_t stream);

class CapturedGraph {
 public:
  explicit CapturedGraph(uintptr_t stream);  // ends the stream's capture; ready to launch
  ~CapturedGraph();
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(uintptr_t stream) const;
  size_t nodes() const { return nodes_; }

 private:
  GraphExecutable executable_ = nullptr;
  size_t nodes_ = 0;
};

// ends a capture whose graph nobody wants; never raises
void abandon_capture(uintptr_t stream);

// What this thread may do beside a capture of its own, CU_STREAM_CAPTURE_MODE_RELAXED: anything; returns the mode
// before.
int exchange_capture_mode(int mode);

// copies bytes to the GPU in the stream's order; the source may change as soon as this returns
void upload(uintptr_t address, const pybind11::buffer& bytes, uintptr_t stream);

}  // namespace launch
