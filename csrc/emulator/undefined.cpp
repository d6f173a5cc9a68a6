// What code compiled with -fsanitize=bounds,alignment,... calls when it is about to do what C++ leaves undefined. The
// first argument describes the place; its layout is that of GCC's and Clang's run-time library, which is not linked.
#include <cstdint>

#include "report.h"
#include "worker.h"

namespace {

struct Location {
  const char* file;
  uint32_t line, column;
};

struct Type {
  uint16_t kind, info;
  char name[1];  // as the compiler prints it, quoted
};

struct OutOfBounds {
  Location location;
  const Type* array;
  const Type* index;
};

struct Mismatch {
  Location location;
  const Type* type;
  unsigned char log_alignment;
  unsigned char check;
};

using emulator::fail_at;
using emulator::running;
using emulator::text;

void report(const char* kind, const Location& location, const std::string& what) {
  if (running()) fail_at(kind, emulator::place(location.file, static_cast<int>(location.line)), what);
}

}  // namespace

#define EMULATOR_CALLBACK extern "C" __attribute__((visibility("hidden")))

EMULATOR_CALLBACK void __ubsan_handle_out_of_bounds(const OutOfBounds* data, uintptr_t index) {
  report(emulator::kind::out_of_bounds, data->location,
         text("index %lld of an array of type %s", static_cast<long long>(index), data->array->name));
}

EMULATOR_CALLBACK void __ubsan_handle_type_mismatch_v1(const Mismatch* data, uintptr_t p) {
  const uintptr_t alignment = uintptr_t{1} << data->log_alignment;
  report(emulator::kind::misaligned, data->location,
         text("an object of type %s at an address that is %d more than a multiple of %d", data->type->name,
              static_cast<int>(p % alignment), static_cast<int>(alignment)));
}

#define EMULATOR_ARITHMETIC(name, what)                                                          \
  EMULATOR_CALLBACK void __ubsan_handle_##name(const Location* location, uintptr_t, uintptr_t) { \
    report(emulator::kind::undefined, *location, what);                                          \
  }
EMULATOR_ARITHMETIC(add_overflow, "a signed addition overflows")
EMULATOR_ARITHMETIC(sub_overflow, "a signed subtraction overflows")
EMULATOR_ARITHMETIC(mul_overflow, "a signed multiplication overflows")
EMULATOR_ARITHMETIC(negate_overflow, "a signed negation overflows")
EMULATOR_ARITHMETIC(divrem_overflow, "an integer division by zero, or one that overflows")
EMULATOR_ARITHMETIC(shift_out_of_bounds, "a shift by more bits than there are, or of a negative number")
