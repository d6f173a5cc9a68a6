// The C functions that Python and csrc/launch call.
#pragma once

#include <string>

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

namespace emulator {

// Copies a message, cut to its size, into the caller's buffer
void write_error(const std::string& message, char* error, int error_bytes);

}  // namespace emulator
