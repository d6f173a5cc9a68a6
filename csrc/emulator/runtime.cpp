// The run-time part as one translation unit: one start of the compiler instead of a dozen.
#include "fiber.cpp"
#include "scheduler.cpp"
#include "rendezvous.cpp"
#include "memory.cpp"
#include "copies.cpp"
#include "mbarrier.cpp"
#include "tensor_map.cpp"
#include "fragments.cpp"
#include "wgmma.cpp"
#include "report.cpp"
#include "launch.cpp"
#ifdef CNN_EMULATOR_RACE
#include "race.cpp"
#endif
