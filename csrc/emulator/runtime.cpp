// The run-time part as one translation unit: one start of the compiler instead of a dozen.
#include "fiber.cpp"
#include "scheduler.cpp"
#include "rendezvous.cpp"
#include "cluster.cpp"
#include "memory.cpp"
#include "copies.cpp"
#include "mbarrier.cpp"
#include "tensor_map.cpp"
#include "fragments.cpp"
#include "wgmma.cpp"
#include "report.cpp"
#include "launch.cpp"
#if defined(CNN_EMULATOR_RACE) || defined(CNN_EMULATOR_COUNT)
#include "source_line.cpp"
#include "access_callbacks.cpp"
#endif
#ifdef CNN_EMULATOR_RACE
#include "race_order.cpp"
#include "race_memory.cpp"
#include "race_registers.cpp"
#include "undefined.cpp"
#endif
#ifdef CNN_EMULATOR_COUNT
#include "count_branches.cpp"
#include "count_cost.cpp"
#include "count_requests.cpp"
#include "count_totals.cpp"
#endif
