#include "fiber.h"

#include <cstdint>

#ifdef EMULATOR_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef CNN_EMULATOR_UCONTEXT
// void emulator_switch(void** save_stack_pointer, void* stack_pointer)
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** save, void* stack_pointer);
#endif

namespace emulator {

void prepare(Context& context, void* stack, size_t stack_bytes, void (*entry)()) {
  context.stack = stack;
  context.stack_bytes = stack_bytes;
  context.address_sanitizer = nullptr;
#ifdef EMULATOR_ADDRESS_SANITIZER
  ASAN_UNPOISON_MEMORY_REGION(stack, stack_bytes);  // the frames of an earlier fiber may never have returned
#endif
#ifdef CNN_EMULATOR_UCONTEXT
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = stack_bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
#else
  // what emulator_switch pops: six registers, then the address to return to; entry expects rsp = 8 (mod 16)
  uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + stack_bytes) & ~uintptr_t{15};
  void** frame = reinterpret_cast<void**>(top) - 10;
  for (int i = 0; i < 6; i++) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry);
  frame[7] = nullptr;  // entry's own return address: none
  context.stack_pointer = frame;
#endif
}

#ifdef EMULATOR_ADDRESS_SANITIZER
static thread_local Context* switched_from;
#endif

void switch_context(Context& from, Context& to, [[maybe_unused]] bool last) {
#ifdef EMULATOR_ADDRESS_SANITIZER
  switched_from = &from;
  __sanitizer_start_switch_fiber(last ? nullptr : &from.address_sanitizer, to.stack, to.stack_bytes);
#endif
#ifdef CNN_EMULATOR_UCONTEXT
  swapcontext(&from.state, &to.state);
#else
  emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
  entered(from);
}

// `own` is the context that goes on now
void entered([[maybe_unused]] Context& own) {
#ifdef EMULATOR_ADDRESS_SANITIZER
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(own.address_sanitizer, &stack, &bytes);
  if (switched_from && !switched_from->stack) {  // a core's own stack, unknown until it is left for the first time
    switched_from->stack = stack;
    switched_from->stack_bytes = bytes;
  }
#endif
}

}  // namespace emulator
