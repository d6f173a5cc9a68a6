// What a kernel file sees of the emulator when g++ compiles it in place of nvcc: csrc/cuda/platform.cuh includes this.
// The declarations here are light on purpose (every kernel family compiles them); the work is done by the run-time
// part, runtime.cpp, which is compiled once for a set of flags and linked to each family. docs/emulator.md tells how it
// works.
#pragma once

#include <cstdio>  // printf, which kernels have without asking

#include "qualifiers.h"
#include "vector_types.h"
#include "thread.h"
#include "intrinsics.h"
#include "half.h"
#include "bfloat16.h"
#include "collectives.h"
#include "cluster.h"
#include "atomics.h"
#include "asynchronous.h"
#include "tensor_cores.h"
#include "entry.h"

#define __noinline__ __attribute__((noinline))  // last: C++'s own headers use the word as an attribute's name
